/** Looking inside a picture: its explanation from this device, from its job, or made again with one. */

import { type ReadonlySignal, signal } from "@preact/signals";
import { titleOf } from "../../strings";
import { pixelsOf as decoded } from "../canvas/pixels";
import { DamagedError, Maps } from "../inside/maps";
import { compare, type Pixels, ROUNDING, type Sameness } from "../inside/sameness";
import type { ExplanationStore, Kept } from "../inside/store";
import { type Preferences, randomId } from "../storage";
import type { Api } from "../transport/api";
import { Foreign, Problem, Unreachable } from "../transport/http";
import { isOver, type Job, type Picture, type PictureRequest } from "../transport/types";
import type { Catalog } from "./catalog";
import type { GalleryState } from "./gallery";

/** Why there is nothing to see. */
export type Trouble =
  | { readonly kind: "offline" }
  /** The picture or its job. */
  | { readonly kind: "gone" }
  /** The model, or the task, cannot be looked into. */
  | { readonly kind: "cannot"; readonly model: string }
  | { readonly kind: "model-gone"; readonly model: string }
  | { readonly kind: "problem"; readonly problem: Said };

type Said = Pick<Problem, "title" | "detail"> &
  Partial<Pick<Problem, "status" | "type" | "errors">>;

export type Look =
  | { readonly status: "loading" }
  /** The picture was made without an explanation; it can be made again. */
  | { readonly status: "absent" }
  /** It is being made again; `job` is null until the server has it. */
  | { readonly status: "making"; readonly job: Job | null }
  | { readonly status: "ready"; readonly kept: Kept }
  | { readonly status: "trouble"; readonly trouble: Trouble };

interface Parts {
  readonly api: Api;
  readonly preferences: Preferences;
  readonly store: ExplanationStore;
  readonly catalog: Catalog;
  readonly gallery: GalleryState;
  readonly pixelsOf?: (picture: Blob) => Promise<Pixels>;
  readonly onTrouble: (error: unknown) => void;
}

const ASK_MS = 700;
/** Between questions while the server does not answer. */
const ASK_AGAIN_MS = 3_000;
const KEY = "looking";
/** What a request has that another picture of it must not have: it would be called twice. */
const NOT_AGAIN = ["webhook"];

export class Inside {
  private readonly looks = new Map<string, Looking>();

  constructor(private readonly parts: Parts) {}

  /** The look into a picture. It stays while the picture is made again, on screen or not. */
  look(pictureId: string): Looking {
    const known = this.looks.get(pictureId);
    if (known) return known;
    const made = new Looking(pictureId, this.parts);
    this.looks.set(pictureId, made);
    return made;
  }

  /** The screen of that picture was left. */
  leave(pictureId: string): void {
    if (this.looks.get(pictureId)?.state.value.status !== "making") this.looks.delete(pictureId);
  }

  /** Goes on with pictures that were being made again when the app was closed. */
  async resume(): Promise<void> {
    const ids = Object.keys(this.parts.preferences.get<Record<string, string>>(KEY, {}));
    await Promise.all(ids.map((id) => this.look(id).open()));
  }
}

export class Looking {
  private readonly look = signal<Look>({ status: "loading" });
  readonly state: ReadonlySignal<Look> = this.look;
  /** Of the request that was sent last: a second try must not make a second picture. */
  private key = randomId();
  private opening: Promise<void> | undefined;

  constructor(
    private readonly pictureId: string,
    private readonly parts: Parts,
  ) {}

  /** Finds the explanation, unless it is there, or the picture is being made again. */
  open(): Promise<void> {
    if (["making", "ready"].includes(this.look.value.status)) return Promise.resolve();
    this.opening ??= this.guarded(() => this.find()).finally(() => {
      this.opening = undefined;
    });
    return this.opening;
  }

  /** Makes the picture again, with an explanation. */
  again(): Promise<void> {
    return this.guarded(async () => {
      this.look.value = { status: "making", job: null };
      const { job, picture } = await this.original();
      const request = requestOf(job, picture);
      const made = await this.parts.api.submit(job.task, request, {}, this.key);
      this.key = randomId();
      this.remember(made.id);
      await this.follow(made);
    });
  }

  async cancel(): Promise<void> {
    const { value } = this.look;
    if (value.status !== "making" || !value.job) return;
    await this.guarded(async () => this.follow(await this.parts.api.cancel(value.job?.id ?? "")));
  }

  private async find(): Promise<void> {
    const kept = await this.parts.store.find(this.pictureId);
    if (kept) {
      this.look.value = { status: "ready", kept };
      return;
    }
    if (this.look.value.status !== "absent") this.look.value = { status: "loading" };
    if (await this.goOn()) return;
    const { job, picture } = await this.original();
    if (job.request.explain === true && (await this.explained(job, picture))) return;
    // It may have been asked for meanwhile.
    if (!this.isMaking) this.look.value = this.mayBeMadeAgain(job);
  }

  private get isMaking(): boolean {
    return this.look.value.status === "making";
  }

  /** Follows the job that makes the picture again, if there is one. */
  private async goOn(): Promise<boolean> {
    const id = this.pending()[this.pictureId];
    if (id === undefined) return false;
    try {
      await this.follow(await this.parts.api.job(id));
      return true;
    } catch (error) {
      if (!isMissing(error)) throw error;
      this.remember(null);
      return false;
    }
  }

  private async original(): Promise<{ job: Job; picture: Picture }> {
    const job = await this.parts.gallery.jobOf(this.pictureId);
    const picture = job.images.find(({ id }) => id === this.pictureId);
    if (!picture) throw new GoneError();
    return { job, picture };
  }

