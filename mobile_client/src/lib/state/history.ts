/** Recent prompts, newest first, and presets. */

import { type ReadonlySignal, signal } from "@preact/signals";
import type { Preferences } from "../storage";
import type { Values } from "./draft";

export interface Words {
  prompt: string;
  negativePrompt: string;
}

const KEPT = 60;

export class PromptHistory {
  private readonly list = signal<readonly Words[]>([]);
  readonly entries: ReadonlySignal<readonly Words[]> = this.list;

  constructor(private readonly preferences: Preferences) {
    this.list.value = preferences.get<Words[]>("history", []);
  }

  add({ prompt, negativePrompt }: Words): void {
    const words = { prompt: prompt.trim(), negativePrompt: negativePrompt.trim() };
    if (!words.prompt) return;
    const others = this.list.value.filter((entry) => entry.prompt !== words.prompt);
    this.keep([words, ...others].slice(0, KEPT));
  }

  remove(prompt: string): void {
    this.keep(this.list.value.filter((entry) => entry.prompt !== prompt));
  }

  clear(): void {
    this.keep([]);
  }

  private keep(list: readonly Words[]): void {
    this.list.value = list;
    this.preferences.set("history", list);
  }
}

/** The settings of a draft without prompt and pictures. */
export type Recipe = Pick<
  Values,
  "model" | "ratio" | "steps" | "guidance" | "scheduler" | "loras" | "negativePrompt"
>;

export interface Preset {
  name: string;
  recipe: Recipe;
}

export class Presets {
  private readonly list = signal<readonly Preset[]>([]);
  readonly entries: ReadonlySignal<readonly Preset[]> = this.list;

  constructor(private readonly preferences: Preferences) {
    this.list.value = preferences.get<Preset[]>("presets", []);
  }

  save(name: string, from: Values): void {
    const { model, ratio, steps, guidance, scheduler, loras, negativePrompt } = from;
    const recipe = { model, ratio, steps, guidance, scheduler, loras, negativePrompt };
    this.put({ name, recipe });
  }

  /** Saves a preset; replaces one of the same name. */
  put(preset: Preset): void {
    this.keep([...this.list.value.filter(({ name }) => name !== preset.name), preset]);
  }

  remove(name: string): void {
    this.keep(this.list.value.filter((preset) => preset.name !== name));
  }

  private keep(list: readonly Preset[]): void {
    this.list.value = list;
    this.preferences.set("presets", list);
  }
}
