/** The pictures, newest first, loaded as far as the gallery was scrolled. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { titleOf } from "../../strings";
import type { Api } from "../transport/api";
import { Problem } from "../transport/http";
import type { Job, Me } from "../transport/types";

/** The data of a thumbnail, small enough to keep thousands in memory. */
export interface GalleryPicture {
  readonly id: string;
  readonly jobId: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly width: number;
  readonly height: number;
  /** The prompt, cut to its beginning, or that it is an enlarged one. */
  readonly prompt: string;
  /** The device or program that requested it. */
  readonly clientId: string;
}

/** The pictures that could not be deleted, and whether jobs still need them. */
export interface Kept {
  readonly count: number;
  readonly inUse: boolean;
}

export interface Removal {
  undo(): void;
}

/** Everyone, one client, or with null this device. */
export type Whose = "everyone" | { readonly id: string; readonly name: string } | null;

interface Options {
  readonly me?: ReadonlySignal<Me | null>;
  readonly onTrouble?: (error: unknown) => void;
  readonly onDeleted?: (ids: readonly string[]) => void;
  readonly wait?: (run: () => void, ms: number) => () => void;
}

const PAGE = 50;
const PROMPT_CHARS = 120;
/** As long as the Undo message is shown. */
export const UNDO_MS = 6_000;

interface Pending {
  readonly ids: readonly string[];
  readonly onKept: (kept: Kept) => void;
  readonly stop: () => void;
}

export class GalleryState {
  /** Whose pictures an owner sees. */
  readonly whose = signal<Whose>(null);
  readonly loading = signal(false);
  readonly failed = signal(false);
  /** Whether the oldest picture is loaded. */
  readonly complete = signal(false);
  readonly pictures: ReadonlySignal<readonly GalleryPicture[]>;
  /** Scroll position when the gallery was left. */
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
        ({ id, clientId }) => !this.hidden.value.has(id) && (mine === null || clientId === mine),
      );
    });
  }

  /** The client id of an owner, who sees everyone's pictures. Null for others. */
  get ownId(): string | null {
    const me = this.options.me?.value;
    return me?.scope === "own" ? me.client_id || null : null; // "me" may be an older version's
  }

  /** Shows the pictures of another client, of everyone, or with null of this device. */
  async show(whose: Whose): Promise<void> {
    await this.running;
    this.whose.value = whose;
    this.loaded.value = [];
    this.cursor = null;
    this.complete.value = false;
    this.scrollTop = 0;
    await this.refresh();
  }

  /** Loads new pictures at the top. If there are too many, the list is loaded again. */
  refresh(): Promise<void> {
    return this.once(async () => {
      const { jobs, next_cursor } = await this.api.jobs(null, PAGE, this.only);
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

  /** Loads all older pictures. Returns whether it came to the end. */
  async all(): Promise<boolean> {
    do await this.more();
    while (!this.complete.value && !this.failed.value);
    return this.complete.value;
  }

  /** Loads the next older pictures. */
  more(): Promise<void> {
    if (this.complete.value) return Promise.resolve();
    return this.once(() => this.older());
  }

  /**
   * Hides pictures now and deletes them a little later, unless that is undone.
   *
   * @param onKept called if some could not be deleted; they are back in the list.
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
        this.unhide(ids);
      },
    };
  }

  /** Deletes hidden pictures now. */
  flush(): void {
    const { pending } = this;
    if (!pending) return;
    pending.stop();
    this.pending = undefined;
    void this.delete(pending);
  }

  /** Whether a picture was deleted here. */
  isDeleted(id: string): boolean {
    return this.hidden.value.has(id);
  }

  /** The next newer and older picture. */
  beside(id: string): { newer: string | undefined; older: string | undefined } {
    const list = this.pictures.value;
    const index = list.findIndex((picture) => picture.id === id);
    if (index < 0) return { newer: undefined, older: undefined };
    if (index >= list.length - 3) void this.more();
    return { newer: list[index - 1]?.id, older: list[index + 1]?.id };
  }

  /** The job that made a picture. */
  jobOf(pictureId: string): Promise<Job> {
    const id = jobIdOf(pictureId);
    const known = this.jobs.get(id);
    if (known) return known;
    const asked = this.api.job(id);
    this.jobs.set(id, asked);
    asked.catch(() => this.jobs.delete(id));
    // A few are enough for swiping back and forth.
    for (const oldest of this.jobs.keys()) {
      if (this.jobs.size <= 12) break;
      this.jobs.delete(oldest);
    }
    return asked;
  }

  /** The client whose pictures alone are shown; null for all that the server shows. */
  private get only(): string | null {
    const whose = this.whose.value;
    if (this.ownId === null || whose === "everyone") return null;
    return whose?.id ?? this.ownId;
  }

  /** Loads pages until one has a picture to show: jobs may have failed, or belong to others. */
  private async older(): Promise<void> {
    const before = this.pictures.value.length;
    while (!this.complete.value && this.pictures.value.length === before) {
      const { jobs, next_cursor } = await this.api.jobs(this.cursor, PAGE, this.only);
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
    this.options.onDeleted?.([...gone]);
    // Those that are gone stay hidden: a job that is on screen may still name them.
    this.unhide(kept);
    if (kept.length > 0) onKept({ count: kept.length, inUse });
  }

  private unhide(ids: readonly string[]): void {
    this.hidden.value = new Set([...this.hidden.value].filter((id) => !ids.includes(id)));
  }
}

/** A picture's id is its job's id and its index. */
export function jobIdOf(pictureId: string): string {
  return pictureId.replace(/-\d+$/, "");
}

function picturesOf(job: Job): GalleryPicture[] {
  const prompt = titleOf(job.request).slice(0, PROMPT_CHARS);
  return job.images.map(({ id, width, height }) => ({
    id,
    jobId: job.id,
    createdAt: job.created_at,
    width,
    height,
    prompt,
    clientId: job.client_id,
  }));
}

function later(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
}
