/** The settings of the next picture. Null means the model's default. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import type { Cropping } from "../canvas/cropper";
import type { Operation } from "../canvas/strokes";
import type { KeyValue, Preferences } from "../storage";
import type {
  Coded,
  FieldError,
  Lora,
  ModelDefaults,
  ModelInfo,
  PictureRequest,
  RequestFiles,
  Size,
  Task,
} from "../transport/types";
import type { Catalog } from "./catalog";
import { NUMBERS, type NumberName, type Numbers, numbersOf } from "./numbers";
import { type Ratio, sizeFor } from "./sizes";

export const MAX_SEED = 2 ** 32 - 1;
export const MAX_PROMPT_CHARS = 8_000;
export const MAX_COUNT = 8;
export const STRENGTH = { img2img: 0.75, inpaint: 1 } as const;
const REFERENCE = "image:";

export interface Values {
  prompt: string;
  negativePrompt: string;
  model: string | null;
  ratio: Ratio;
  /** An exact size from a remixed picture; overrides `ratio`. */
  size: Size | null;
  steps: number | null;
  guidance: number | null;
  scheduler: string | null;
  count: number;
  /** Null takes a random one for each job. */
  seed: number | null;
  /** Whether the seed is for the next request alone, as after a remix. */
  seedOnce: boolean;
  loras: Lora[];
  /** Hashes of the files that made the remixed picture, for a note if there are others now. */
  modelHash: string | null;
  loraHashes: string | null;
  clipSkip: number;
  strength: number | null;
  maskBlur: number;
  /** Pixels of context around the mask to repaint alone; null repaints in the full picture. */
  maskPadding: number | null;
  invertMask: boolean;
  keepUnmasked: boolean;
  numbers: Numbers;
}

/** A start picture: bytes on the phone, or the id of a stored picture. */
export interface Source extends Size {
  picture: Blob | string;
  /** The photo that the picture was cropped from, to crop it again. */
  original?: { photo: Blob; crop: Cropping };
}

/** A start picture with everything that belongs to it, to put it back. */
export interface Start {
  source: Source | null;
  mask: Mask | null;
  strokes: readonly Operation[] | null;
  references: readonly Source[];
  values: Values;
}

export interface Mask {
  picture: Blob | string;
  /** A small picture with the mask over it, as a data URI; null for a stored mask. */
  preview: string | null;
  /** Its strokes, to continue painting. */
  operations: readonly Operation[];
  /** The mask that the strokes were painted on, if it was not an empty one. */
  base?: Blob | string;
}

export type Field =
  | "prompt"
  | "negativePrompt"
  | "model"
  | "size"
  | "seed"
  | "strength"
  | "image"
  | "mask"
  | "steps"
  | "guidance"
  | "scheduler"
  | "loras"
  | NumberName
  | "other";

/** Why the draft cannot be sent: the server's text, or the key of one of our strings. */
export type Complaint = ({ text: string } & Coded) | { key: "prompt" | "task" | "seed" | "steps" };
export type Complaints = Partial<Record<Field, Complaint>>;

const EMPTY: Values = {
  prompt: "",
  negativePrompt: "",
  model: null,
  ratio: "1:1",
  size: null,
  steps: null,
  guidance: null,
  scheduler: null,
  count: 1,
  seed: null,
  seedOnce: false,
  loras: [],
  modelHash: null,
  loraHashes: null,
  clipSkip: 0,
  strength: null,
  maskBlur: 0,
  maskPadding: null,
  invertMask: false,
  keepUnmasked: true,
  numbers: {},
};

const FIELDS: Readonly<Record<string, Field>> = {
  prompt: "prompt",
  negative_prompt: "negativePrompt",
  model: "model",
  width: "size",
  height: "size",
  seed: "seed",
  strength: "strength",
  image: "image",
  mask_image: "mask",
  references: "image",
  num_inference_steps: "steps",
  guidance_scale: "guidance",
  scheduler: "scheduler",
  loras: "loras",
  ...Object.fromEntries(NUMBERS.map(({ name }) => [name, name])),
};

export class Draft {
  private readonly chosen = signal<Values>(EMPTY);
  readonly values: ReadonlySignal<Values> = this.chosen;
  private readonly from = signal<Source | null>(null);
  readonly source: ReadonlySignal<Source | null> = this.from;
  private readonly painted = signal<Mask | null>(null);
  readonly mask: ReadonlySignal<Mask | null> = this.painted;
  private readonly unused = signal<readonly Operation[] | null>(null);
  /** Strokes of a mask editor that was left without *Done*. */
  readonly strokes: ReadonlySignal<readonly Operation[] | null> = this.unused;
  /** Pictures beside the start picture, for models that edit several. */
  private readonly beside = signal<readonly Source[]>([]);
  /** A photo that was picked but not cropped yet. */
  readonly photo = signal<Blob | null>(null);
  /** How that photo was cropped before. */
  cropping: Cropping | null = null;
  /** Whether that photo comes beside the start picture, instead of in its place. */
  private adding = false;
  /** The server's errors of the last try. */
  private readonly refusals = signal<Complaints>({});

