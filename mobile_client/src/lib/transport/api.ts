/** Calls to the server. State takes an `Api`; tests pass a fake one. */

import { type EventHandlers, type Watching, watchEvents } from "./events";
import { type Fetch, json, PLAN_TIMEOUT_MS, Problem, request, UPLOAD_TIMEOUT_MS } from "./http";
import type {
  Device,
  Explanation,
  Invitation,
  Job,
  JobPage,
  LoraInfo,
  Me,
  ModelInfo,
  ModelKind,
  PictureRequest,
  Pull,
  PullPlan,
  RequestFiles,
  SchedulerInfo,
  Task,
  UpscalerInfo,
} from "./types";

export interface Api {
  /** Called after every answer of the server, so that its return is noticed at once. */
  onAnswer: () => void;
  /** Throws a 401 Problem if this device has no valid token. */
  me(): Promise<Me>;
  /** Exchanges a pairing code for this device's own token, which the browser keeps as a cookie. */
  pair(code: string, name: string): Promise<Me>;
  /** Revokes this device's token. */
  leave(me: Me): Promise<void>;
  /** A pairing code for a new device, or for one that is known. For owners. */
  invite(device?: string): Promise<Invitation>;
  /** All devices. For owners. */
  devices(): Promise<Device[]>;
  /** Gives a device another name. */
  rename(device: string, name: string): Promise<Device>;
  /** Takes a device's access away; its pictures stay. For owners. */
  revoke(device: string): Promise<void>;
  /** Whether a worker has its model loaded. */
  ready(): Promise<boolean>;
  models(): Promise<ModelInfo[]>;
  schedulers(): Promise<SchedulerInfo[]>;
  loras(): Promise<LoraInfo[]>;
  upscalers(): Promise<UpscalerInfo[]>;
  /** What a download to the server would be; takes seconds. For owners. */
  planPull(source: string): Promise<PullPlan>;
  /** Lets the server download a model, under a name of its own without `name`. For owners. */
  pull(source: string, name?: string): Promise<Pull>;
  /** Downloads to the server, newest first. For owners. */
  pulls(): Promise<Pull[]>;
  /** Cancels a download, or takes one that has ended off the list. */
  stopPull(id: string): Promise<void>;
  /** Deletes a model's files from the server's disk. For owners. */
  deleteModel(kind: ModelKind, name: string): Promise<void>;
  /** Resolves when the job is on the server's disk. The same `key` again returns the same job. */
  submit(task: Task, request: PictureRequest, files: RequestFiles, key: string): Promise<Job>;
  job(id: string): Promise<Job>;
  /** Newest first; with `client`, of that one alone. */
  jobs(cursor?: string | null, limit?: number, client?: string | null): Promise<JobPage>;
  cancel(id: string): Promise<Job>;
  deleteImage(id: string): Promise<void>;
  /** How one of a job's pictures was made. Throws a 404 Problem if that was not recorded. */
  explain(jobId: string, index: number): Promise<Explanation>;
  /** A picture in a format that this browser cannot show, as JPEG. */
  decode(file: Blob): Promise<Blob>;
  /** A picture's bytes, for saving, sharing and editing. */
  image(id: string): Promise<Blob>;
  /** For `<img src>`; with `width`, of a WebP thumbnail at most that wide. */
  imageUrl(id: string, width?: number): string;
  timelineUrl(jobId: string): string;
  /** The events of one job from its beginning, or after `lastEventId`. */
  watchJob(jobId: string, handlers: EventHandlers, lastEventId?: number | null): Watching;
  /** The events of all jobs from now on. */
  watchAll(handlers: EventHandlers): Watching;
}

export class HttpApi implements Api {
  onAnswer: () => void = () => {};

  /** `base` is empty for the origin that served this page. */
  constructor(
    private readonly base = "",
    private readonly fetcher: Fetch = (url, init) => fetch(url, init),
  ) {}

  async me(): Promise<Me> {
    return this.json(await this.get("/me"));
  }

  async pair(code: string, name: string): Promise<Me> {
    const body = JSON.stringify({ code, name });
    const headers = JSON_BODY;
    // The token in the answer is ignored: the cookie is enough, and scripts cannot read it.
    return this.json(await this.send("POST", "/pair", { body, headers }));
  }

  async leave({ client }: Me): Promise<void> {
    const [kind, id] = client.split(":");
    if (kind === "token" && id) await this.send("DELETE", `/tokens/${encodeURIComponent(id)}`);
  }

  async invite(device?: string): Promise<Invitation> {
    const body = JSON.stringify(device === undefined ? { scope: "use" } : { device });
    return this.json(await this.send("POST", "/pair/codes", { body, headers: JSON_BODY }));
  }

  async devices(): Promise<Device[]> {
    return (await this.json<{ devices: Device[] }>(await this.get("/devices"))).devices;
  }

  async rename(device: string, name: string): Promise<Device> {
    const body = JSON.stringify({ name });
    return this.json(await this.send("PATCH", devicePath(device), { body, headers: JSON_BODY }));
  }

  async revoke(device: string): Promise<void> {
    await this.send("DELETE", `${devicePath(device)}/tokens`);
  }

  async ready(): Promise<boolean> {
    try {
      await this.json(await this.get("/readyz"));
      return true;
    } catch (error) {
      if (error instanceof Problem && error.status === 503 && error.type.endsWith(":not-ready")) {
        return false;
      }
      throw error;
    }
  }

  async models(): Promise<ModelInfo[]> {
    return (await this.json<{ models: ModelInfo[] }>(await this.get("/models"))).models;
  }

  async schedulers(): Promise<SchedulerInfo[]> {
    return (await this.json<{ schedulers: SchedulerInfo[] }>(await this.get("/schedulers")))
      .schedulers;
  }

