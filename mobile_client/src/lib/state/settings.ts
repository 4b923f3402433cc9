/** Settings of this device: language, notifications, its name, other servers. */

import { type ReadonlySignal, signal } from "@preact/signals";
import { type Language, preferredLanguage, useLanguage } from "../../strings";
import type { Preferences } from "../storage";

/** The notifications of a browser, replaceable in tests. */
export interface Notifier {
  /** Whether this browser can notify from this page. It needs HTTPS or localhost. */
  readonly supported: boolean;
  /** Asks the user if needed. Returns whether notifications are allowed. */
  allow(): Promise<boolean>;
  show(title: string, body: string, icon: string, url: string): Promise<void>;
}

export class Settings {
  private readonly wanted = signal(false);
  readonly notifications: ReadonlySignal<boolean> = this.wanted;
  private readonly list = signal<readonly string[]>([]);
  /** Origins of other servers; each serves its own copy of this app. */
  readonly servers: ReadonlySignal<readonly string[]> = this.list;

  constructor(
    private readonly preferences: Preferences,
    readonly notifier: Notifier,
  ) {
    this.wanted.value = notifier.supported && preferences.get("notifications", false);
    this.list.value = preferences.get<string[]>("servers", []);
  }

  async applyLanguage(): Promise<void> {
    await useLanguage(this.preferences.get<Language>("language", preferredLanguage()));
  }

  async setLanguage(language: Language): Promise<void> {
    this.preferences.set("language", language);
    await useLanguage(language);
  }

  /** Returns whether notifications are on now; the browser may have refused. */
  async setNotifications(on: boolean): Promise<boolean> {
    this.wanted.value = on && (await this.notifier.allow());
    this.preferences.set("notifications", this.wanted.value);
    return this.wanted.value;
  }

  get deviceName(): string {
    return this.preferences.get("device", "");
  }

  set deviceName(name: string) {
    this.preferences.set("device", name);
  }

  /** Returns the origin that was added, or null if `address` is not an address. */
  addServer(address: string): string | null {
    const origin = originOf(address);
    if (origin) this.keep([...new Set([...this.list.value, origin])]);
    return origin;
  }

  forgetServer(origin: string): void {
    this.keep(this.list.value.filter((other) => other !== origin));
  }

  private keep(list: readonly string[]): void {
    this.list.value = list;
    this.preferences.set("servers", list);
  }
}

const DEFAULT_PORT = "7860";

/** The origin for a typed address such as "gpu-box.local" or "192.168.1.5:7860". */
export function originOf(address: string): string | null {
  const text = address.trim();
  const full = /^https?:\/\//i.test(text) ? text : `http://${text}`;
  if (!text || !URL.canParse(full)) return null;
  const url = new URL(full);
  if (full === `http://${text}` && url.port === "") url.port = DEFAULT_PORT;
  // Browsers escape what no host name may hold, and go on.
  return /^([\w.-]+|\[[\da-f:]+\])$/i.test(url.hostname) ? url.origin : null;
}
