import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

interface BarProps {
  chosen: ReadonlySet<string> | undefined;
  onSelect: () => void;
  onSelectAll: () => void;
  onLeave: () => void;
}

export function Bar({ chosen, onSelect, onSelectAll, onLeave }: BarProps) {
  const { gallery } = useApp();
  const isEmpty = gallery.pictures.value.length === 0;
  if (chosen) {
    const total = gallery.pictures.value.length;
    const complete = gallery.complete.value;
    const all = complete && chosen.size === total && total > 0;
    return (
      <header class="gallery-bar">
        <button
          type="button"
          class="button bare icon"
          aria-label={t("gallery.selectDone")}
          onClick={onLeave}
        >
          <Icon name="close" />
        </button>
        <h1 aria-live="polite">
          {/* More pictures may be on the server than were loaded so far. */}
          {complete && chosen.size > 0
            ? t("gallery.selectedOf", { count: chosen.size, total })
            : t("gallery.selected", { count: chosen.size })}
        </h1>
        <button
          type="button"
          class="button bare"
          aria-busy={gallery.loading.value}
          disabled={gallery.loading.value}
          onClick={onSelectAll}
        >
          {t(all ? "gallery.selectNone" : "gallery.selectAll")}
        </button>
      </header>
    );
  }
  return (
    <header class="gallery-bar">
      <h1>{t("tab.gallery")}</h1>
      <OwnerFilter />
      <button
        type="button"
        class="button bare icon"
        aria-label={t("gallery.refresh")}
        aria-busy={gallery.loading.value}
        onClick={() => void gallery.refresh()}
      >
        <Icon name="refresh" />
      </button>
      <button type="button" class="button bare" disabled={isEmpty} onClick={onSelect}>
        {t("gallery.select")}
      </button>
    </header>
  );
}

/** Owners switch between their own pictures and everyone's, or leave those of one device. */
function OwnerFilter() {
  const { gallery } = useApp();
  const whose = gallery.whose.value;
  if (gallery.ownId === null) return null;
  return (
    <button
      type="button"
      class="chip owner"
      aria-pressed={whose !== null}
      onClick={() => void gallery.show(whose === null ? "everyone" : null)}
    >
      {whose === null || whose === "everyone" ? t("gallery.everyone") : whose.name}
    </button>
  );
}

export function SelectionBar({ count, onDelete }: { count: number; onDelete: () => void }) {
  return (
    <footer class="gallery-selection">
      <button type="button" class="button danger" disabled={count === 0} onClick={onDelete}>
        <Icon name="trash" />
        {t("common.delete")}
      </button>
    </footer>
  );
}
