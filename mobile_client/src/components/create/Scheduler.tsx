import type { ModelInfo } from "../../lib/transport/types";
import { t } from "../../strings";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

/** Usual names of the noise schedules, the same in every language. */
const SPACINGS: Readonly<Record<string, string>> = {
  karras: "Karras",
  exponential: "Exponential",
  beta: "Beta",
  sgm_uniform: "SGM uniform",
};

/** The scheduler, and the schedule of its noise levels. */
export function Scheduler({ model }: { model: ModelInfo }) {
  const { catalog, draft } = useApp();
  const own = draft.defaults(model).scheduler;
  const name = draft.values.value.scheduler ?? own;
  const known = catalog.schedulers.value;
  // A model that takes a few only says which; they have no other spacings than its own.
  const schedulers = !model.schedulers?.length
    ? known
    : model.schedulers.map((wanted) => ({
        name: wanted,
        title: known.find((entry) => entry.name === wanted)?.title ?? t("create.scheduler.own"),
        variants: [] as string[],
      }));
  const find = (wanted: string) =>
    schedulers.find(({ name: plain, variants }) => plain === wanted || variants.includes(wanted));
  // A scheduler that this server does not have counts as the model's default.
  const chosen = find(name) ?? find(own);
  const problem = useComplaints().scheduler;
  const set = (value: string) => draft.set({ scheduler: value === own ? null : value });
  if (!chosen || schedulers.length < 2) return null;
  return (
    <div class="pair-of-fields">
      <div class="field">
        <label for="scheduler">{t("create.scheduler")}</label>
        <select
          id="scheduler"
          class="input"
          value={chosen.name}
          aria-invalid={problem ? "true" : undefined}
          onChange={(event) => set(event.currentTarget.value)}
        >
          {schedulers.map((entry) => (
            <option key={entry.name} value={entry.name}>
              {entry.title}
            </option>
          ))}
        </select>
        {problem && <p class="problem">{problem}</p>}
      </div>
      <div class="field">
        <label for="spacing">{t("create.spacing")}</label>
        <select
          id="spacing"
          class="input"
          value={name}
          disabled={chosen.variants.length === 0}
          onChange={(event) => set(event.currentTarget.value)}
        >
          <option value={chosen.name}>{t("create.spacing.plain")}</option>
          {chosen.variants.map((variant) => (
            <option key={variant} value={variant}>
              {SPACINGS[variant.slice(chosen.name.length + 1)] ?? variant}
            </option>
          ))}
        </select>
      </div>
    </div>
  );
}
