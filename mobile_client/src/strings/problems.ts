/** The server's problems and notes in the user's language. */

import { Problem } from "../lib/transport/http";
import type { Coded, FieldError, Job } from "../lib/transport/types";
import { en } from "./en";
import { type Key, t, translated } from "./index";

export interface Said extends Coded {
  status?: number | undefined;
  type?: string | undefined;
  title: string;
  detail: string;
  errors?: readonly FieldError[] | undefined;
}

/** A sentence for a problem. It is never empty, whatever answered. */
export function sayProblem(problem: Said): string {
  const key = `problem.${problem.type?.split(":").at(-1)}`;
  if (key in en) return t(key as Key);
  // A proxy, or a server that could not even say what happened.
  if (!problem.detail) return t("problem.other", { status: problem.status ?? 500 });
  return problem.detail;
}

/** Why something was not done, with what to do where the server says that. */
export function sayReason(error: unknown): string {
  if (!(error instanceof Problem)) return t("error.offline");
  return translated(error.code ?? "", error.values) ?? sayProblem(error);
}

/** What the server says in English, or that in the user's language if the app has it. */
export function sayCoded(text: string, { code, values }: Coded): string {
  return translated(code ?? "", values) ?? text;
}

/** A model's note; that of the demo model in the user's language. */
export function sayModelNote(note: string): string {
  return note === en["create.demo"] ? t("create.demo") : note;
}

export function sayNotes(job: Job): string[] {
  // An older server's jobs have the texts alone.
  const notes: readonly ({ text: string } & Coded)[] =
    job.coded_notes ?? job.notes.map((text) => ({ text }));
  return notes.map((note) => sayCoded(note.text, note));
}

/** What the server says besides; null where the sentence says it all. */
export function moreOf(problem: Said): string | null {
  const isExplained = sayProblem(problem) !== problem.detail;
  const tellsMore = /:(validation|request|model|engine|source)$/.test(problem.type ?? "");
  if (!isExplained || !tellsMore) return null;
  const { errors = [] } = problem;
  const fields = errors.map((each) => sayCoded(each.detail, each)).join("; ");
  return fields || sayCoded(problem.detail, problem);
}
