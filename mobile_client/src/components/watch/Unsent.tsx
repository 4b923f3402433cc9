import type { Entry } from "../../lib/state/outbox";
import { t } from "../../strings";
import { moreOf, sayProblem } from "../../strings/problems";
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
        <p>{sayProblem(entry.refusal)}</p>
        {moreOf(entry.refusal) && <p class="hint">{moreOf(entry.refusal)}</p>}
        <div class="actions">
          {entry.task !== "upscale" && (
            <button type="button" class="button primary wide" onClick={() => state.amend(entry)}>
              {t("watch.amend")}
            </button>
          )}
          <button type="button" class="button wide" onClick={discard}>
            {t("watch.discard")}
          </button>
        </div>
      </div>
    );
  }
  const first = outbox.entries.value.find(({ refusal }) => !refusal);
  const waits = !server.open || entry.delay !== null || first?.key !== entry.key;
  const status = () => {
    if (entry.delay) return sayProblem(entry.delay);
    if (!server.open) return t("watch.waiting");
    return t(first?.key === entry.key ? "watch.sending" : "watch.waiting.turn");
  };
  return (
    <>
      <Frame request={entry.request} />
      <div class="job-status" role="status">
        <progress class="bar" aria-label={t("watch.progress")} />
        <p>{status()}</p>
        {waits && entry.stored !== false && <p class="hint">{t("watch.waiting.safe")}</p>}
      </div>
      <div class="actions within-reach">
        <button type="button" class="button danger wide" onClick={discard}>
          {t("watch.cancel")}
        </button>
      </div>
    </>
  );
}
