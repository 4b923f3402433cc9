import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useLayer } from "../common/useLayer";

/** Covers the screen until an editor can open; it can always be left. */
export function WaitingScreen(props: { title: string; text: string; onCancel: () => void }) {
  const { title, text, onCancel } = props;
  const layer = useLayer<HTMLElement>();
  return (
    <section
      class="photo"
      ref={layer}
      tabIndex={-1}
      aria-label={title}
      onKeyDown={(event) => event.key === "Escape" && onCancel()}
    >
      <header class="photo-top">
        <button
          type="button"
          class="button bare icon"
          onClick={onCancel}
          aria-label={t("common.cancel")}
        >
          <Icon name="close" />
        </button>
        <h1>{title}</h1>
      </header>
      <p class="photo-message" role="status">
        {text}
      </p>
    </section>
  );
}
