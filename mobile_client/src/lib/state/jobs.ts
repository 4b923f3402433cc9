/**
 * Jobs that this device follows until they end. On every return (page opened again, screen unlocked,
 * network back) each job is fetched from the server and followed from there.
 */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Preferences } from "../storage";
import type { Api } from "../transport/api";
import type { JobEvent, Watching } from "../transport/events";
import { Problem } from "../transport/http";
import { type Coded, isOver, type Job } from "../transport/types";

export interface Watched {
  job: Job;
  /** The latest preview of each picture as a data URI, by the picture's index. */
  previews: Readonly<Record<number, string>>;
  /** Seconds to the end, as estimated at `at` (milliseconds of the clock). */
  eta: { seconds: number; at: number } | null;
  /** Whether an event stream is open. */
  live: boolean;
  /** Whether it was interrupted, and its steps are made again. */
  restarted: boolean;
}

export interface JobsEvents {
  onOver(job: Job): void;
  onTrouble(error: unknown): void;
  /** A stream broke; the server may be unreachable. */
  onDoubt(): void;
}

/** Fetches jobs without an event for so long, in case a stream broke unnoticed. */
const QUIET_MS = 8_000;
const REOPEN_MS = 2_000;
const KEY = "jobs";

/** The job with one more note, unless it has it. */
function noted(job: Job, { note, code, values }: Coded & { note: string }): Job {
  if (job.notes.includes(note)) return job;
  const coded = { text: note, code: code ?? null, values: { ...values } };
  return {
    ...job,
    notes: [...job.notes, note],
    coded_notes: [...(job.coded_notes ?? []), coded],
  };
}

export class Jobs {
  private readonly known = new Map<string, Signal<Watched>>();
  private readonly ids = signal<readonly string[]>([]);
  /** Jobs that have not ended, oldest first. */
  readonly active: ReadonlySignal<readonly string[]> = this.ids;
  /** Jobs that the server does not know (any more). */
  readonly missing = signal<ReadonlySet<string>>(new Set());
  private readonly focused = signal<string | null>(null);
  private stream: { id: string; watching: Watching } | null = null;
  private common: Watching | null = null;
  /** The last event of the focused job, to resume from. */
  private lastEventId: number | null = null;
  private readonly heardAt = new Map<string, number>();
  /** The newest `started` event of each job. */
  private readonly starts = new Map<string, number>();
  private timer: ReturnType<typeof setInterval> | undefined;
  private reopening: ReturnType<typeof setTimeout> | undefined;

  readonly count = computed(() => this.ids.value.length);

  constructor(
    private readonly api: Api,
    private readonly preferences: Preferences,
    private readonly events: JobsEvents,
    private readonly now: () => number = Date.now,
  ) {
    this.ids.value = preferences.get<string[]>(KEY, []);
  }

  /** A job as last known; null until the server answered. */
  get(id: string): Watched | null {
    return this.slot(id)?.value ?? null;
  }

  /** Starts to follow a job. */
  track(job: Job): void {
    this.put(job);
    if (!isOver(job.status)) this.keep([...this.ids.value.filter((id) => id !== job.id), job.id]);
    this.connect();
  }

  /** Sets the job on screen, whose previews are received too. Null for none. */
  async focus(id: string | null): Promise<void> {
    if (this.focused.value === id) return;
    this.focused.value = id;
    this.lastEventId = null;
    this.connect();
    if (id === null) return;
    await this.refresh(id);
    this.connect();
  }

  /** Fetches all jobs and opens the streams again. */
  async resume(): Promise<void> {
    this.close();
    const wanted = new Set(this.ids.value);
    if (this.focused.value) wanted.add(this.focused.value);
    await Promise.all([...wanted].map((id) => this.refresh(id)));
    this.connect();
  }

  /** Closes the streams, as before the page is frozen. */
  close(): void {
    clearTimeout(this.reopening);
    clearInterval(this.timer);
    this.timer = undefined;
    this.stream?.watching.close();
    this.stream = null;
    this.common?.close();
    this.common = null;
  }

  async cancel(id: string): Promise<void> {
    try {
      this.learn(await this.api.cancel(id));
    } catch (error) {
      this.events.onTrouble(error);
      throw error;
    }
  }

