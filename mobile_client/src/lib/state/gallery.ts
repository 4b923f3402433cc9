/** Every picture that was made, newest first, as far as one has scrolled. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import type { Api } from "../transport/api";
import { Problem } from "../transport/http";
import type { Job, Me } from "../transport/types";

/** What a thumbnail needs; thousands of these are nothing beside one decoded picture. */
export interface GalleryPicture {
  readonly id: string;
  readonly jobId: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly width: number;
  readonly height: number;
  /** The beginning of it. */
  readonly prompt: string;
  /** Who asked for it. */
  readonly client: string;
}

/** How many pictures a deletion could not delete, and whether because jobs still need them. */
export interface Kept {
  readonly count: number;
  readonly inUse: boolean;
}

export interface Removal {
  undo(): void;
}

interface Options {
  readonly me?: ReadonlySignal<Me | null>;
  readonly onTrouble?: (error: unknown) => void;
  readonly wait?: (run: () => void, ms: number) => () => void;
}

const PAGE = 50;
const PROMPT_CHARS = 120;
/** As long as the words that offer to take a deletion back. */
export const UNDO_MS = 6_000;

interface Pending {
  readonly ids: readonly string[];
  readonly onKept: (kept: Kept) => void;
  readonly stop: () => void;
}

export class GalleryState {
  /** Whether an owner wants to see everybody's pictures, not only this device's. */
  readonly everyone = signal(false);
  readonly loading = signal(false);
  readonly failed = signal(false);
  /** Whether the oldest picture is there. */
  readonly complete = signal(false);
  readonly pictures: ReadonlySignal<readonly GalleryPicture[]>;
  /** Where the list was scrolled to when one left it. */
  scrollTop = 0;

  private readonly loaded = signal<readonly GalleryPicture[]>([]);
  private readonly hidden = signal<ReadonlySet<string>>(new Set());
  private cursor: string | null = null;
  private pending: Pending | undefined;
  private running: Promise<void> | undefined;
  private readonly jobs = new Map<string, Promise<Job>>();
  private readonly wait: (run: () => void, ms: number) => () => void;

  constructor(
    private readonly api: Api,
    private readonly options: Options = {},
  ) {
    this.wait = options.wait ?? later;
    this.pictures = computed(() => {
      const mine = this.only;
      return this.loaded.value.filter(
        ({ id, client }) => !this.hidden.value.has(id) && (mine === null || client === mine),
      );
    });
  }

  /** An owner's name: the server shows them everybody's pictures. Null for everybody else. */
  get ownName(): string | null {
    const me = this.options.me?.value;
    return me?.scope === "own" && me.name !== "" ? me.name : null;
  }

  /** What is new at the top. Where too much is new, the list begins anew. */
  refresh(): Promise<void> {
    return this.once(async () => {
      const { jobs, next_cursor } = await this.api.jobs(null, PAGE);
      const fresh = jobs.flatMap(picturesOf);
      const ids = new Set(jobs.map((job) => job.id));
      const known = this.loaded.value;
      if (known.some(({ jobId }) => ids.has(jobId))) {
        this.loaded.value = [...fresh, ...known.filter(({ jobId }) => !ids.has(jobId))];
      } else {
        this.loaded.value = fresh;
        this.turnTo(next_cursor);
      }
      if (this.pictures.value.length === 0) await this.older();
    });
  }

  /** The next older pictures. */
  more(): Promise<void> {
    if (this.complete.value) return Promise.resolve();
    return this.once(() => this.older());
  }

  /**
   * Hides pictures now and deletes them a little later, unless that is undone.
   *
   * @param onKept called when some could not be deleted; they are back in the list then.
   */
  remove(ids: readonly string[], onKept: (kept: Kept) => void): Removal {
    this.flush();
    this.hidden.value = new Set([...this.hidden.value, ...ids]);
    const pending = { ids, onKept, stop: this.wait(() => this.flush(), UNDO_MS) };
    this.pending = pending;
    return {
      undo: () => {
        if (this.pending !== pending) return; // too late
        pending.stop();
        this.pending = undefined;
        this.show(ids);
      },
    };
  }

