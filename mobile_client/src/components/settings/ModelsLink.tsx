import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** The way to the models on the server. */
export function ModelsLink() {
  const { route, server } = useApp();
  const isOwner = server.me.value?.scope === "own";
  return (
    <section class="card">
      <button type="button" class="device" onClick={() => route.go({ screen: "models" })}>
        <span class="grow">
          {t("models.open")}
          <span class="hint block">{t(isOwner ? "models.open.owner" : "models.open.guest")}</span>
        </span>
        <Icon name="next" />
      </button>
    </section>
  );
}
