import { STRENGTH } from "../../lib/state/draft";
import { number, t } from "../../strings";
import { Slider } from "../common/Slider";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

/** How much of the picture may change, with what that comes to in plain words. */
export function Strength() {
  const { draft } = useApp();
  const problem = useComplaints().strength;
  const task = draft.task.value === "inpaint" ? "inpaint" : "img2img";
  const strength = draft.values.value.strength ?? STRENGTH[task];
  const meaning = strength <= 0.3 ? 1 : strength <= 0.55 ? 2 : strength <= 0.85 ? 3 : 4;
  return (
    <Slider
      label={t("create.strength")}
      value={strength}
      min={0.05}
      max={1}
      step={0.05}
      text={`${t(`create.strength.${meaning}`)} · ${number(strength)}`}
      problem={problem}
      onChange={(value) => draft.set({ strength: value })}
    />
  );
}