  readonly task: ReadonlySignal<Exclude<Task, "upscale">> = computed(() => {
    if (!this.from.value) return "txt2img";
    if (this.painted.value) return "inpaint";
    return this.model.value?.tasks.includes("edit") ? "edit" : "img2img";
  });

  /** The pictures of an edit after the first, as many as the model takes. */
  readonly references: ReadonlySignal<readonly Source[]> = computed(() =>
    this.task.value === "edit" ? this.beside.value.slice(0, this.mostBeside()) : [],
  );

  /** Whether the edit can have one more picture. */
  readonly roomForReference: ReadonlySignal<boolean> = computed(
    () => this.task.value === "edit" && this.references.value.length < this.mostBeside(),
  );

  readonly model: ReadonlySignal<ModelInfo | null> = computed(() =>
    this.catalog.model(this.chosen.value.model),
  );

  /** The name of the chosen model if the server has none of it any more. */
  readonly missing: ReadonlySignal<string | null> = computed(() => {
    const name = this.chosen.value.model;
    const { value: models } = this.catalog.models;
    return name !== null && models.every((model) => model.name !== name) ? name : null;
  });

  /** Whether the model's file is another one than that of the remixed picture. */
  readonly modelChanged: ReadonlySignal<boolean> = computed(() => {
    const now = this.model.value?.sha256;
    const { modelHash } = this.chosen.value;
    return !!now && modelHash !== null && !now.startsWith(modelHash);
  });

  readonly size: ReadonlySignal<Size | null> = computed(() => {
    const model = this.model.value;
    return this.chosen.value.size ?? (model && sizeFor(this.chosen.value.ratio, model));
  });

  readonly complaints: ReadonlySignal<Complaints> = computed(() => ({
    ...this.refusals.value,
    ...this.find(),
  }));

  readonly ready: ReadonlySignal<boolean> = computed(
    () => this.model.value !== null && Object.keys(this.find()).length === 0,
  );

  constructor(
    private readonly catalog: Catalog,
    private readonly preferences: Preferences,
    private readonly pictures: KeyValue,
  ) {
    this.chosen.value = { ...EMPTY, ...preferences.get<Partial<Values>>("draft", {}) };
  }

  /** Reads the stored pictures. */
  async restore(): Promise<void> {
    const source = await this.pictures.get<Source>("source");
    const mask = await this.pictures.get<Mask>("mask");
    const strokes = await this.pictures.get<Operation[]>("strokes");
    const beside = await this.pictures.get<Source[]>("references");
    if (this.from.value) return; // the user was faster
    this.from.value = source ?? null;
    this.painted.value = (source && mask) ?? null;
    this.unused.value = (source && strokes) ?? null;
    this.beside.value = (source && beside) ?? [];
  }

  set(change: Partial<Values>): void {
    // Choosing an aspect ratio replaces an exact size.
    const size = "ratio" in change ? { size: null } : {};
    // Another model's hash says nothing of this one.
    const hash = "model" in change ? { modelHash: null } : {};
    this.chosen.value = { ...this.chosen.value, ...size, ...hash, ...change };
    this.refusals.value = {};
    this.preferences.set("draft", this.chosen.value);
  }

  /** Changes the model and resets settings that may not fit it. */
  setModel(name: string): void {
    this.set({
      model: name,
      steps: null,
      guidance: null,
      scheduler: null,
      size: null,
      clipSkip: 0,
      numbers: {},
    });
    const model = this.model.value;
    const fitting = model ? this.catalog.lorasFor(model).map((lora) => lora.name) : [];
    this.set({ loras: this.chosen.value.loras.filter((lora) => fitting.includes(lora.name)) });
  }

  /** Takes a photo to crop: the start picture, or one beside it. */
  pick(photo: Blob, adding = false): void {
    this.cropping = null;
    this.photo.value = photo;
    this.adding = adding;
  }

  /** Takes the start picture's photo to crop it once more. */
  pickAgain({ picture, original }: Source): void {
    if (!original && !(picture instanceof Blob)) return;
    this.pick(original?.photo ?? (picture as Blob));
    this.cropping = original?.crop ?? null;
  }

  /** The start picture and everything that goes with it, for `putBack`. */
  start(): Start {
    return {
      source: this.from.value,
      mask: this.painted.value,
      strokes: this.unused.value,
      references: this.beside.value,
      values: this.chosen.value,
    };
  }

