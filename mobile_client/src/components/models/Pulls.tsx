import { useState } from "preact/hooks";
import type { Pull } from "../../lib/transport/types";
import { bytes, duration, t } from "../../strings";
import { sayCoded, sayReason } from "../../strings/problems";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** Downloads that run, wait or failed. */
export function Pulls() {
  const { models } = useApp();
  const pulls = models.pulls.value;
  if (pulls.length === 0) return null;
  return (
    <section class="card stack">
      <h2 class="label">{t("models.pulls")}</h2>
      <ul class="stack">
        {pulls.map((pull) => (
          <li key={pull.id} class="pull">
            {pull.status === "failed" ? <Failed pull={pull} /> : <Running pull={pull} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Running({ pull }: { pull: Pull }) {
  const { models, server } = useApp();
  const [sure, setSure] = useState(false);
  const stop = () => models.stop(pull).catch((error: unknown) => server.report(error));
  return (
    <>
      <div class="row spread">
        <strong>{pull.title || pull.name}</strong>
        <button
          type="button"
          class="button icon bare"
          aria-label={t("models.pull.cancel", { name: pull.name })}
          onClick={() => setSure(true)}
        >
          <Icon name="close" />
        </button>
      </div>
      <progress
        class="pull-bar"
        max={pull.total_bytes}
        value={pull.done_bytes}
        aria-label={t("models.pull.label", { name: pull.name })}
      />
      <p class="hint">{standing(pull)}</p>
      {sure && (
        <div class="sure stack" role="alert">
          <p>{t("models.pull.cancel.sure")}</p>
          <div class="row">
            <button type="button" class="button danger" onClick={() => void stop()}>
              {t("models.pull.cancel.go")}
            </button>
            <button type="button" class="button" onClick={() => setSure(false)}>
              {t("models.pull.keep")}
            </button>
          </div>
        </div>
      )}
    </>
  );
}

function standing(pull: Pull): string {
  const { done_bytes: done, total_bytes: total, bytes_per_second: speed } = pull;
  if (pull.status === "queued" && done === 0) return t("models.pull.queued");
  return [
    t("models.pull.progress", { done: bytes(done), total: bytes(total) }),
    speed && t("models.pull.speed", { speed: bytes(speed) }),
    speed && t("models.pull.left", { time: duration((total - done) / speed) }),
  ]
    .filter(Boolean)
    .join(" · ");
}

function Failed({ pull }: { pull: Pull }) {
  const { models, server } = useApp();
  const [problem, setProblem] = useState<string | null>(null);
  const attempt = (act: () => Promise<void>) =>
    act().catch((error: unknown) => {
      server.report(error);
      setProblem(sayReason(error));
    });
  const why = problem ?? (pull.error && sayCoded(pull.error.detail, pull.error));
  return (
    <>
      <p>
        <strong>{pull.title || pull.name}</strong>
        <span class="problem block" role="alert">
          {t("models.pull.failed")}
          {why && `: ${why}`}
        </span>
      </p>
      <div class="row">
        <button
          type="button"
          class="button"
          onClick={() => void attempt(() => models.begin(pull.source, pull.name))}
        >
          {t("common.retry")}
        </button>
        <button type="button" class="button" onClick={() => void attempt(() => models.stop(pull))}>
          {t("models.pull.remove")}
        </button>
      </div>
    </>
  );
}
