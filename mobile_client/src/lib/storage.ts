/** Storage that outlives the page: small settings; pictures and unsent requests in IndexedDB. */

import { createStore, del, entries, get, set } from "idb-keyval";

/** Values by key, kept by the browser. */
export interface KeyValue {
  get<Value>(key: string): Promise<Value | undefined>;
  /** Resolves when the value is kept: true on the disk, false in the page's memory alone. */
  set(key: string, value: unknown): Promise<boolean>;
  delete(key: string): Promise<void>;
  entries<Value>(): Promise<[string, Value][]>;
}

/** Small JSON values, read and written at once. */
export interface Preferences {
  get<Value>(key: string, otherwise: Value): Value;
  set(key: string, value: unknown): void;
}

export class MemoryKeyValue implements KeyValue {
  private readonly values = new Map<string, unknown>();

  async get<Value>(key: string): Promise<Value | undefined> {
    return this.values.get(key) as Value | undefined;
  }

  async set(key: string, value: unknown): Promise<boolean> {
    this.values.set(key, value);
    return true;
  }

  async delete(key: string): Promise<void> {
    this.values.delete(key);
  }

  async entries<Value>(): Promise<[string, Value][]> {
    return [...this.values] as [string, Value][];
  }
}

export class BrowserKeyValue implements KeyValue {
  private readonly store;
  /** Used where the browser refuses a database, as in some private windows, or has no room. */
  private readonly spare = new MemoryKeyValue();

  constructor(name: string) {
    this.store = createStore(`darkroom-${name}`, "values");
  }

  async get<Value>(key: string): Promise<Value | undefined> {
    const spare = await this.spare.get<Value>(key);
    return spare ?? get<Value>(key, this.store).catch(() => undefined);
  }

  async set(key: string, value: unknown): Promise<boolean> {
    await this.spare.delete(key);
    try {
      await set(key, value, this.store);
      return true;
    } catch {
      // The value before must not come back beside newer ones.
      await del(key, this.store).catch(() => undefined);
      await this.spare.set(key, value);
      return false;
    }
  }

  async delete(key: string): Promise<void> {
    await this.spare.delete(key);
    await del(key, this.store).catch(() => undefined);
  }

  async entries<Value>(): Promise<[string, Value][]> {
    const kept = await entries<string, Value>(this.store).catch(() => []);
    return [...kept, ...(await this.spare.entries<Value>())];
  }
}

export class BrowserPreferences implements Preferences {
  get<Value>(key: string, otherwise: Value): Value {
    try {
      const text = localStorage.getItem(`darkroom.${key}`);
      return text === null ? otherwise : (JSON.parse(text) as Value);
    } catch {
      return otherwise; // refused by the browser, or not ours
    }
  }

  set(key: string, value: unknown): void {
    try {
      localStorage.setItem(`darkroom.${key}`, JSON.stringify(value));
    } catch {
      // Full or refused: the app goes on, and the value is lost on reload.
    }
  }
}

export class MemoryPreferences implements Preferences {
  private readonly values = new Map<string, string>();

  get<Value>(key: string, otherwise: Value): Value {
    const text = this.values.get(key);
    return text === undefined ? otherwise : (JSON.parse(text) as Value);
  }

  set(key: string, value: unknown): void {
    this.values.set(key, JSON.stringify(value));
  }
}

/** 128 random bits in hex. `crypto.randomUUID` is missing on pages served over plain HTTP. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
