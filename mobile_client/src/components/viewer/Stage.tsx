import type { Size } from "../../lib/transport/types";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useReload } from "../common/useReload";
import { useApp } from "../context";
import { useViewing } from "./useViewing";

interface StageProps {
  id: string;
  size: Size | undefined;
  prompt: string;
  newer: string | undefined;
  older: string | undefined;
  onOpen: (id: string) => void;
  onLeave: () => void;
  onTap: () => void;
  /** Set here, for keys that are pressed elsewhere in the viewer. */
  zoom: { current: ((factor: number) => void) | undefined };
}

/** The picture and its neighbours side by side, moved by fingers, wheel and keys. */
export function Stage(props: StageProps) {
  const { id, size, prompt, newer, older, onOpen, onLeave, onTap, zoom } = props;
  const { stage, strip, picture, viewing } = useViewing(id, size, {
    newer: newer === undefined ? undefined : () => onOpen(newer),
    older: older === undefined ? undefined : () => onOpen(older),
    leave: onLeave,
    tap: onTap,
  });
  zoom.current = (factor) => viewing.zoom(factor);

  return (
    <>
      <div
        class="viewer-stage"
        ref={stage}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: arrows turn pages here
        tabIndex={0}
        role="application"
        aria-label={t("viewer.picture")}
      >
        <div class="viewer-strip" ref={strip}>
          {newer && <Slide key={newer} id={newer} prompt="" place={-1} />}
          <Slide
            key={id}
            id={id}
            prompt={prompt || t("gallery.untitled")}
            place={0}
            inner={picture}
          />
          {older && <Slide key={older} id={older} prompt="" place={1} />}
        </div>
      </div>
      <Arrow side="left" to={newer} onOpen={onOpen} />
      <Arrow side="right" to={older} onOpen={onOpen} />
    </>
  );
}

interface SlideProps {
  id: string;
  prompt: string;
  place: -1 | 0 | 1;
  inner?: { current: HTMLDivElement | null };
}

function Slide({ id, prompt, place, inner }: SlideProps) {
  const { api } = useApp();
  const reload = useReload();
  return (
    <div class="viewer-slide" style={{ left: `${place * 100}%` }} aria-hidden={place !== 0}>
      <div class="viewer-zoom" ref={inner ?? null}>
        <img
          key={reload.tries}
          src={api.imageUrl(id)}
          alt={prompt}
          decoding="async"
          draggable={false}
          onError={reload.onError}
        />
      </div>
    </div>
  );
}

/** Shows the next or previous picture, for people without a touch screen. */
function Arrow(props: {
  side: "left" | "right";
  to: string | undefined;
  onOpen: (id: string) => void;
}) {
  const { side, to, onOpen } = props;
  if (!to) return null;
  return (
    <button
      type="button"
      class={`button icon viewer-arrow ${side}`}
      aria-label={t(side === "left" ? "viewer.newer" : "viewer.older")}
      onClick={() => onOpen(to)}
    >
      <Icon name={side === "left" ? "back" : "next"} />
    </button>
  );
}
