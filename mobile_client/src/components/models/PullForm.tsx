import { useState } from "preact/hooks";
import type { PullPlan } from "../../lib/transport/types";
import { bytes, t } from "../../strings";
import { sayReason } from "../../strings/problems";
import { useApp } from "../context";

/** Names a model on a hub, tells how large it is and whether it fits, and begins the download. */
export function PullForm() {
  const { models, server } = useApp();
  const [source, setSource] = useState("");
  const [plan, setPlan] = useState<PullPlan | null>(null);
  const [busy, setBusy] = useState<"look" | "begin" | null>(null);
  const [problem, setProblem] = useState<string | null>(null);

  async function attempt(what: "look" | "begin", act: () => Promise<void>) {
    setProblem(null);
    setBusy(what);
    try {
      await act();
    } catch (error) {
      server.report(error);
      setProblem(sayReason(error));
    } finally {
      setBusy(null);
    }
  }

  const look = () => attempt("look", async () => setPlan(await models.plan(source)));

  const begin = () =>
    attempt("begin", async () => {
      await models.begin(source);
      setSource("");
      setPlan(null);
    });

  return (
    <section class="card stack">
      <h2 class="label">{t("models.add")}</h2>
      <form
        class="field"
        onSubmit={(event) => {
          event.preventDefault();
          void look();
        }}
      >
        <label for="source">{t("models.source")}</label>
        <input
          id="source"
          class="input"
          inputmode="url"
          autocapitalize="off"
          autocomplete="off"
          spellcheck={false}
          maxLength={500}
          placeholder={t("models.source.placeholder")}
          aria-describedby="source-hint"
          aria-invalid={problem ? "true" : undefined}
          value={source}
          onInput={(event) => {
            setSource(event.currentTarget.value);
            setPlan(null);
            setProblem(null);
          }}
        />
        <p class="hint" id="source-hint">
          {t("models.source.hint")}
        </p>
        <button type="submit" class="button" disabled={!source.trim() || busy !== null}>
          {t("models.look")}
        </button>
        <p class="hint" role="status">
          {busy === "look" && t("models.looking")}
        </p>
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
      </form>
      {plan && <Plan plan={plan} />}
      {plan && (
        <div class="row">
          <button
            type="button"
            class="button primary"
            disabled={!plan.fits_on_disk || busy !== null}
            onClick={() => void begin()}
          >
            {t(busy === "begin" ? "models.starting" : "models.download")}
          </button>
          <button type="button" class="button" onClick={() => setPlan(null)}>
            {t("common.cancel")}
          </button>
        </div>
      )}
    </section>
  );
}

/** What a download would be. */
function Plan({ plan }: { plan: PullPlan }) {
  const size = bytes(plan.total_bytes);
  const free = bytes(plan.free_bytes);
  return (
    <div class="stack" role="status">
      <p>
        <strong>{plan.title}</strong>
        <span class="hint block">
          {[`${plan.kind}/${plan.name}`, plan.family].filter(Boolean).join(" · ")}
        </span>
      </p>
      <dl class="model-facts">
        <div>
          <dt>{t("models.plan.size")}</dt>
          <dd>
            {plan.done_bytes > 0
              ? t("models.plan.goes", { size, done: bytes(plan.done_bytes) })
              : size}
          </dd>
        </div>
        <div>
          <dt>{t("models.plan.disk")}</dt>
          <dd class={plan.fits_on_disk ? "" : "problem"}>
            {plan.fits_on_disk ? free : t("models.plan.full", { size: free })}
          </dd>
        </div>
        {plan.kind === "models" && (
          <div>
            <dt>{t("models.plan.memory")}</dt>
            <dd>{inMemory(plan)}</dd>
          </div>
        )}
      </dl>
      {plan.lacks && <p class="problem">{t("models.plan.lacks", { reason: plan.lacks })}</p>}
    </div>
  );
}

function inMemory({ memory_bytes: needed, fits }: PullPlan): string {
  if (needed === null) return t("models.plan.unknown");
  const size = bytes(needed);
  if (fits === null) return size;
  return t(fits ? "models.plan.fits" : "models.plan.slow", { size });
}
