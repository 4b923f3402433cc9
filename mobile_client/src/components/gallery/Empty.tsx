import type { KeptEntry } from "../../lib/inside/store";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** An empty gallery: loading, failed to load, or without pictures. */
export function Empty() {
  const { gallery, route, explanations } = useApp();
  if (gallery.failed.value) {
    return (
      <div class="gallery-empty" role="alert">
        <Icon name="wifi" />
        <p>{t("gallery.failed")}</p>
        <button type="button" class="button" onClick={() => void gallery.refresh()}>
          {t("common.retry")}
        </button>
        <KeptExplanations entries={explanations.entries.value} />
      </div>
    );
  }
  if (gallery.loading.value || !gallery.complete.value) {
    return (
      <p class="gallery-empty" role="status">
        {t("common.loading")}
      </p>
    );
  }
  return (
    <div class="gallery-empty">
      <Icon name="gallery" />
      <h2>{t("gallery.empty")}</h2>
      <p>{t("gallery.emptyHint")}</p>
      <button type="button" class="button primary" onClick={() => route.go({ screen: "create" })}>
        {t("gallery.emptyAction")}
      </button>
    </div>
  );
}

/** What can be looked into without the server. */
function KeptExplanations({ entries }: { entries: readonly KeptEntry[] }) {
  const { route } = useApp();
  if (entries.length === 0) return null;
  return (
    <div class="inside-list">
      <h2 class="label">{t("inside.kept")}</h2>
      {entries.map(({ pictureId, prompt }) => (
        <button
          key={pictureId}
          type="button"
          class="button"
          onClick={() => route.go({ screen: "inside", id: pictureId })}
        >
          <Icon name="eye" />
          {prompt || t("gallery.untitled")}
        </button>
      ))}
    </div>
  );
}