  private async refresh(id: string): Promise<void> {
    try {
      this.learn(await this.api.job(id));
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        this.missing.value = new Set([...this.missing.value, id]);
        this.keep(this.ids.value.filter((other) => other !== id));
      } else {
        this.events.onTrouble(error);
      }
    }
  }

  /** Stores a job as the server returned it. */
  private learn(job: Job): void {
    const before = this.slot(job.id)?.value.job.status;
    const followed = this.ids.value.includes(job.id);
    this.put(job);
    if (!isOver(job.status)) {
      if (!followed && this.focused.value === job.id) this.keep([...this.ids.value, job.id]);
      return;
    }
    this.keep(this.ids.value.filter((id) => id !== job.id));
    if (followed && (before === undefined || !isOver(before))) this.events.onOver(job);
  }

  private put(job: Job): void {
    const eta = job.eta_seconds === null ? null : { seconds: job.eta_seconds, at: this.now() };
    this.heardAt.set(job.id, this.now());
    const slot = this.slot(job.id);
    if (slot) {
      const restarted = slot.value.restarted || job.attempts > 1;
      slot.value = { ...slot.value, job, eta, restarted };
    } else {
      const restarted = job.attempts > 1;
      this.known.set(job.id, signal({ job, previews: {}, eta, live: false, restarted }));
    }
    this.bump.value += 1;
  }

  /** Notifies readers of `get` that an unknown job is known now. */
  private readonly bump = signal(0);

  private slot(id: string): Signal<Watched> | undefined {
    const slot = this.known.get(id);
    if (!slot) void this.bump.value;
    return slot;
  }

  private keep(ids: readonly string[]): void {
    if (ids.length === this.ids.value.length && ids.every((id, at) => id === this.ids.value[at])) {
      return;
    }
    this.ids.value = ids;
    this.preferences.set(KEY, ids);
  }

  /** Two connections at most (a browser has six for a server): the job on screen, and the rest. */
  private connect(): void {
    const focused = this.focused.value;
    const follows = focused !== null && this.known.has(focused) && this.ids.value.includes(focused);
    const mine = follows ? focused : null;
    if (this.stream && this.stream.id !== mine) {
      this.stream.watching.close();
      this.stream = null;
    }
    if (mine !== null && !this.stream) this.follow(mine);
    const others = this.ids.value.some((id) => id !== mine);
    if (others && !this.common) this.followAll();
    if (!others && this.common) {
      this.common.close();
      this.common = null;
    }
    if (this.ids.value.length === 0) {
      clearInterval(this.timer);
      this.timer = undefined;
    } else {
      this.timer ??= setInterval(() => this.askQuiet(), QUIET_MS);
    }
  }

  private follow(id: string): void {
    const watching = this.api.watchJob(
      id,
      {
        onOpen: () => this.change(id, { live: true }),
        onInterrupted: () => {
          this.change(id, { live: false });
          this.events.onDoubt();
        },
        onEvent: (event) => {
          if (event.id !== null) this.lastEventId = event.id;
          this.hear(event);
        },
        onEnd: () => void this.ended(id),
      },
      this.lastEventId,
    );
    this.stream = { id, watching };
  }

  private followAll(): void {
    this.common = this.api.watchAll({
      // Events before the stream was open were missed, so the job is fetched.
      onOpen: () => {
        for (const id of this.ids.value) if (id !== this.stream?.id) void this.refresh(id);
      },
      onEvent: (event) => {
        if (event.job_id !== this.stream?.id && this.known.has(event.job_id)) this.hear(event);
      },
      onInterrupted: () => this.events.onDoubt(),
      onEnd: () => {
        this.common = null;
        this.reopen();
      },
    });
  }

  /** A job's stream has ended: the job ended, or the server stopped. */
  private async ended(id: string): Promise<void> {
    if (this.stream?.id === id) this.stream = null;
    this.change(id, { live: false });
    await this.refresh(id);
    this.reopen();
  }

  private reopen(): void {
    clearTimeout(this.reopening);
    this.reopening = setTimeout(() => this.connect(), REOPEN_MS);
  }

  private askQuiet(): void {
    for (const id of this.ids.value) {
      if (this.now() - (this.heardAt.get(id) ?? 0) >= QUIET_MS)
        void this.refresh(id).then(() => this.connect());
    }
  }

  private hear(event: JobEvent): void {
    const id = event.job_id;
    const watched = this.known.get(id)?.value;
    if (!watched || isOver(watched.job.status)) return;
    this.heardAt.set(id, this.now());
    const { job } = watched;
    switch (event.type) {
      case "queued":
        this.change(id, {
          job: { ...job, status: "queued", position: event.position },
          eta: this.eta(event.eta_seconds),
        });
        break;
      case "started": {
        // A job that was handed back starts again without counting an attempt. A stream that
        // begins at the log's beginning repeats what is known, so only a later event tells.
        const before = this.starts.get(id);
        const again = before !== undefined && event.id !== null && event.id > before;
        if (event.id !== null) this.starts.set(id, Math.max(event.id, before ?? 0));
        const progress = again ? { ...job.progress, step: 0 } : job.progress;
        this.change(id, {
          job: { ...job, status: "running", position: null, progress },
          restarted: watched.restarted || again || event.attempt > 1,
        });
        break;
      }
      case "progress": {
        const progress = { step: event.step, steps: event.steps };
        this.change(id, {
          job: { ...job, status: "running", position: null, progress },
          eta: this.eta(event.eta_seconds),
        });
        break;
      }
      case "preview":
        this.change(id, { previews: { ...watched.previews, [event.index ?? 0]: event.image } });
        break;
      case "note":
        this.change(id, { job: noted(job, event) });
        break;
      case "succeeded":
      case "failed":
      case "cancelled":
        // Fetches the complete job: pictures, problem, times.
        void this.refresh(id).then(() => this.connect());
        break;
    }
  }

  private eta(seconds: number | null): Watched["eta"] {
    return seconds === null ? null : { seconds, at: this.now() };
  }

  private change(id: string, change: Partial<Watched>): void {
    const slot = this.known.get(id);
    if (slot) slot.value = { ...slot.value, ...change };
  }
}
