/** Every word the user reads, in the language chosen. */

import { computed, signal } from "@preact/signals";
import type { Coded } from "../lib/transport/types";
import { en } from "./en";

export type Key = keyof typeof en;
export type Dictionary = Readonly<Record<Key, string>>;
export type Language = "en" | "vi";

export const LANGUAGES: Readonly<Record<Language, string>> = { en: "English", vi: "Tiếng Việt" };

const dictionary = signal<Dictionary>(en);
const chosen = signal<Language>("en");
/** Sentences of the server by their code. English ones need none. */
const server = signal<Readonly<Record<string, string>>>({});

export const language = computed(() => chosen.value);

/** The language of the browser, where it is one of ours. */
export function preferredLanguage(wanted: readonly string[] = navigator.languages): Language {
  const known = wanted.map((tag) => tag.slice(0, 2)).find((tag) => tag in LANGUAGES);
  return (known as Language | undefined) ?? "en";
}

export async function useLanguage(next: Language): Promise<void> {
  // Only those who read it load it.
  const vi = next === "vi" ? await import("./vi") : null;
  dictionary.value = vi?.vi ?? en;
  server.value = vi?.server ?? {};
  chosen.value = next;
}

/** A sentence of the server in the chosen language; null if there is no translation. */
export function translated(code: string, values: Coded["values"] = {}): string | null {
  const template = server.value[code];
  if (template === undefined) return null;
  const said = Object.entries(values).map(([name, value]) => [
    name,
    typeof value === "number" ? number(value, 3) : value,
  ]);
  return filled(template, Object.fromEntries(said));
}

/**
 * A string with its `{names}` filled in. Where it has a form for one and a form for more,
 * `one|more`, `count` chooses.
 */
export function t(key: Key, values: Readonly<Record<string, string | number>> = {}): string {
  const forms = dictionary.value[key].split("|");
  const form = forms.length > 1 && values.count !== 1 ? forms[1] : forms[0];
  return filled(form ?? "", values);
}

function filled(form: string, values: Readonly<Record<string, string | number>>): string {
  return form.replace(/\{(\w+)\}/g, (all, name: string) => String(values[name] ?? all));
}

/** What a request is called: by its prompt, or by how much larger it makes a picture. */
export function titleOf(request: Readonly<Record<string, unknown>>): string {
  const { prompt, scale } = request;
  if (prompt === undefined && typeof scale === "number") {
    return t("upscale.name", { scale: number(scale) });
  }
  return String(prompt ?? "");
}

/** A number as people of the chosen language write it. */
export function number(value: number, digits = 2): string {
  return new Intl.NumberFormat(chosen.value, { maximumFractionDigits: digits }).format(value);
}

/** A date and time as people of the chosen language write it. */
export function moment(time: string): string {
  const options = { dateStyle: "medium", timeStyle: "short" } as const;
  return new Intl.DateTimeFormat(region(), options).format(new Date(time));
}

/** The chosen language as this browser's region writes it, where it is the browser's own. */
export function region(): string {
  return navigator.languages?.find((tag) => tag.split("-")[0] === chosen.value) ?? chosen.value;
}

/** A stretch of time in words: "8 s", "3 min". */
export function duration(seconds: number): string {
  if (seconds < 60) return t("time.seconds", { value: Math.max(1, Math.round(seconds)) });
  if (seconds < 3600) return t("time.minutes", { value: Math.round(seconds / 60) });
  return t("time.hours", { value: number(seconds / 3600, 1) });
}

const UNITS = ["kB", "MB", "GB", "TB"] as const;

/** A number of bytes in words: "6.9 GB". */
export function bytes(value: number): string {
  let size = value / 1000;
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${number(size, size < 10 ? 1 : 0)} ${UNITS[unit]}`;
}
