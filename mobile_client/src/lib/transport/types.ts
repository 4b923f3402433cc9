/** Types of the API, from its OpenAPI document. */

import type { paths } from "./schema";

type Json<Answer> = Answer extends { content: { "application/json": infer Body } } ? Body : never;
type Body<Path extends "/txt2img" | "/img2img" | "/inpaint" | "/edit" | "/upscale"> = NonNullable<
  paths[Path]["post"]["requestBody"]
>["content"]["application/json"];

export type Job = Json<paths["/jobs/{job_id}"]["get"]["responses"]["200"]>;
export type JobPage = Json<paths["/jobs"]["get"]["responses"]["200"]>;
export type Picture = Job["images"][number];
export type Task = Job["task"];
export type JobStatus = Job["status"];

export type ModelInfo = Json<paths["/models"]["get"]["responses"]["200"]>["models"][number];
export type ModelLimits = ModelInfo["limits"];
export type ModelDefaults = ModelInfo["defaults"];
export type SchedulerInfo = Json<
  paths["/schedulers"]["get"]["responses"]["200"]
>["schedulers"][number];
export type LoraInfo = Json<paths["/loras"]["get"]["responses"]["200"]>["loras"][number];
export type UpscalerInfo = Json<
  paths["/upscalers"]["get"]["responses"]["200"]
>["upscalers"][number];

/** What a download to the server would be. */
export type PullPlan = Json<paths["/models/pull"]["post"]["responses"]["200"]>;
/** A download to the server. */
export type Pull = Json<paths["/models/pull"]["post"]["responses"]["202"]>;
/** What an owner may delete. */
export type ModelKind = "models" | "loras" | "upscalers";

/** What one picture looks like inside, and all of a job's. */
export type Explanation = Json<paths["/jobs/{job_id}/explain"]["get"]["responses"]["200"]>;
export type Explained = Explanation["images"][number];
export type TokenKind = Explained["tokens"][number]["kind"];
export type MapName = keyof Explained["maps"];
export type MapArray = Explained["maps"]["all_steps"];

type Fields = Partial<
  Body<"/txt2img"> & Body<"/img2img"> & Body<"/inpaint"> & Body<"/edit"> & Body<"/upscale">
>;
type WholeLora = NonNullable<Fields["loras"]>[number];

/** A LoRA of a request; without a `text_scale`, `scale` counts for the text encoders too. */
export type Lora = Omit<WholeLora, "text_scale"> & Partial<Pick<WholeLora, "text_scale">>;

/** The fields of all tasks; each task takes some of them. */
export type PictureRequest = Omit<Fields, "loras"> & { loras?: Lora[] };

/** Files sent with a request. */
export interface RequestFiles {
  image?: Blob;
  mask_image?: Blob;
  /** All of an edit's pictures in order, the stored ones as text, if one of them is a file. */
  references?: readonly (Blob | string)[];
}

/** What the server says in English, with a code and values for those who translate it. */
export interface Coded {
  code?: string | null;
  values?: Readonly<Record<string, string | number>>;
}

export interface FieldError extends Coded {
  pointer: string;
  detail: string;
}

/** Who this device is to the server. */
export type Me = Json<paths["/me"]["get"]["responses"]["200"]>;

/** A device that was let in, with what it made; for owners. */
export type Device = Json<paths["/devices"]["get"]["responses"]["200"]>["devices"][number];

/** A pairing code: for a new device, or for another token of one that is known. */
export type Invitation = Json<paths["/pair/codes"]["post"]["responses"]["201"]>;

export interface Size {
  width: number;
  height: number;
}

const TERMINAL: readonly JobStatus[] = ["succeeded", "failed", "cancelled"];

export function isOver(status: JobStatus): boolean {
  return TERMINAL.includes(status);
}
