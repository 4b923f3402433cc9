/** A server in memory that follows the contract, and can be taken away. */

import type { Api } from "../src/lib/transport/api";
import type { EventHandlers, JobEvent, Watching } from "../src/lib/transport/events";
import { Problem, Unreachable } from "../src/lib/transport/http";
import type {
  Device,
  Explained,
  Explanation,
  Invitation,
  Job,
  JobPage,
  LoraInfo,
  Me,
  ModelInfo,
  ModelKind,
  Picture,
  PictureRequest,
  Pull,
  PullPlan,
  RequestFiles,
  SchedulerInfo,
  Task,
  UpscalerInfo,
} from "../src/lib/transport/types";

export const LORA: LoraInfo = {
  name: "ink",
  family: "width-192",
  text_dim: 192,
  title: "",
  description: "",
  trigger_words: [],
  aliases: [],
  models: [],
  defaults: null,
  sha256: null,
  thumbnail_url: null,
};

export const MODEL: ModelInfo = {
  name: "tintype",
  family: "sd",
  description: "Small.",
  note: "",
  examples: [],
  sizes: [],
  tasks: ["txt2img", "img2img", "inpaint"],
  defaults: {
    width: 128,
    height: 128,
    num_inference_steps: 20,
    guidance_scale: 3,
    scheduler: "ddim",
  },
  limits: {
    min_side: 64,
    max_side: 256,
    max_pixels: 25_600,
    multiple_of: 8,
    max_clip_skip: 2,
    max_references: 0,
  },
  schedulers: [],
  broken: null,
  title: "",
  trigger_words: [],
  licence: "",
  size_bytes: 40_369_614,
  memory_bytes: null,
  fits: null,
  resident: false,
  thumbnail_url: null,
  sha256: null,
  autov2: null,
  workers: ["attic-0"],
  deletable: false,
  fields: [
    ...["negative_prompt", "width", "height", "num_inference_steps", "guidance_scale"],
    ...["guidance_rescale", "num_images", "seed", "scheduler", "model", "loras", "clip_skip"],
    ...["model_hash", "lora_hashes", "explain"],
    ...["strength", "mask_blur", "padding_mask_crop", "invert_mask", "keep_unmasked"],
  ],
  default: true,
};

export const LARGE: ModelInfo = {
  ...MODEL,
  name: "large",
  tasks: ["txt2img"],
  defaults: { ...MODEL.defaults, width: 1024, height: 1024, num_inference_steps: 30 },
  limits: {
    min_side: 512,
    max_side: 2048,
    max_pixels: 1_310_720,
    multiple_of: 64,
    max_clip_skip: 0,
    max_references: 0,
  },
  default: false,
};

/** One that changes pictures as the prompt says, three at a time. */
export const EDITOR: ModelInfo = {
  ...MODEL,
  name: "editor",
  tasks: ["txt2img", "edit"],
  limits: { ...MODEL.limits, max_references: 3 },
  default: false,
};

export interface Stream {
  jobId: string | null;
  lastEventId: number | null;
  handlers: EventHandlers;
  closed: boolean;
}

export interface Submission {
  task: Task;
  request: PictureRequest;
  files: RequestFiles;
  key: string;
}

export class FakeApi implements Api {
  onAnswer: () => void = () => {};
  /** What happens to each request instead of an answer. */
  trouble: (() => Error | null) | null = null;
  identity: Me = {
    client: "token:1",
    client_id: "device:1",
    device: "1",
    name: "phone",
    scope: "use",
  };
  loaded = true;
  readonly list: ModelInfo[] = [MODEL, LARGE, EDITOR];
  readonly adapters: LoraInfo[] = [];
  readonly networks: UpscalerInfo[] = [
    { name: "tintype-x2", architecture: "Compact", scale: 2, max_pixels: 4_194_304 },
    { name: "tintype-x4", architecture: "Compact", scale: 4, max_pixels: 1_048_576 },
  ];
  readonly kept = new Map<string, Job>();
  /** What each picture's file is; `picture` if it is not here. */
  readonly files = new Map<string, string>();
  readonly deleted: string[] = [];
  readonly submissions: Submission[] = [];
  readonly streams: Stream[] = [];
  private readonly byKey = new Map<string, string>();
  private count = 0;

  unplug(): void {
    this.trouble = () => new Unreachable("no network");
  }

  plugIn(): void {
    this.trouble = null;
  }