  /** Undoes what was done since `start()`; words that were written since stay. */
  putBack({ source, mask, strokes, references, values }: Start, everything = false): void {
    this.setSource(source);
    this.setReferences(references);
    this.setMask(mask);
    this.setStrokes(strokes);
    this.set(everything ? values : { strength: values.strength, size: values.size });
  }

  /** The photo is cropped. */
  place(picture: Source): void {
    const { original: _, ...reference } = picture;
    if (this.adding && this.roomForReference.value) this.addReference(reference);
    else this.setSource(picture);
  }

  /** Adds a picture to an edit. */
  addReference(picture: Source): void {
    this.photo.value = null;
    this.setReferences([...this.references.value, picture]);
  }

  removeReference(picture: Source): void {
    this.setReferences(this.beside.value.filter((each) => each !== picture));
  }

  /** Removes the start picture. Of an edit's pictures the next one takes its place. */
  removeSource(): void {
    const [next = null, ...rest] = this.references.value;
    this.setSource(next);
    this.setReferences(rest);
  }

  /** Sets the start picture, or none. Removes the mask, which belongs to one picture. */
  setSource(source: Source | null): void {
    this.photo.value = null;
    this.from.value = source;
    this.set({ size: null, strength: null });
    this.keep("source", source);
    this.setMask(null);
  }

  setMask(mask: Mask | null): void {
    if ((mask === null) !== (this.painted.value === null)) this.set({ strength: null });
    this.painted.value = mask;
    this.keep("mask", mask);
    this.setStrokes(null);
    this.refusals.value = {};
  }

  /** Keeps what was painted so far, should the editor be left; null once it is used. */
  setStrokes(strokes: readonly Operation[] | null): void {
    this.unused.value = strokes;
    this.keep("strokes", strokes);
  }

  /** What was meant for one request, as a remix's seed, is not used again. */
  forgetSeed(): void {
    if (!this.chosen.value.seedOnce) return;
    this.set({ seed: null, seedOnce: false, modelHash: null, loraHashes: null });
  }

  /** Takes all settings of a finished job. */
  remix(request: PictureRequest): void {
    const { width, height, mask_image } = request;
    const [image, ...others] = request.references ?? (request.image ? [request.image] : []);
    const source = (name: string): Source | null =>
      width && height ? { picture: stored(name), width, height } : null;
    this.setSource(image ? source(image) : null);
    this.setReferences(others.map(source).filter((each) => each !== null));
    const model = this.catalog.model(request.model ?? null);
    const own = model && this.catalog.defaults(model, request.loras ?? []);
    const unless = <Value>(value: Value | undefined, ofModel: Value | undefined): Value | null =>
      value === undefined || value === ofModel ? null : value;
    if (mask_image) {
      const picture = stored(mask_image);
      this.setMask({ picture, preview: null, operations: [], base: picture });
    }
    this.set({
      ...EMPTY,
      prompt: request.prompt ?? "",
      negativePrompt: request.negative_prompt ?? "",
      model: request.model ?? null,
      ratio: this.chosen.value.ratio,
      // A part of a picture is drawn at the model's own size, which is not the picture's.
      size: width && height && !request.padding_mask_crop ? { width, height } : null,
      steps: unless(request.num_inference_steps ?? undefined, own?.num_inference_steps),
      guidance: unless(request.guidance_scale ?? undefined, own?.guidance_scale),
      scheduler: unless(request.scheduler ?? undefined, own?.scheduler),
      count: request.num_images ?? 1,
      seed: request.seed ?? null,
      seedOnce: request.seed !== undefined && request.seed !== null,
      loras: request.loras ?? [],
      modelHash: request.model_hash ?? null,
      loraHashes: request.lora_hashes ?? null,
      clipSkip: request.clip_skip ?? 0,
      strength: request.strength ?? null,
      maskBlur: request.mask_blur ?? 0,
      maskPadding: request.padding_mask_crop ?? null,
      invertMask: request.invert_mask ?? false,
      keepUnmasked: request.keep_unmasked ?? true,
      numbers: numbersOf(request),
    });
  }

  /** Resets everything except prompts and pictures to the model's defaults. */
  resetSettings(): void {
    const { prompt, negativePrompt } = this.chosen.value;
    const model = this.missing.value ? null : this.chosen.value.model;
    this.set({ ...EMPTY, prompt, negativePrompt, model });
  }

  /** Stores the server's errors by field. */
  refuse(errors: readonly FieldError[], detail: string): void {
    const found: Complaints = {};
    for (const { pointer, detail: text, ...coded } of errors) {
      found[FIELDS[pointer.split("/")[1] ?? ""] ?? "other"] = { text, ...coded };
    }
    if (errors.length === 0) found.other = { text: detail };
    this.refusals.value = found;
  }

