/** Explanations that this device keeps, so that they can be opened without the server. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { KeyValue, Preferences } from "../storage";
import type { Explained, Size } from "../transport/types";
import type { Sameness } from "./sameness";

export interface Kept {
  readonly pictureId: string;
  readonly prompt: string;
  readonly size: Size;
  readonly explained: Explained;
  /** The picture that is explained. */
  readonly picture: Blob;
  /** How like the first picture one is that was made again; null of one that was not. */
  readonly sameness: Sameness | null;
}

/** What is known of each without reading it. */
export interface KeptEntry {
  readonly pictureId: string;
  readonly prompt: string;
  readonly bytes: number;
}

/** As many of the newest ones are kept as fit. */
export const MOST_BYTES = 48_000_000;
const KEY = "explained";

export class ExplanationStore {
  private readonly list: Signal<readonly KeptEntry[]>;

  constructor(
    private readonly preferences: Preferences,
    private readonly disk: KeyValue,
  ) {
    this.list = signal(preferences.get<readonly KeptEntry[]>(KEY, []));
  }

  /** Newest first. */
  get entries(): ReadonlySignal<readonly KeptEntry[]> {
    return this.list;
  }

  has(pictureId: string): boolean {
    return this.list.value.some((entry) => entry.pictureId === pictureId);
  }

  async find(pictureId: string): Promise<Kept | undefined> {
    if (!this.has(pictureId)) return undefined;
    const kept = await this.disk.get<Kept>(pictureId);
    if (!kept) await this.forget([pictureId]); // the browser has cleared it
    return kept;
  }

  async keep(kept: Kept): Promise<void> {
    const { pictureId, prompt } = kept;
    const bytes = kept.picture.size + JSON.stringify(kept.explained).length;
    await this.disk.set(pictureId, kept);
    const others = this.list.value.filter((entry) => entry.pictureId !== pictureId);
    this.write([{ pictureId, prompt, bytes }, ...others]);
    let sum = 0;
    const old = this.list.value.filter((entry, at) => {
      sum += entry.bytes;
      return at > 0 && sum > MOST_BYTES;
    });
    await this.forget(old.map((entry) => entry.pictureId));
  }

  async forget(pictureIds: readonly string[]): Promise<void> {
    const known = pictureIds.filter((id) => this.has(id));
    if (known.length === 0) return;
    this.write(this.list.value.filter(({ pictureId }) => !known.includes(pictureId)));
    await Promise.all(known.map((id) => this.disk.delete(id)));
  }

  private write(entries: readonly KeptEntry[]): void {
    this.list.value = entries;
    this.preferences.set(KEY, entries);
  }
}
