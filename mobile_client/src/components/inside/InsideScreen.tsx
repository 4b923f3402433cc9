import { useEffect } from "preact/hooks";
import type { Inside } from "../../lib/state/inside";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useLayer } from "../common/useLayer";
import { useApp } from "../context";
import { Explanation } from "./Explanation";
import { Message } from "./Message";
import { statusOf } from "./said";

interface Props {
  inside: Inside;
  pictureId: string;
  onLeave: () => void;
}

/** How one picture was made: its steps, and where the model looked for its words. */
export function InsideScreen({ inside, pictureId, onLeave }: Props) {
  const { server, catalog } = useApp();
  const layer = useLayer<HTMLElement>();
  const looking = inside.look(pictureId);
  const look = looking.state.value;
  const reach = server.reach.value;
  const models = catalog.models.value;

  // Runs again when the server can be reached again, or its models are known.
  useEffect(() => void looking.open(), [looking, reach, models]);
  useEffect(() => () => inside.leave(pictureId), [inside, pictureId]);
  // The button that was pressed is gone, and the focus with it.
  useEffect(() => {
    if (document.activeElement === document.body) layer.current?.focus({ preventScroll: true });
  }, [look.status]);

  return (
    <section
      class="inside"
      ref={layer}
      tabIndex={-1}
      role="dialog"
      aria-modal="true"
      aria-label={t("inside.title")}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.preventDefault();
        onLeave();
      }}
    >
      <header class="inside-top">
        <button
          type="button"
          class="button bare icon"
          aria-label={t("common.back")}
          onClick={onLeave}
        >
          <Icon name="back" />
        </button>
        <h1>{t("inside.title")}</h1>
      </header>
      <p class="visually-hidden" role="status">
        {statusOf(look)}
      </p>
      {look.status === "ready" ? (
        <Explanation kept={look.kept} />
      ) : (
        <Message looking={looking} look={look} pictureId={pictureId} />
      )}
    </section>
  );
}