  async loras(): Promise<LoraInfo[]> {
    return (await this.json<{ loras: LoraInfo[] }>(await this.get("/loras"))).loras;
  }

  async upscalers(): Promise<UpscalerInfo[]> {
    return (await this.json<{ upscalers: UpscalerInfo[] }>(await this.get("/upscalers"))).upscalers;
  }

  async planPull(source: string): Promise<PullPlan> {
    return this.json(await this.askForPull({ source, dry_run: true }));
  }

  async pull(source: string, name?: string): Promise<Pull> {
    return this.json(await this.askForPull({ source, name }));
  }

  private askForPull(asked: { source: string; name?: string | undefined; dry_run?: boolean }) {
    const body = JSON.stringify(asked);
    const init = { method: "POST", body, headers: JSON_BODY };
    return request(this.fetcher, `${this.base}/models/pull`, init, PLAN_TIMEOUT_MS);
  }

  async pulls(): Promise<Pull[]> {
    return (await this.json<{ pulls: Pull[] }>(await this.get("/pulls"))).pulls;
  }

  async stopPull(id: string): Promise<void> {
    await this.sendUnlessGone(`/pulls/${encodeURIComponent(id)}`);
  }

  async deleteModel(kind: ModelKind, name: string): Promise<void> {
    await this.sendUnlessGone(`/${kind}/${encodeURIComponent(name)}`);
  }

  async submit(task: Task, asked: PictureRequest, files: RequestFiles, key: string): Promise<Job> {
    const { body, headers } = encode(asked, files);
    const response = await this.send("POST", `/${task}`, {
      body,
      headers: {
        ...headers,
        accept: "application/json",
        prefer: "respond-async",
        "idempotency-key": key,
      },
    });
    return this.json(response);
  }

  async job(id: string): Promise<Job> {
    return this.json(await this.get(`/jobs/${encodeURIComponent(id)}`));
  }

  async jobs(
    cursor: string | null = null,
    limit = 20,
    client: string | null = null,
  ): Promise<JobPage> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (cursor !== null) query.set("cursor", cursor);
    if (client !== null) query.set("client_id", client);
    return this.json(await this.get(`/jobs?${query}`));
  }

  async cancel(id: string): Promise<Job> {
    return this.json(await this.send("DELETE", `/jobs/${encodeURIComponent(id)}`));
  }

  async deleteImage(id: string): Promise<void> {
    await this.sendUnlessGone(`/images/${encodeURIComponent(id)}`);
  }

  /** Deletes what may be deleted already, perhaps by an earlier try whose answer was lost. */
  private async sendUnlessGone(path: string): Promise<void> {
    try {
      await this.send("DELETE", path);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) throw error;
    }
  }

  async explain(jobId: string, index: number): Promise<Explanation> {
    return this.json(await this.get(`/jobs/${encodeURIComponent(jobId)}/explain?index=${index}`));
  }

  async decode(file: Blob): Promise<Blob> {
    const body = new FormData();
    body.append("image", file);
    const headers = { accept: "image/jpeg" };
    return (await this.send("POST", "/decode", { body, headers })).blob();
  }

  async image(id: string): Promise<Blob> {
    return (await this.get(`/images/${encodeURIComponent(id)}`)).blob();
  }

  imageUrl(id: string, width?: number): string {
    const size = width === undefined ? "" : `?w=${width}`;
    return `${this.base}/images/${encodeURIComponent(id)}${size}`;
  }

  timelineUrl(jobId: string): string {
    return `${this.base}/jobs/${encodeURIComponent(jobId)}/timeline`;
  }

  watchJob(jobId: string, handlers: EventHandlers, lastEventId: number | null = null): Watching {
    const url = `${this.base}/jobs/${encodeURIComponent(jobId)}/events`;
    return watchEvents(url, this.heard(handlers), lastEventId);
  }

  watchAll(handlers: EventHandlers): Watching {
    return watchEvents(`${this.base}/events`, this.heard(handlers));
  }

  /** The body of an answer, which only a Darkroom server gives. */
  private async json<Body>(response: Response): Promise<Body> {
    const body = await json<Body>(response);
    this.onAnswer();
    return body;
  }

  private heard(handlers: EventHandlers): EventHandlers {
    return {
      ...handlers,
      onOpen: () => {
        this.onAnswer();
        handlers.onOpen?.();
      },
    };
  }

  private get(path: string): Promise<Response> {
    return request(this.fetcher, this.base + path);
  }

  private send(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const slow = init.body instanceof FormData;
    const limit = slow ? UPLOAD_TIMEOUT_MS : undefined;
    return request(this.fetcher, this.base + path, { method, ...init }, limit);
  }
}

const JSON_BODY = { "content-type": "application/json" };

function devicePath(device: string): string {
  return `/devices/${encodeURIComponent(device)}`;
}

/** The body of a request: JSON, or a form if there are files. In a form, lists are JSON. */
function encode(
  asked: PictureRequest,
  files: RequestFiles,
): { body: BodyInit; headers: Record<string, string> } {
  if (!files.image && !files.mask_image && !files.references) {
    return { body: JSON.stringify(asked), headers: { "content-type": "application/json" } };
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(asked)) {
    if (value === null || value === undefined) continue;
    form.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  if (files.image) form.set("image", files.image, "image");
  if (files.mask_image) form.set("mask_image", files.mask_image, "mask.png");
  // Numbered, because a form has no order between text and files.
  files.references?.forEach((picture, index) => {
    const name = `references[${index}]`;
    if (picture instanceof Blob) form.set(name, picture, "image");
    else form.set(name, picture);
  });
  return { body: form, headers: {} };
}
