import type { GalleryPicture } from "../../lib/state/gallery";
import { t } from "../../strings";
import { useApp } from "../context";
import { dayName } from "./days";
import { GAP, type PictureRow, type Row } from "./rows";
import { Tile } from "./Tile";
import { useWindow } from "./useWindow";

interface GridProps {
  pictures: readonly GalleryPicture[];
  chosen: ReadonlySet<string> | undefined;
  onPick: (id: string, event: MouseEvent) => void;
  onHold: (id: string) => void;
}

/** Thumbnails by day. Only those near the visible part are in the DOM. */
export function Grid({ pictures, chosen, onPick, onHold }: GridProps) {
  const { gallery } = useApp();
  const { element, window } = useWindow(pictures, {
    top: gallery.scrollTop,
    onScroll: (top) => {
      gallery.scrollTop = top;
    },
    onNearEnd: () => {
      // After a failure only the button below loads again; scrolling would retry at every frame.
      if (!gallery.failed.value && !gallery.loading.value) void gallery.more();
    },
  });
  const { layout, first, end } = window;

  const row = (each: Row) =>
    each.kind === "day" ? (
      <h2 key={each.createdAt} class="gallery-day" style={{ top: `${each.top}px` }}>
        {dayName(each.createdAt)}
      </h2>
    ) : (
      pictureRow(each)
    );

  const pictureRow = (each: PictureRow) =>
    pictures
      .slice(each.from, each.to)
      .map((picture, column) => (
        <Tile
          key={picture.id}
          picture={picture}
          side={layout.cell}
          left={column * (layout.cell + GAP)}
          top={each.top}
          chosen={chosen ? chosen.has(picture.id) : undefined}
          onPick={onPick}
          onHold={onHold}
        />
      ));

  return (
    <div class="gallery-scroll" ref={element}>
      <div class="gallery-space" style={{ height: `${layout.height}px` }}>
        {layout.rows.slice(first, end).map(row)}
      </div>
      <End />
    </div>
  );
}

function End() {
  const { gallery } = useApp();
  if (gallery.failed.value) {
    return (
      <p class="gallery-end">
        {t("gallery.failed")}{" "}
        <button type="button" class="button" onClick={() => void gallery.more()}>
          {t("common.retry")}
        </button>
      </p>
    );
  }
  if (gallery.complete.value) return null;
  return (
    <p class="gallery-end" role="status">
      {t("common.loading")}
    </p>
  );
}