  refuse(status: number, problem: Partial<Problem> = {}): void {
    this.trouble = () =>
      new Problem(
        status,
        problem.type ?? "urn:darkroom:problem:test",
        "No",
        problem.detail ?? "because",
        problem.errors ?? [],
        null,
        problem.retryAfter ?? null,
      );
  }

  async me(): Promise<Me> {
    this.stumble();
    return this.identity;
  }

  async pair(code: string, name: string): Promise<Me> {
    if (code !== "GOOD-CODE") {
      throw new Problem(403, "urn:darkroom:problem:pairing-code", "No", "not a good code");
    }
    this.plugIn();
    this.identity = { ...this.identity, name };
    return this.identity;
  }

  async leave(): Promise<void> {
    this.stumble();
  }

  async invite(): Promise<Invitation> {
    this.stumble();
    return {
      code: "GOOD-CODE",
      device: null,
      scope: "use",
      url: "http://box:7860/#pair=GOOD-CODE",
      qr: "data:image/svg+xml,",
      expires_at: "2026-01-01T00:00:00Z",
    };
  }

  async devices(): Promise<Device[]> {
    this.stumble();
    return [];
  }

  async rename(): Promise<Device> {
    this.stumble();
    throw new Problem(404, "urn:darkroom:problem:not-found", "Not found", "there is no device");
  }

  async revoke(): Promise<void> {
    this.stumble();
  }

  async ready(): Promise<boolean> {
    this.stumble();
    return this.loaded;
  }

  async models(): Promise<ModelInfo[]> {
    this.stumble();
    return this.list;
  }

  async schedulers(): Promise<SchedulerInfo[]> {
    this.stumble();
    return [{ name: "ddim", title: "DDIM", variants: [] }];
  }

  async loras(): Promise<LoraInfo[]> {
    this.stumble();
    return this.adapters;
  }

  async upscalers(): Promise<UpscalerInfo[]> {
    this.stumble();
    return this.networks;
  }

  readonly downloads: Pull[] = [];

  async planPull(source: string): Promise<PullPlan> {
    this.stumble();
    return {
      source,
      kind: "models",
      name: "fox",
      title: source,
      family: "sd",
      files: 1,
      total_bytes: 2_000_000_000,
      done_bytes: 0,
      free_bytes: 5_000_000_000,
      fits_on_disk: true,
      memory_bytes: null,
      fits: null,
      lacks: null,
    };
  }

  async pull(source: string, name = "fox"): Promise<Pull> {
    this.stumble();
    const pull: Pull = {
      id: String(this.downloads.length),
      source,
      kind: "models",
      name,
      title: source,
      status: "running",
      done_bytes: 0,
      total_bytes: 2_000_000_000,
      bytes_per_second: null,
      error: null,
      created_at: "2026-01-01T00:00:00Z",
      finished_at: null,
      url: "/pulls/0",
    };
    this.downloads.unshift(pull);
    return pull;
  }

  async pulls(): Promise<Pull[]> {
    this.stumble();
    return this.downloads.map((each) => ({ ...each }));
  }

  async stopPull(id: string): Promise<void> {
    this.stumble();
    const pull = this.downloads.find((each) => each.id === id);
    if (pull) pull.status = "cancelled";
  }

  async deleteModel(_kind: ModelKind, name: string): Promise<void> {
    this.stumble();
    this.list.splice(
      this.list.findIndex((each) => each.name === name),
      1,
    );
  }

  async submit(
    task: Task,
    request: PictureRequest,
    files: RequestFiles,
    key: string,
  ): Promise<Job> {
    this.stumble();
    this.submissions.push({ task, request, files, key });
    const before = this.byKey.get(key);
    if (before) return this.find(before);
    this.count += 1;
    const made = job(`job-${this.count}`, { task, request: { ...request } });
    this.byKey.set(key, made.id);
    this.kept.set(made.id, made);
    return made;
  }

  async job(id: string): Promise<Job> {
    this.stumble();
    return this.find(id);
  }

  async jobs(): Promise<JobPage> {
    this.stumble();
    return { jobs: [...this.kept.values()].reverse(), next_cursor: null };
  }

  async cancel(id: string): Promise<Job> {
    this.stumble();
    return this.update(id, { status: "cancelled" });
  }

  async deleteImage(id: string): Promise<void> {
    this.stumble();
    this.deleted.push(id);
  }

