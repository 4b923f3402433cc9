import { formatRoute } from "../../lib/state/route";
import { t, titleOf } from "../../strings";
import { useApp } from "../context";
import { statusText } from "../watch/status";

/** Jobs in progress, and requests that wait to be sent. */
export function Tray() {
  const { jobs, outbox } = useApp();
  const waiting = outbox.entries.value;
  const active = jobs.active.value;
  if (waiting.length + active.length === 0) return null;
  return (
    <section aria-label={t("create.active")}>
      <ul class="tray">
        {active.map((id) => (
          <Active key={id} id={id} />
        ))}
        {waiting.map(({ key, request, refusal }) => (
          <li key={key}>
            <a class="tray-card" href={formatRoute({ screen: "job", id: key })}>
              <span class="tray-prompt">{titleOf(request)}</span>
              <span class={refusal ? "problem" : "hint"}>
                {t(refusal ? "watch.refused" : "outbox.waiting")}
              </span>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Active({ id }: { id: string }) {
  const watched = useApp().jobs.get(id);
  const { step, steps } = watched?.job.progress ?? { step: 0, steps: 0 };
  return (
    <li>
      <a class="tray-card" href={formatRoute({ screen: "job", id })}>
        <span class="tray-prompt">{titleOf(watched?.job.request ?? {})}</span>
        <span class="hint">{watched ? statusText(watched.job) : t("common.loading")}</span>
        <progress class="bar" value={step} max={steps || 1} aria-label={t("watch.progress")} />
      </a>
    </li>
  );
}
