import { STRENGTH } from "../../lib/state/draft";
import { t } from "../../strings";
import { Slider } from "../common/Slider";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

/** How much of the start picture may change, in words and per cent. */
export function Strength() {
  const { draft } = useApp();
  const problem = useComplaints().strength;
  const task = draft.task.value === "inpaint" ? "inpaint" : "img2img";
  const strength = draft.values.value.strength ?? STRENGTH[task];
  const level = strength <= 0.3 ? 1 : strength <= 0.55 ? 2 : strength < 1 ? 3 : 4;
  return (
    <Slider
      label={t("create.strength")}
      value={strength}
      min={0.05}
      max={1}
      step={0.05}
      text={t(`create.strength.${level}`, { percent: Math.round(strength * 100) })}
      problem={problem}
      onChange={(value) => draft.set({ strength: value })}
    />
  );
}