  /** Deletes now what waits to be deleted. */
  flush(): void {
    const { pending } = this;
    if (!pending) return;
    pending.stop();
    this.pending = undefined;
    void this.delete(pending);
  }

  /** The pictures beside one, in the gallery's order. */
  beside(id: string): { newer: string | undefined; older: string | undefined } {
    const list = this.pictures.value;
    const index = list.findIndex((picture) => picture.id === id);
    if (index < 0) return { newer: undefined, older: undefined };
    if (index >= list.length - 3) void this.more();
    return { newer: list[index - 1]?.id, older: list[index + 1]?.id };
  }

  /** The job that made a picture: everything there is to know about it. */
  jobOf(pictureId: string): Promise<Job> {
    const id = jobIdOf(pictureId);
    const known = this.jobs.get(id);
    if (known) return known;
    const asked = this.api.job(id);
    this.jobs.set(id, asked);
    asked.catch(() => this.jobs.delete(id));
    // One swipes back and forth, not through a thousand.
    for (const oldest of this.jobs.keys()) {
      if (this.jobs.size <= 12) break;
      this.jobs.delete(oldest);
    }
    return asked;
  }

  /** The name whose pictures alone are shown; null for no such choice. */
  private get only(): string | null {
    return this.everyone.value ? null : this.ownName;
  }

  /** Pages until there is something to see: jobs may have failed, or be somebody else's. */
  private async older(): Promise<void> {
    const before = this.pictures.value.length;
    while (!this.complete.value && this.pictures.value.length === before) {
      const { jobs, next_cursor } = await this.api.jobs(this.cursor, PAGE);
      const known = new Set(this.loaded.value.map(({ id }) => id));
      const fresh = jobs.flatMap(picturesOf).filter(({ id }) => !known.has(id));
      this.loaded.value = [...this.loaded.value, ...fresh];
      this.turnTo(next_cursor);
    }
  }

  private turnTo(cursor: string | null): void {
    this.cursor = cursor;
    this.complete.value = cursor === null;
  }

  private once(work: () => Promise<void>): Promise<void> {
    this.running ??= this.guarded(work).finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  private async guarded(work: () => Promise<void>): Promise<void> {
    this.loading.value = true;
    try {
      await work();
      this.failed.value = false;
    } catch (error) {
      this.failed.value = true;
      this.options.onTrouble?.(error);
    } finally {
      this.loading.value = false;
    }
  }

  private async delete({ ids, onKept }: Pending): Promise<void> {
    const kept: string[] = [];
    let inUse = false;
    for (const id of ids) {
      try {
        await this.api.deleteImage(id);
      } catch (error) {
        kept.push(id);
        if (error instanceof Problem && error.status === 409) inUse = true;
        else this.options.onTrouble?.(error);
      }
    }
    const gone = new Set(ids.filter((id) => !kept.includes(id)));
    this.loaded.value = this.loaded.value.filter(({ id }) => !gone.has(id));
    this.show(ids);
    if (kept.length > 0) onKept({ count: kept.length, inUse });
  }

  private show(ids: readonly string[]): void {
    this.hidden.value = new Set([...this.hidden.value].filter((id) => !ids.includes(id)));
  }
}

/** A picture's id is its job's and its place in it. */
export function jobIdOf(pictureId: string): string {
  return pictureId.replace(/-\d+$/, "");
}

function picturesOf(job: Job): GalleryPicture[] {
  const prompt = String(job.request.prompt ?? "").slice(0, PROMPT_CHARS);
  return job.images.map(({ id, width, height }) => ({
    id,
    jobId: job.id,
    createdAt: job.created_at,
    width,
    height,
    prompt,
    client: job.client,
  }));
}

function later(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
}