  /** Reads the explanation of a picture that was made with one. */
  private async explained(job: Job, picture: Picture): Promise<boolean> {
    const { api } = this.parts;
    try {
      const [explained] = (await api.explain(job.id, picture.index)).images;
      if (!explained) return false;
      await this.keep(job, picture, {
        explained,
        picture: await api.image(picture.id),
        sameness: null,
      });
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  private mayBeMadeAgain(job: Job): Look {
    const model = String(job.request.model ?? "");
    const models = this.parts.catalog.models.value;
    const known = models.find(({ name }) => name === model);
    const isUnknown = models.length > 0 && model !== "" && !known;
    if (isUnknown) return { status: "trouble", trouble: { kind: "model-gone", model } };
    const can = job.task !== "edit" && job.task !== "upscale";
    if (!can || known?.fields.includes("explain") === false) {
      return { status: "trouble", trouble: { kind: "cannot", model } };
    }
    return { status: "absent" };
  }

  /** Until the job that makes it again has ended. */
  private async follow(first: Job): Promise<void> {
    let job = first;
    let pause = ASK_MS;
    while (!isOver(job.status)) {
      this.look.value = { status: "making", job };
      await new Promise((resolve) => setTimeout(resolve, pause));
      // Whoever cancels a job follows it to its end, and may have asked for another since.
      const { value } = this.look;
      if (value.status !== "making" || value.job?.id !== job.id) return;
      const asked = await this.asked(job.id);
      pause = asked ? ASK_MS : ASK_AGAIN_MS;
      job = asked ?? job;
    }
    await this.finish(job);
  }

  /** The job as it is now; null if the server does not answer. */
  private async asked(id: string): Promise<Job | null> {
    try {
      return await this.parts.api.job(id);
    } catch (error) {
      if (isMissing(error)) throw error;
      this.parts.onTrouble(error);
      return null;
    }
  }

  private async finish(job: Job): Promise<void> {
    const copy = job.images[0];
    if (job.status !== "succeeded" || !copy) {
      this.remember(null);
      this.look.value =
        job.status === "failed" && job.error
          ? { status: "trouble", trouble: { kind: "problem", problem: job.error } }
          : { status: "absent" };
      return;
    }
    const { api, pixelsOf = decoded } = this.parts;
    const [explanation, before, after] = await Promise.all([
      api.explain(job.id, copy.index),
      api.image(this.pictureId),
      api.image(copy.id),
    ]);
    const [explained] = explanation.images;
    if (!explained) throw new GoneError();
    const sameness = await compare(before, after, pixelsOf);
    const picture = isSame(sameness) ? before : after;
    await this.keep(job, copy, { explained, picture, sameness });
    this.remember(null);
    // It was made for its explanation, which is kept here.
    await api.deleteImage(copy.id).catch(this.parts.onTrouble);
  }

  private async keep(
    job: Job,
    { width, height }: Picture,
    found: Pick<Kept, "explained" | "picture" | "sameness">,
  ): Promise<void> {
    for (const array of Object.values(found.explained.maps)) if (array) new Maps(array);
    const prompt = titleOf(job.request);
    const kept = { ...found, pictureId: this.pictureId, prompt, size: { width, height } };
    await this.parts.store.keep(kept);
    this.look.value = { status: "ready", kept };
  }

  private async guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.parts.onTrouble(error);
      this.look.value = { status: "trouble", trouble: this.troubleOf(error) };
    }
  }

  private troubleOf(error: unknown): Trouble {
    const isUnexplained = error instanceof Problem && error.type.endsWith(":no-explanation");
    if (isUnexplained) return { kind: "problem", problem: error };
    if (error instanceof GoneError || isMissing(error)) return { kind: "gone" };
    if (error instanceof Unreachable || error instanceof Foreign) return { kind: "offline" };
    if (error instanceof DamagedError) {
      return { kind: "problem", problem: { title: "", detail: error.message } };
    }
    if (!(error instanceof Problem)) throw error;
    const refuses = (pointer: string) => error.errors.find((each) => each.pointer === pointer);
    const model = String(refuses("#/model")?.values?.name ?? "");
    if (refuses("#/explain")) return { kind: "cannot", model };
    if (model && refuses("#/model")?.code === "unknown_model") return { kind: "model-gone", model };
    return { kind: "problem", problem: error };
  }

  private pending(): Record<string, string> {
    return this.parts.preferences.get<Record<string, string>>(KEY, {});
  }

  /** Which job makes the picture again; with null, none does. */
  private remember(jobId: string | null): void {
    const { [this.pictureId]: _, ...others } = this.pending();
    const all = jobId === null ? others : { ...others, [this.pictureId]: jobId };
    this.parts.preferences.set(KEY, all);
  }
}

/** The picture was deleted, or its job. */
class GoneError extends Error {}

/** The request of one picture of a job alone, explained, in calls of its own. */
export function requestOf(job: Job, picture: Picture): PictureRequest {
  const kept = Object.entries(job.request).filter(([name]) => !NOT_AGAIN.includes(name));
  const one = { seed: picture.seed, num_images: 1, exact: true, explain: true };
  return { ...Object.fromEntries(kept), ...one };
}

/** Whether it is the same picture to the eye. */
export function isSame(sameness: Sameness): boolean {
  return sameness.kind === "bytes" || (sameness.kind === "pixels" && sameness.most <= ROUNDING);
}

function isMissing(error: unknown): boolean {
  return error instanceof Problem && error.status === 404;
}
