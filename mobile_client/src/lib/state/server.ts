/** Whether the server can be reached, and whether it knows this device. */

import { type ReadonlySignal, signal } from "@preact/signals";
import type { Preferences } from "../storage";
import type { Api } from "../transport/api";
import { Foreign, Problem, Unreachable } from "../transport/http";
import type { Invitation, Me } from "../transport/types";

export type Reach =
  | "checking"
  | "ok"
  /** The server accepts jobs, but is still loading its model. */
  | "starting"
  | "unreachable"
  /** The answer is not from a Darkroom server. */
  | "foreign"
  /** This device has no token yet. */
  | "unpaired"
  /** The token of this device was revoked. */
  | "revoked";

const RETRY_MS = [1_000, 2_000, 3_000, 5_000];
const STARTING_MS = 2_000;

export class Server {
  private readonly status = signal<Reach>("checking");
  readonly reach: ReadonlySignal<Reach> = this.status;
  readonly me = signal<Me | null>(null);
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running: Promise<void> | null = null;
  /** Counts answers to other requests. A check that began before one of them may fail too late. */
  private answers = 0;

  constructor(
    private readonly api: Api,
    private readonly preferences: Preferences,
    /** Called whenever the server can be reached (again), to send and to refresh. */
    private readonly onBack: () => void = () => {},
  ) {
    this.me.value = preferences.get<Me | null>("me", null);
  }

  /** Whether requests are worth sending. */
  get open(): boolean {
    return this.status.value === "ok" || this.status.value === "starting";
  }

  /** Checks now, and again by itself while there is no answer. */
  check(): Promise<void> {
    clearTimeout(this.timer);
    this.running ??= this.ask().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  /** Updates the state from the error of any other request. */
  report(error: unknown): void {
    const found = reachOf(error, this.me.value !== null);
    if (found) this.settle(found);
  }

  /** The server answered another request. */
  heard(): void {
    this.answers += 1;
    if (this.status.value !== "unreachable" && this.status.value !== "foreign") return;
    this.settle("ok");
    void this.check(); // it may be loading its model
  }

  /** Throws the server's Problem if the code is not valid. */
  async pair(code: string, name: string): Promise<void> {
    this.remember(await this.api.pair(code.trim(), name.trim()));
    await this.check();
  }

  /** A code for a new device, or for one that is known. For owners. */
  invite(device?: string): Promise<Invitation> {
    return this.api.invite(device);
  }

  private async ask(): Promise<void> {
    const before = this.answers;
    try {
      this.remember(await this.api.me());
      this.settle((await this.api.ready()) ? "ok" : "starting");
    } catch (error) {
      const found = reachOf(error, this.me.value !== null) ?? "unreachable";
      const stale = found === "unreachable" && this.answers !== before;
      if (!stale) this.settle(found);
      else if (!this.open) this.settle("ok");
    }
  }

  private remember({ client, client_id, device, name, scope }: Me): void {
    this.me.value = { client, client_id, device, name, scope };
    this.preferences.set("me", this.me.value);
  }

  private settle(found: Reach): void {
    const wasOpen = this.open;
    this.status.value = found;
    if (this.open && !wasOpen) this.onBack();
    clearTimeout(this.timer);
    if (found === "starting") {
      this.tries = 0;
      this.timer = setTimeout(() => void this.check(), STARTING_MS);
    } else if (found === "unreachable" || found === "foreign") {
      const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)];
      this.tries += 1;
      this.timer = setTimeout(() => void this.check(), wait);
    } else {
      this.tries = 0;
    }
  }
}

function reachOf(error: unknown, known: boolean): Reach | null {
  if (error instanceof Unreachable) return "unreachable";
  if (error instanceof Foreign) return "foreign";
  if (error instanceof Problem && error.status === 401) return known ? "revoked" : "unpaired";
  // A proxy in front of a server that is down. Darkroom's own errors have a type.
  if (error instanceof Problem && error.status >= 502 && error.type === "about:blank") {
    return "unreachable";
  }
  return null;
}