  async explain(jobId: string, index: number): Promise<Explanation> {
    this.stumble();
    const { request } = this.find(jobId);
    if (request.explain === true) return { job_id: jobId, images: [explained(index)] };
    throw new Problem(404, "urn:darkroom:problem:no-explanation", "No", "it was not asked for");
  }

  async decode(file: Blob): Promise<Blob> {
    this.stumble();
    return file;
  }

  async image(id: string): Promise<Blob> {
    this.stumble();
    return new Blob([this.files.get(id) ?? "picture"], { type: "image/png" });
  }

  imageUrl(id: string, width?: number): string {
    return `/images/${id}${width ? `?w=${width}` : ""}`;
  }

  timelineUrl(jobId: string): string {
    return `/jobs/${jobId}/timeline`;
  }

  watchJob(jobId: string, handlers: EventHandlers, lastEventId: number | null = null): Watching {
    return this.open({ jobId, lastEventId, handlers, closed: false });
  }

  watchAll(handlers: EventHandlers): Watching {
    return this.open({ jobId: null, lastEventId: null, handlers, closed: false });
  }

  /** What the server knows of a job from now on. */
  update(id: string, change: Partial<Job>): Job {
    const changed = { ...this.find(id), ...change };
    this.kept.set(id, changed);
    return changed;
  }

  finish(id: string): Job {
    return this.update(id, { status: "succeeded", images: [picture(id)] });
  }

  /** News on all open streams that carry them. */
  emit(event: JobEvent): void {
    for (const stream of this.streams) {
      const carries = stream.jobId === null || stream.jobId === event.job_id;
      if (!stream.closed && carries) stream.handlers.onEvent(event);
    }
  }

  get openStreams(): Stream[] {
    return this.streams.filter((stream) => !stream.closed);
  }

  private open(stream: Stream): Watching {
    this.streams.push(stream);
    return {
      close: () => {
        stream.closed = true;
      },
    };
  }

  private find(id: string): Job {
    const found = this.kept.get(id);
    if (found) return found;
    throw new Problem(404, "urn:darkroom:problem:not-found", "Not found", `there is no job ${id}`);
  }

  private stumble(): void {
    const error = this.trouble?.();
    if (error) throw error;
    this.onAnswer();
  }
}

export function job(id: string, change: Partial<Job> = {}): Job {
  return {
    id,
    client: "phone",
    client_id: "device:1",
    task: "txt2img",
    status: "queued",
    position: 0,
    eta_seconds: 10,
    progress: { step: 0, steps: 20 },
    attempts: 0,
    worker: null,
    device: null,
    request: { prompt: "a fox" },
    images: [],
    notes: [],
    coded_notes: [],
    error: null,
    created_at: "2026-01-01T00:00:00Z",
    started_at: null,
    finished_at: null,
    url: `/jobs/${id}`,
    webhook: null,
    ...change,
  };
}

export function picture(jobId: string): Picture {
  return {
    id: `${jobId}-0`,
    job_id: jobId,
    index: 0,
    seed: 7,
    width: 128,
    height: 128,
    content_type: "image/png",
    bytes: 10,
    sha256: "0",
    worker: "attic-0",
    device: "cuda",
    created_at: "2026-01-01T00:00:00Z",
    url: `/images/${jobId}-0`,
  };
}

/** An explanation of "a fox", on a grid of 2×3: "a" is at the left, "fox" at the right below. */
export function explained(index = 0, change: Partial<Explained> = {}): Explained {
  const maps = [
    [0, 0, 0, 0, 0, 0],
    [255, 0, 0, 255, 0, 0],
    [0, 51, 0, 0, 102, 255],
    [255, 255, 255, 255, 255, 255],
  ];
  const data = btoa(String.fromCharCode(...maps.flat()));
  const array = { shape: [4, 2, 3], dtype: "uint8" as const, data, peaks: [0, 0.1, 0.2, 0.5] };
  return {
    index,
    seed: 7,
    crop: null,
    tokens: [
      { text: "<|startoftext|>", kind: "start", word: null },
      { text: "a", kind: "text", word: 0 },
      { text: "fox", kind: "text", word: 1 },
      { text: "", kind: "padding", word: null },
    ],
    words: [
      { text: "a", tokens: [1] },
      { text: "fox", tokens: [2] },
    ],
    maps: { all_steps: array, last_quarter: array, carried_back: array },
    steps: [],
    seconds: { prepare: 0.01, denoise: 1, decode: 0.02 },
    ...change,
  };
}

/** Lets everything that is under way come to rest. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}
