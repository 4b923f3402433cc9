import { t } from "../../strings";
import { Slider } from "../common/Slider";
import { useApp } from "../context";

const PADDING = 32;

/** Settings of the mask: its edge, and what around it the model sees. */
export function MaskOptions() {
  const { draft } = useApp();
  const { maskBlur, maskPadding, invertMask } = draft.values.value;
  const crops = draft.takes("padding_mask_crop");
  const source = draft.source.value;
  const shorter = source ? Math.min(source.width, source.height) : 512;
  const maxBlur = Math.min(64, Math.max(8, Math.round(shorter / 8)));
  return (
    <>
      <Slider
        label={t("create.mask.blur")}
        value={maskBlur}
        min={0}
        max={maxBlur}
        step={1}
        text={maskBlur ? t("create.mask.blur.value", { value: maskBlur }) : t("common.off")}
        onChange={(value) => draft.set({ maskBlur: value })}
      />
      {crops && (
        <label class="toggle">
          <span>
            {t("create.mask.only")}
            <span class="hint block">{t("create.mask.only.hint")}</span>
          </span>
          <input
            type="checkbox"
            checked={maskPadding !== null}
            onChange={(event) =>
              draft.set({
                maskPadding: event.currentTarget.checked ? Math.min(PADDING, shorter >> 2) : null,
              })
            }
          />
        </label>
      )}
      {crops && maskPadding !== null && (
        <Slider
          label={t("create.mask.context")}
          value={maskPadding}
          min={0}
          max={Math.max(16, shorter >> 1)}
          step={4}
          text={t("create.mask.blur.value", { value: maskPadding })}
          onChange={(value) => draft.set({ maskPadding: value })}
        />
      )}
      <label class="toggle">
        {t("create.mask.invert")}
        <input
          type="checkbox"
          checked={invertMask}
          onChange={(event) => draft.set({ invertMask: event.currentTarget.checked })}
        />
      </label>
    </>
  );
}
