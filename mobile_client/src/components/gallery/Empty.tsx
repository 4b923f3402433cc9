import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** An empty gallery: loading, failed to load, or without pictures. */
export function Empty() {
  const { gallery, route } = useApp();
  if (gallery.failed.value) {
    return (
      <div class="gallery-empty" role="alert">
        <Icon name="wifi" />
        <p>{t("gallery.failed")}</p>
        <button type="button" class="button" onClick={() => void gallery.refresh()}>
          {t("common.retry")}
        </button>
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
