import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Watched } from "../../lib/state/jobs";
import type { Job } from "../../lib/transport/types";
import { t, titleOf } from "../../strings";
import { sayNotes } from "../../strings/problems";
import { useApp } from "../context";
import { sourceOf } from "../picture";
import { etaText, picturesOf, statusText } from "./status";

export function Developing({ watched }: { watched: Watched }) {
  const { jobs, server, toasts } = useApp();
  const { job, previews, eta, live, restarted } = watched;
  const [cancelling, setCancelling] = useState(false);
  const now = useNow();
  const { step, steps } = job.progress;
  const count = picturesOf(job);
  const prompt = titleOf(job.request);
  const cancel = () => {
    setCancelling(true);
    jobs.cancel(job.id).catch(() => {
      setCancelling(false);
      toasts.show({ text: t("error.offline") });
    });
  };
  return (
    <>
      {count > 1 ? (
        <Frames count={count} job={job} previews={previews} />
      ) : (
        <Frame request={job.request}>
          {previews[0] && (
            <img class="preview" src={previews[0]} alt={t("watch.preview", { prompt })} />
          )}
        </Frame>
      )}
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
      <Notes job={job} />
      <div class="actions within-reach">
        <button type="button" class="button danger wide" disabled={cancelling} onClick={cancel}>
          {t(cancelling ? "watch.cancelling" : "watch.cancel")}
        </button>
      </div>
    </>
  );
}

/** A frame for each of a job's pictures. */
function Frames(props: { count: number; job: Job; previews: Watched["previews"] }) {
  const { count, job, previews } = props;
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  const prompt = titleOf(job.request);
  return (
    <div
      class="frames"
      style={{ "--columns": columns, "--rows": rows, "--ratio": ratioOf(job.request) }}
    >
      {Array.from({ length: count }, (_, index) => (
        <Frame key={index} request={job.request}>
          {previews[index] && (
            <img
              class="preview"
              src={previews[index]}
              alt={t("watch.picture", { count: index + 1, total: count, prompt })}
            />
          )}
        </Frame>
      ))}
    </div>
  );
}

/**
 * A frame in the picture's aspect ratio, so that nothing moves when the picture comes. It is empty,
 * or shows the picture that is made larger.
 */
export function Frame(props: {
  request: Readonly<Record<string, unknown>>;
  children?: ComponentChildren;
}) {
  const { request, children } = props;
  const { api } = useApp();
  const [ratio, setRatio] = useState(ratioOf(request));
  const smaller = "scale" in request ? sourceOf({ request }) : undefined;
  return (
    <div class="frame waiting" style={{ "--ratio": ratio }}>
      {smaller && (
        <img
          src={api.imageUrl(smaller)}
          alt={t("upscale.before")}
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) =>
            setRatio(naturalWidth / naturalHeight)
          }
        />
      )}
      {children}
    </div>
  );
}

function ratioOf(request: Readonly<Record<string, unknown>>): number {
  return (Number(request.width) || 1) / (Number(request.height) || 1);
}

export function Notes({ job }: { job: Job }) {
  const notes = sayNotes(job);
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
