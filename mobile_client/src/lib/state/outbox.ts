/**
 * Requests on their way to the server. Each is on the phone's disk before it is sent, and leaves
 * it when the server has accepted it; its key makes a second try find the first one's job.
 */

import { type ReadonlySignal, signal } from "@preact/signals";
import { type KeyValue, randomId } from "../storage";
import type { Api } from "../transport/api";
import { Foreign, Problem, Unreachable } from "../transport/http";
import type { FieldError, Job, PictureRequest, RequestFiles, Task } from "../transport/types";

export interface Refusal {
  title: string;
  detail: string;
  errors: readonly FieldError[];
}

export interface Entry {
  key: string;
  task: Task;
  request: PictureRequest;
  files: RequestFiles;
  createdAt: number;
  /** The server will not have it as it is; null while it may still go. */
  refusal: Refusal | null;
  /** What the last try ran into, in the server's words; null where nobody answered. */
  delay: string | null;
}

export interface OutboxEvents {
  onAccepted(key: string, job: Job): void;
  onRefused(entry: Entry): void;
  /** Every failed try, for whoever keeps an eye on the server. */
  onTrouble(error: unknown): void;
}

const RETRY_MS = [2_000, 4_000, 8_000, 15_000, 30_000];

export class Outbox {
  private readonly kept = signal<readonly Entry[]>([]);
  readonly entries: ReadonlySignal<readonly Entry[]> = this.kept;
  /** The key of the one that is being sent. */
  readonly sending = signal<string | null>(null);
  private flushing: Promise<void> | null = null;
  /** Asked for while the flush before was perhaps failing already: once more, then. */
  private again = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private tries = 0;

  constructor(
    private readonly api: Api,
    private readonly disk: KeyValue,
    private readonly events: OutboxEvents,
    private readonly now: () => number = Date.now,
  ) {}

  /** Takes up what the last visit left behind. */
  async restore(): Promise<void> {
    const left = (await this.disk.entries<Entry>()).map(([, entry]) => entry);
    const known = new Set(this.kept.value.map(({ key }) => key));
    this.kept.value = [...left.filter(({ key }) => !known.has(key)), ...this.kept.value].sort(
      (one, other) => one.createdAt - other.createdAt,
    );
  }

  /** Puts a request on the phone's disk, and sends it as soon as may be. Returns its key. */
  async add(task: Task, request: PictureRequest, files: RequestFiles): Promise<string> {
    const key = randomId();
    const entry: Entry = {
      key,
      task,
      request,
      files,
      createdAt: this.now(),
      refusal: null,
      delay: null,
    };
    await this.disk.set(key, entry);
    this.kept.value = [...this.kept.value, entry];
    void this.flush();
    return key;
  }

  find(key: string): Entry | undefined {
    return this.kept.value.find((entry) => entry.key === key);
  }

  async discard(key: string): Promise<void> {
    this.kept.value = this.kept.value.filter((entry) => entry.key !== key);
    await this.disk.delete(key);
  }

  /** Sends what may go, oldest first, until something stands in the way. */
  flush(): Promise<void> {
    clearTimeout(this.timer);
    this.again = this.flushing !== null;
    this.flushing ??= this.sendAll().finally(() => {
      this.flushing = null;
      this.sending.value = null;
    });
    return this.flushing;
  }

  private async sendAll(): Promise<void> {
    for (let next = this.next(); next; next = this.next()) {
      if (await this.send(next)) continue;
      if (!this.again) return;
      this.again = false;
    }
  }

  private next(): Entry | undefined {
    return this.kept.value.find((entry) => entry.refusal === null);
  }

  /** Returns whether the way is free for the next one. */
  private async send(entry: Entry): Promise<boolean> {
    this.sending.value = entry.key;
    try {
      const job = await this.api.submit(entry.task, entry.request, entry.files, entry.key);
      this.tries = 0;
      if (this.find(entry.key)) this.events.onAccepted(entry.key, job);
      else await this.takeBack(job);
      await this.discard(entry.key);
      return true;
    } catch (error) {
      this.events.onTrouble(error);
      if (error instanceof Problem && !error.passing && error.status !== 401) {
        await this.refuse(entry, error);
        return true;
      }
      this.change(entry.key, { delay: error instanceof Problem ? error.detail : null });
      this.retry(error);
      return false;
    }
  }

  /** The user thought better of it while it was on its way. */
  private async takeBack(job: Job): Promise<void> {
    await this.api.cancel(job.id).catch((error: unknown) => this.events.onTrouble(error));
  }

  private async refuse(entry: Entry, { title, detail, errors }: Problem): Promise<void> {
    const refused = { ...entry, refusal: { title, detail, errors } };
    this.change(entry.key, refused);
    await this.disk.set(entry.key, refused);
    this.events.onRefused(refused);
  }

  private change(key: string, change: Partial<Entry>): void {
    this.kept.value = this.kept.value.map((entry) =>
      entry.key === key ? { ...entry, ...change } : entry,
    );
  }

  /** Without a token, trying again is for after the pairing; the server's return flushes then. */
  private retry(error: unknown): void {
    if (error instanceof Problem && error.status === 401) return;
    const told = error instanceof Problem ? error.retryAfter : null;
    const known =
      error instanceof Problem || error instanceof Unreachable || error instanceof Foreign;
    const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)] ?? 30_000;
    this.tries += 1;
    this.timer = setTimeout(() => void this.flush(), told ? told * 1_000 : known ? wait : 30_000);
  }
}
