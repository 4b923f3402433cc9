import { t } from "../../strings";
import { sayModelNote } from "../../strings/problems";
import { useApp } from "../context";

const MORE = "darkroom models pull stabilityai/stable-diffusion-xl-base-1.0";

/** What to know about the model before using it, and prompts to try while there is none. */
export function ModelNote() {
  const { catalog, draft } = useApp();
  const model = draft.model.value;
  if (!model) return null;
  const alone = catalog.models.value.length === 1;
  return (
    <>
      {model.examples.length > 0 && !draft.values.value.prompt && (
        <fieldset class="examples">
          <legend class="visually-hidden">{t("create.examples")}</legend>
          {model.examples.map((prompt) => (
            <button key={prompt} type="button" class="chip" onClick={() => draft.set({ prompt })}>
              {prompt}
            </button>
          ))}
        </fieldset>
      )}
      {draft.modelChanged.value && (
        <p class="hint" role="status">
          {t("create.modelchanged", { model: model.title || model.name })}
        </p>
      )}
      {model.note && (
        <p class="hint">
          {sayModelNote(model.note)}
          {alone && (
            <>
              {" "}
              {t("create.addmodel")} <code>{MORE}</code>
            </>
          )}
        </p>
      )}
    </>
  );
}
