import { ratiosFor } from "../../lib/state/sizes";
import type { Size } from "../../lib/transport/types";
import { t } from "../../strings";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

function isSame(one: Size, other: Size | null | undefined): boolean {
  return one.width === other?.width && one.height === other.height;
}

/** Aspect ratios, each with the size that the model makes for it. */
export function Shape() {
  const { draft } = useApp();
  const model = draft.model.value;
  const exact = draft.values.value.size;
  const size = draft.size.value;
  const problem = useComplaints().size;
  if (!model) return null;
  return (
    <fieldset class="field">
      <legend class="shape-legend">
        <span class="label">{t("create.shape")}</span>
        {size && <span class="slider-value">{t("create.shape.exact", { ...size })}</span>}
      </legend>
      <div class="shapes">
        {ratiosFor(model).map((choice) => (
          <label key={choice.ratio} class="chip shape">
            <input
              type="radio"
              name="shape"
              class="visually-hidden"
              checked={!exact && isSame(choice.size, size)}
              aria-label={t("create.shape.choice", { ratio: choice.ratio, ...choice.size })}
              onChange={() => draft.set({ ratio: choice.ratio })}
            />
            <span
              class={choice.size.height > choice.size.width ? "shape-glyph upright" : "shape-glyph"}
              style={{ aspectRatio: `${choice.size.width} / ${choice.size.height}` }}
            />
            {choice.ratio}
          </label>
        ))}
      </div>
      {problem && <p class="problem">{problem}</p>}
    </fieldset>
  );
}
