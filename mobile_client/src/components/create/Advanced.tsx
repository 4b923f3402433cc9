import { useEffect, useRef } from "preact/hooks";
import type { Field } from "../../lib/state/draft";
import { NUMBERS, type NumberSetting } from "../../lib/state/numbers";
import type { ModelInfo } from "../../lib/transport/types";
import { number, t } from "../../strings";
import { Icon } from "../common/Icon";
import { Slider } from "../common/Slider";
import { useApp } from "../context";
import { useComplaints } from "./complaints";
import { Loras } from "./Loras";
import { Presets } from "./Presets";
import { Scheduler } from "./Scheduler";
import { Seed } from "./Seed";

const MOST_STEPS = 150;

/** Fields of this panel. It opens when one of them has an error. */
const WITHIN: readonly Field[] = [
  ...(["model", "steps", "guidance", "scheduler", "seed", "loras"] as const),
  ...NUMBERS.map(({ name }) => name),
];

/** Settings with defaults, collapsed: model, steps, guidance, scheduler, seed, LoRAs. */
export function Advanced() {
  const { draft } = useApp();
  const model = draft.model.value;
  const complaints = useComplaints();
  const wrong = WITHIN.some((field) => complaints[field]);
  const panel = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    if (!wrong || !panel.current) return;
    panel.current.open = true;
    panel.current.querySelector("[aria-invalid=true]")?.scrollIntoView({ block: "center" });
  }, [wrong]);
  if (!model) return null;
  return (
    <details class="settings card" ref={panel}>
      <summary>
        <span>{t("create.advanced")}</span>
        <Summary model={model} />
        <Icon name="down" />
      </summary>
      <div class="settings-body stack">
        <Presets />
        <Model chosen={model} />
        <Quality model={model} />
        <Steps model={model} />
        {draft.takes("guidance_scale") && <Guidance model={model} />}
        {NUMBERS.filter(({ name }) => draft.takes(name)).map((setting) => (
          <NumberSlider key={setting.name} setting={setting} />
        ))}
        <Scheduler model={model} />
        <Seed />
        {draft.takes("loras") && <Loras model={model} />}
        {draft.takes("clip_skip") && model.limits.max_clip_skip > 0 && <ClipSkip model={model} />}
        <button type="button" class="button bare" onClick={() => draft.resetSettings()}>
          {t("create.advanced.reset")}
        </button>
      </div>
    </details>
  );
}

/** The settings that differ from the model's defaults, shown while the panel is closed. */
function Summary({ model }: { model: ModelInfo }) {
  const { catalog, draft } = useApp();
  const { steps, guidance, scheduler, seed, loras } = draft.values.value;
  const parts = [
    catalog.models.value.length > 1 && model.name,
    steps !== null && `${steps} ${t("create.steps").toLowerCase()}`,
    draft.takes("guidance_scale") &&
      guidance !== null &&
      `${t("create.guidance").toLowerCase()} ${number(guidance)}`,
    scheduler,
    seed !== null && `${t("create.seed").toLowerCase()} ${seed}`,
    ...(draft.takes("loras") ? loras.map(({ name }) => name) : []),
  ].filter(Boolean);
  return <span class="hint settings-summary">{parts.join(" · ")}</span>;
}

