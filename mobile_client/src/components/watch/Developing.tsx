import { useEffect, useState } from "preact/hooks";
import type { Watched } from "../../lib/state/jobs";
import { t } from "../../strings";
import { useApp } from "../context";
import { etaText, statusText } from "./status";

export function Developing({ watched }: { watched: Watched }) {
  const { jobs, server, toasts } = useApp();
  const { job, preview, eta, live, restarted } = watched;
  const [cancelling, setCancelling] = useState(false);
  const now = useNow();
  const { step, steps } = job.progress;
  const prompt = String(job.request.prompt ?? "");
  const cancel = () => {
    setCancelling(true);
    jobs.cancel(job.id).catch(() => {
      setCancelling(false);
      toasts.show({ text: t("error.offline") });
    });
  };
  return (
    <>
      <Frame request={job.request}>
        {preview && <img class="preview" src={preview} alt={t("watch.preview", { prompt })} />}
      </Frame>
      <div class="job-status" aria-live="polite">
        <progress class="bar" value={step} max={steps || 1} aria-label={t("watch.progress")} />
        <p class="row spread">
          <span>{statusText(job)}</span>
          <span class="hint">{etaText(eta, now, server.open)}</span>
        </p>
        {restarted && <p class="hint">{t("watch.restarted")}</p>}
        {!live && job.status === "running" && step > 0 && (
          <p class="hint">{t("watch.reconnecting")}</p>
        )}
      </div>
      <Notes notes={job.notes} />
      <div class="actions within-reach">
        <button type="button" class="button danger wide" disabled={cancelling} onClick={cancel}>
          {t(cancelling ? "watch.cancelling" : "watch.cancel")}
        </button>
      </div>
    </>
  );
}

/** An empty frame in the picture's aspect ratio, so that nothing moves when the picture comes. */
export function Frame(props: {
  request: Readonly<Record<string, unknown>>;
  children?: preact.ComponentChildren;
}) {
  const width = Number(props.request.width) || 1;
  const height = Number(props.request.height) || 1;
  return (
    <div class="frame waiting" style={{ "--ratio": width / height }}>
      {props.children}
    </div>
  );
}

export function Notes({ notes }: { notes: readonly string[] }) {
  if (notes.length === 0) return null;
  return (
    <section class="notes">
      <h2 class="label">{t("watch.notes")}</h2>
      <ul>
        {notes.map((note) => (
          <li key={note}>{note}</li>
        ))}
      </ul>
    </section>
  );
}

/** The current time in milliseconds, updated once a second. */
function useNow(): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
