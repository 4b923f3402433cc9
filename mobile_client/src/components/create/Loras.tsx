import type { Lora, ModelInfo } from "../../lib/transport/types";
import { number, t } from "../../strings";
import { Slider } from "../common/Slider";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

/** The LoRAs that fit the model, each with a switch and a strength; chosen ones in any case. */
export function Loras({ model }: { model: ModelInfo }) {
  const { catalog, draft } = useApp();
  const fitting = catalog.lorasFor(model);
  const chosen = draft.values.value.loras;
  const problem = useComplaints().loras;
  const others = chosen.filter(({ name }) => fitting.every((lora) => lora.name !== name));
  const listed = [
    ...fitting,
    ...others.map(({ name }) => ({ name, title: "", trigger_words: [] as readonly string[] })),
  ];
  if (listed.length === 0) return null;
  const set = (name: string, scale: number | null) => {
    const others: Lora[] = chosen.filter((lora) => lora.name !== name);
    const before = chosen.find((lora) => lora.name === name);
    draft.set({ loras: scale === null ? others : [...others, { ...before, name, scale }] });
  };
  return (
    <fieldset class="field">
      <legend class="label">{t("create.loras")}</legend>
      {listed.map(({ name, title, trigger_words: words }) => {
        const scale = chosen.find((lora) => lora.name === name)?.scale ?? null;
        return (
          <div key={name}>
            <label class="toggle">
              <span>
                {title || name}
                {words.length > 0 && <span class="hint block">{words.join(", ")}</span>}
              </span>
              <input
                type="checkbox"
                checked={scale !== null}
                onChange={(event) => set(name, event.currentTarget.checked ? 1 : null)}
              />
            </label>
            {scale !== null && (
              <Slider
                label={t("create.loras.scale", { name: title || name })}
                value={scale}
                min={Math.min(-1, scale)}
                max={Math.max(2, scale)}
                step={0.05}
                text={number(scale)}
                onChange={(value) => set(name, value)}
              />
            )}
          </div>
        );
      })}
      {problem && <p class="problem">{problem}</p>}
    </fieldset>
  );
}
