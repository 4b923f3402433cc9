/** Sentences about a look inside. */

import { ROUNDING, type Sameness } from "../../lib/inside/sameness";
import type { Look, Trouble } from "../../lib/state/inside";
import { t } from "../../strings";
import { sayProblem } from "../../strings/problems";

/** What is read out when it comes to be so. Troubles are read out where they stand. */
export function statusOf(look: Look): string {
  switch (look.status) {
    case "loading":
      return t("common.loading");
    case "making":
      return t("inside.making");
    case "ready":
      return look.kept.sameness ? samenessText(look.kept.sameness) : t("watch.done");
    default:
      return "";
  }
}

export function samenessText(sameness: Sameness): string {
  if (sameness.kind === "bytes") return t("inside.same.bytes");
  if (sameness.kind === "size") return t("inside.same.size");
  const { most } = sameness;
  if (most === 0) return t("inside.same.pixels");
  return t(most <= ROUNDING ? "inside.same.near" : "inside.same.not", { most });
}

export function troubleText(trouble: Trouble): string {
  switch (trouble.kind) {
    case "offline":
      return t("inside.offline");
    case "gone":
      return t("inside.gone");
    case "cannot":
      return t("inside.cannot");
    case "model-gone":
      return t("inside.modelGone", { model: trouble.model });
    case "problem":
      return sayProblem(trouble.problem);
  }
}
