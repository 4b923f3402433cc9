import type { Entry } from "../../lib/state/outbox";
import { t } from "../../strings";
import { useApp } from "../context";
import { Frame } from "./Developing";

/** A request that was not sent yet, or that the server refused. */
export function Unsent({ entry }: { entry: Entry }) {
  const state = useApp();
  const { outbox, route, server } = state;
  const discard = () => {
    void outbox.discard(entry.key);
    route.replace({ screen: "create" });
  };
  if (entry.refusal) {
    return (
      <div class="card stack" role="alert">
        <h2 class="problem-title">{t("watch.refused")}</h2>
        <p>{entry.refusal.detail || entry.refusal.title}</p>
        <div class="actions">
          <button type="button" class="button primary wide" onClick={() => state.amend(entry)}>
            {t("watch.amend")}
          </button>
          <button type="button" class="button wide" onClick={discard}>
            {t("watch.discard")}
          </button>
        </div>
      </div>
    );
  }
  const waits = !server.open || entry.delay !== null;
  return (
    <>
      <Frame request={entry.request} />
      <div class="job-status" role="status">
        <progress class="bar" aria-label={t("watch.progress")} />
        <p>{waits ? (entry.delay ?? t("watch.waiting")) : t("watch.sending")}</p>
        {waits && <p class="hint">{t("watch.waiting.safe")}</p>}
      </div>
      <div class="actions within-reach">
        <button type="button" class="button danger wide" onClick={discard}>
          {t("watch.cancel")}
        </button>
      </div>
    </>
  );
}