  /** Whether the chosen model honours an optional field. What it does not is neither shown nor sent. */
  takes(name: keyof PictureRequest): boolean {
    // A catalog that was kept from an older server does not say it.
    const fields: readonly string[] | undefined = this.model.value?.fields;
    return fields?.includes(name) ?? true;
  }

  /** What the server takes for null values. */
  defaults(model: ModelInfo): ModelDefaults {
    return this.catalog.defaults(model, this.takes("loras") ? this.chosen.value.loras : []);
  }

  /** The request to send. Null values are left out, so that the server uses its defaults. */
  request(): { task: Task; request: PictureRequest; files: RequestFiles } {
    const values = this.chosen.value;
    const task = this.task.value;
    const asked: PictureRequest = { prompt: values.prompt.trim() };
    const put = <Name extends keyof PictureRequest>(
      name: Name,
      value: PictureRequest[Name] | null,
      unless?: PictureRequest[Name],
    ) => {
      if (!this.takes(name)) return;
      if (value !== null && value !== undefined && value !== unless) asked[name] = value;
    };
    put("negative_prompt", values.negativePrompt.trim(), "");
    put("model", values.model);
    put("num_inference_steps", values.steps);
    put("guidance_scale", values.guidance);
    put("scheduler", values.scheduler);
    put("num_images", values.count, 1);
    put("seed", values.seed);
    if (values.loras.length > 0) {
      put("loras", values.loras);
      put("lora_hashes", values.loraHashes);
    }
    put("model_hash", values.modelHash);
    put("clip_skip", values.clipSkip, 0);
    for (const { name, usual } of NUMBERS) put(name, values.numbers[name] ?? usual, usual);
    const size = task === "txt2img" ? this.size.value : values.size;
    if (size) {
      put("width", size.width);
      put("height", size.height);
    }
    const files: RequestFiles = {};
    if (task === "edit") attachAll(asked, files, [this.from.value, ...this.references.value]);
    else if (task !== "txt2img") {
      put("strength", values.strength);
      attach(asked, files, "image", this.from.value?.picture);
    }
    if (task === "inpaint") {
      put("mask_blur", values.maskBlur, 0);
      put("padding_mask_crop", values.maskPadding);
      put("invert_mask", values.invertMask, false);
      put("keep_unmasked", values.keepUnmasked, true);
      attach(asked, files, "mask_image", this.painted.value?.picture);
    }
    return { task, request: asked, files };
  }

  /** Errors that can be found without the server. */
  private find(): Complaints {
    const { prompt, seed, steps, strength } = this.chosen.value;
    const model = this.model.value;
    const found: Complaints = {};
    if (!prompt.trim() || prompt.length > MAX_PROMPT_CHARS) found.prompt = { key: "prompt" };
    if (seed !== null && !(Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED)) {
      found.seed = { key: "seed" };
    }
    const task = this.task.value;
    if (model && !model.tasks.includes(task)) found.model = { key: "task" };
    if (model && (task === "img2img" || task === "inpaint")) {
      const all = steps ?? this.defaults(model).num_inference_steps;
      if (Math.trunc(all * (strength ?? STRENGTH[task])) < 1) found.strength = { key: "steps" };
    }
    return found;
  }

  private setReferences(pictures: readonly Source[]): void {
    this.beside.value = pictures;
    this.keep("references", pictures.length > 0 ? pictures : null);
    this.refusals.value = {};
  }

  private mostBeside(): number {
    return Math.max(0, (this.model.value?.limits.max_references ?? 0) - 1);
  }

  private keep(
    name: "source" | "mask" | "strokes" | "references",
    value: Source | Mask | readonly (Source | Operation)[] | null,
  ): void {
    void (value ? this.pictures.set(name, value) : this.pictures.delete(name));
  }
}

function attachAll(
  asked: PictureRequest,
  files: RequestFiles,
  pictures: readonly (Source | null)[],
): void {
  const sent = pictures
    .filter((each) => each !== null)
    .map(({ picture }) => (picture instanceof Blob ? picture : REFERENCE + picture));
  if (sent.some((picture) => picture instanceof Blob)) files.references = sent;
  else asked.references = sent as string[];
}

function stored(reference: string): string {
  return reference.startsWith(REFERENCE) ? reference.slice(REFERENCE.length) : reference;
}

function attach(
  asked: PictureRequest,
  files: RequestFiles,
  name: "image" | "mask_image",
  picture: Blob | string | undefined,
): void {
  if (picture instanceof Blob) files[name] = picture;
  else if (picture !== undefined) asked[name] = REFERENCE + picture;
}
