import { useRef } from "preact/hooks";
import type { GalleryPicture } from "../../lib/state/gallery";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useReload } from "../common/useReload";
import { useApp } from "../context";

interface TileProps {
  picture: GalleryPicture;
  /** CSS pixels. */
  side: number;
  left: number;
  top: number;
  /** Whether it is selected; undefined while not selecting. */
  chosen: boolean | undefined;
  onPick: (id: string, event: MouseEvent) => void;
  onHold: (id: string) => void;
}

/** Few widths, so that the server's and the browser's caches hit. */
const WIDTHS = [192, 320, 512];
const HOLD_MS = 450;
const HOLD_SLOP_PX = 10;

export function Tile({ picture, side, left, top, chosen, onPick, onHold }: TileProps) {
  const { api } = useApp();
  const reload = useReload();
  const hold = useRef({ timer: 0, x: 0, y: 0, held: false });
  const wanted = side * Math.min(3, window.devicePixelRatio || 1);
  const width = WIDTHS.find((each) => each >= wanted) ?? 512;

  function press(event: PointerEvent) {
    const now = hold.current;
    clearTimeout(now.timer);
    const timer = window.setTimeout(() => {
      now.held = true;
      onHold(picture.id);
    }, HOLD_MS);
    hold.current = Object.assign(now, { timer, x: event.clientX, y: event.clientY, held: false });
  }

  function move(event: PointerEvent) {
    const { x, y, timer } = hold.current;
    if (Math.hypot(event.clientX - x, event.clientY - y) > HOLD_SLOP_PX) clearTimeout(timer);
  }

  function lift() {
    clearTimeout(hold.current.timer);
  }

  function click(event: MouseEvent) {
    // Ignores the click that ends a long press.
    if (!hold.current.held) onPick(picture.id, event);
    hold.current.held = false;
  }

  return (
    <button
      type="button"
      class="tile"
      style={{ left: `${left}px`, top: `${top}px`, width: `${side}px`, height: `${side}px` }}
      aria-pressed={chosen}
      aria-label={picture.prompt || t("gallery.untitled")}
      onPointerDown={press}
      onPointerMove={move}
      onPointerUp={lift}
      onPointerCancel={lift}
      onContextMenu={(event) => event.preventDefault()}
      onClick={click}
    >
      <img
        key={reload.tries}
        src={api.imageUrl(picture.id, width)}
        alt=""
        decoding="async"
        draggable={false}
        hidden={reload.failed}
        onError={reload.onError}
      />
      {chosen !== undefined && <span class="tile-mark">{chosen && <Icon name="check" />}</span>}
    </button>
  );
}