function Model({ chosen }: { chosen: ModelInfo }) {
  const { catalog, draft } = useApp();
  const task = draft.task.value;
  const problem = useComplaints().model;
  const missing = draft.missing.value;
  // The chosen model is always listed, even if it cannot do the task.
  const able = catalog.models.value.filter(
    (model) => model === chosen || model.tasks.includes(task),
  );
  return (
    <div class="field">
      <label for="model">{t("create.model")}</label>
      <select
        id="model"
        class="input"
        value={missing ?? chosen.name}
        aria-invalid={problem ? "true" : undefined}
        onChange={(event) => draft.setModel(event.currentTarget.value)}
      >
        {missing && <option value={missing}>{missing}</option>}
        {able.map(({ name }) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
      <ModelPictures models={able} chosen={chosen} />
      <p class={problem ? "problem" : "hint"}>{problem ?? chosen.description}</p>
    </div>
  );
}

/** Pictures of what the models draw, to choose by; nothing where no model has one. */
function ModelPictures({ models, chosen }: { models: readonly ModelInfo[]; chosen: ModelInfo }) {
  const { draft } = useApp();
  const pictured = models.filter((model) => model.thumbnail_url);
  if (pictured.length === 0) return null;
  return (
    <fieldset class="model-pictures">
      <legend class="visually-hidden">{t("create.model.pictures")}</legend>
      {pictured.map(({ name, title, thumbnail_url: url }) => (
        <button
          key={name}
          type="button"
          class="model-picture"
          aria-pressed={name === chosen.name}
          onClick={() => draft.setModel(name)}
        >
          <img src={url ?? ""} alt="" loading="lazy" decoding="async" />
          <span>{title || name}</span>
        </button>
      ))}
    </fieldset>
  );
}

function Quality({ model }: { model: ModelInfo }) {
  const { draft } = useApp();
  const own = draft.defaults(model).num_inference_steps;
  const steps = draft.values.value.steps ?? own;
  const choices = [
    { label: t("create.quality.quick"), steps: Math.max(1, Math.round(own / 2)) },
    { label: t("create.quality.normal"), steps: own },
    { label: t("create.quality.fine"), steps: Math.min(MOST_STEPS, own * 2) },
  ];
  return (
    <fieldset class="field">
      <legend class="label">{t("create.quality")}</legend>
      <div class="segments">
        {choices.map((choice) => (
          <label key={choice.label} class="chip">
            <input
              type="radio"
              name="quality"
              class="visually-hidden"
              checked={steps === choice.steps}
              onChange={() => draft.set({ steps: choice.steps === own ? null : choice.steps })}
            />
            {choice.label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Steps({ model }: { model: ModelInfo }) {
  const { draft } = useApp();
  const own = draft.defaults(model).num_inference_steps;
  const steps = draft.values.value.steps ?? own;
  return (
    <Slider
      label={t("create.steps")}
      value={steps}
      min={1}
      max={Math.min(MOST_STEPS, Math.max(50, own * 3, steps))}
      step={1}
      text={String(steps)}
      problem={useComplaints().steps}
      onChange={(value) => draft.set({ steps: value === own ? null : value })}
    />
  );
}

function Guidance({ model }: { model: ModelInfo }) {
  const { draft } = useApp();
  const own = draft.defaults(model).guidance_scale;
  const guidance = draft.values.value.guidance ?? own;
  return (
    <Slider
      label={t("create.guidance")}
      value={guidance}
      min={1}
      max={Math.min(30, Math.max(15, own, guidance))}
      step={0.5}
      text={guidance <= 1 ? t("create.guidance.off") : number(guidance)}
      problem={useComplaints().guidance}
      onChange={(value) => draft.set({ guidance: value === own ? null : value })}
    />
  );
}

function NumberSlider({ setting: { name, min, max, step, usual } }: { setting: NumberSetting }) {
  const { draft } = useApp();
  const { numbers } = draft.values.value;
  const value = numbers[name] ?? usual;
  return (
    <Slider
      label={t(`create.${name}`)}
      value={value}
      min={min}
      max={max}
      step={step}
      text={value ? number(value) : t("common.off")}
      problem={useComplaints()[name]}
      onChange={(chosen) => draft.set({ numbers: { ...numbers, [name]: chosen } })}
    />
  );
}

function ClipSkip({ model }: { model: ModelInfo }) {
  const { draft } = useApp();
  const { clipSkip } = draft.values.value;
  return (
    <Slider
      label={t("create.clipskip")}
      value={clipSkip}
      min={0}
      max={model.limits.max_clip_skip}
      step={1}
      text={clipSkip ? String(clipSkip) : t("common.off")}
      onChange={(value) => draft.set({ clipSkip: value })}
    />
  );
}
