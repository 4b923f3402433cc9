/** The devices that were let in. For owners. */

import { type ReadonlySignal, signal } from "@preact/signals";
import type { Api } from "../transport/api";
import type { Device } from "../transport/types";

export class Devices {
  private readonly known = signal<readonly Device[]>([]);
  /** Oldest first; empty until `load` has ended. */
  readonly list: ReadonlySignal<readonly Device[]> = this.known;

  constructor(private readonly api: Api) {}

  async load(): Promise<void> {
    this.known.value = await this.api.devices();
  }

  /** Throws a 409 Problem if another device has the name. */
  async rename(id: string, name: string): Promise<void> {
    const renamed = await this.api.rename(id, name.trim());
    this.known.value = this.known.value.map((each) => (each.id === id ? renamed : each));
  }

  /** Takes a device's access away. What it made stays. */
  async revoke(id: string): Promise<void> {
    await this.api.revoke(id);
    await this.load();
  }
}
