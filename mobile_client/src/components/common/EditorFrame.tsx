import type { ComponentChildren } from "preact";
import { t } from "../../strings";
import { Icon } from "./Icon";
import { useLayer } from "./useLayer";

interface Props {
  /** Prefix of its styles. */
  kind: "photo" | "mask";
  title: string;
  /** A button at the end of the top bar. */
  tool?: ComponentChildren;
  /** Keys besides Escape. */
  onKeyDown?: (event: KeyboardEvent) => void;
  onCancel: () => void;
  children: ComponentChildren;
}

/** Covers the screen with an editor; its top bar has Cancel and the title. */
export function EditorFrame({ kind, title, tool, onKeyDown, onCancel, children }: Props) {
  const layer = useLayer<HTMLElement>();
  return (
    <section
      class={kind}
      ref={layer}
      tabIndex={-1}
      aria-label={title}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return onKeyDown?.(event);
        event.preventDefault();
        onCancel();
      }}
    >
      <header class={`${kind}-top`}>
        <button
          type="button"
          class="button bare icon"
          onClick={onCancel}
          aria-label={t("common.cancel")}
        >
          <Icon name="close" />
        </button>
        <h1>{title}</h1>
        {tool}
      </header>
      {children}
    </section>
  );
}
