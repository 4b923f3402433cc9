/**
 * Requests that the server has not accepted yet. Each is stored on the phone before it is sent and
 * removed when it is accepted. Its key makes a second try return the job of the first.
 */

import { type ReadonlySignal, signal } from "@preact/signals";
import { type KeyValue, randomId } from "../storage";
import type { Api } from "../transport/api";
import { Foreign, Problem, Unreachable } from "../transport/http";
import type { Job, PictureRequest, RequestFiles, Task } from "../transport/types";
import type { Start } from "./draft";

/** A problem of the server, as it is kept with the request. */
export type Refusal = Pick<Problem, "status" | "type" | "title" | "detail" | "errors">;

export interface Entry {
  key: string;
  task: Task;
  request: PictureRequest;
  files: RequestFiles;
  createdAt: number;
  /** The draft that it was made of, to go on from there. */
  start?: Start;
  /** Whether it is on the phone's disk, or in the page's memory alone. */
  stored?: boolean;
  /** Why the server refused it; null while it may still be sent. */
  refusal: Refusal | null;
  /** The server's answer to the last try; null if it did not answer. */
  delay: Refusal | null;
}

export interface OutboxEvents {
  onAccepted(key: string, job: Job): void;
  onRefused(entry: Entry): void;
  /** Called with the error of every failed try. */
  onTrouble(error: unknown): void;
}

const RETRY_MS = [2_000, 4_000, 8_000, 15_000, 30_000];

export class Outbox {
  private readonly kept = signal<readonly Entry[]>([]);
  readonly entries: ReadonlySignal<readonly Entry[]> = this.kept;
  /** The key of the request that is being sent. */
  readonly sending = signal<string | null>(null);
  private flushing: Promise<void> | null = null;
  /** Set when a flush is requested during one that may be failing already: it runs once more. */
  private again = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private tries = 0;

  constructor(
    private readonly api: Api,
    private readonly disk: KeyValue,
    private readonly events: OutboxEvents,
    private readonly now: () => number = Date.now,
  ) {}

  /** Reads stored requests. */
  async restore(): Promise<void> {
    const left = (await this.disk.entries<Entry>()).map(([, entry]) => entry);
    const known = new Set(this.kept.value.map(({ key }) => key));
    this.kept.value = [...left.filter(({ key }) => !known.has(key)), ...this.kept.value].sort(
      (one, other) => one.createdAt - other.createdAt,
    );
  }

  /** Stores a request and sends it as soon as possible. Returns its key. */
  async add(
    task: Task,
    request: PictureRequest,
    files: RequestFiles,
    start?: Start,
  ): Promise<string> {
    const key = randomId();
    const entry: Entry = {
      key,
      task,
      request,
      files,
      createdAt: this.now(),
      ...(start && { start }),
      refusal: null,
      delay: null,
    };
    const stored = await this.disk.set(key, entry);
    this.kept.value = [...this.kept.value, { ...entry, stored }];
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

  /** Sends requests, oldest first, until one cannot be sent now. */
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

  /** Returns whether the next one can be sent. */
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
      this.change(entry.key, { delay: error instanceof Problem ? kept(error) : null });
      this.retry(error);
      return false;
    }
  }

  /** Cancels a request that the user discarded while it was being sent. */
  private async takeBack(job: Job): Promise<void> {
    await this.api.cancel(job.id).catch((error: unknown) => this.events.onTrouble(error));
  }

  private async refuse(entry: Entry, problem: Problem): Promise<void> {
    if (!this.find(entry.key)) return; // discarded while it was being sent
    const refused = { ...entry, refusal: kept(problem) };
    this.change(entry.key, refused);
    await this.disk.set(entry.key, refused);
    if (!this.find(entry.key)) return this.disk.delete(entry.key);
    this.events.onRefused(refused);
  }

  private change(key: string, change: Partial<Entry>): void {
    this.kept.value = this.kept.value.map((entry) =>
      entry.key === key ? { ...entry, ...change } : entry,
    );
  }

  /** Without a token nothing is retried; pairing flushes the outbox. */
  private retry(error: unknown): void {
    if (error instanceof Problem && error.status === 401) return;
    const retryAfter = error instanceof Problem ? error.retryAfter : null;
    const known =
      error instanceof Problem || error instanceof Unreachable || error instanceof Foreign;
    const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)] ?? 30_000;
    this.tries += 1;
    this.timer = setTimeout(
      () => void this.flush(),
      retryAfter ? retryAfter * 1_000 : known ? wait : 30_000,
    );
  }
}

function kept({ status, type, title, detail, errors }: Problem): Refusal {
  return { status, type, title, detail, errors };
}
