/** The server's problems in the user's language, by their type. */

import { en } from "./en";
import { type Key, t } from "./index";

export interface Said {
  status?: number | undefined;
  type?: string | undefined;
  title: string;
  detail: string;
}

/** A sentence for a problem. It is never empty, whatever answered. */
export function sayProblem(problem: Said): string {
  const key = `problem.${problem.type?.split(":").at(-1)}`;
  if (key in en) return t(key as Key);
  // A proxy, or a server that could not even say what happened.
  if (!problem.detail) return t("problem.other", { status: problem.status ?? 500 });
  return problem.detail;
}

/** What the server says besides, in its own words; null where the sentence says it all. */
export function moreOf(problem: Said): string | null {
  const isExplained = sayProblem(problem) !== problem.detail;
  const tellsMore = /:(validation|request|model|engine|source)$/.test(problem.type ?? "");
  return isExplained && tellsMore ? problem.detail : null;
}
