import type { Job } from "../lib/transport/types";

/** The id of the stored picture that a job started from. */
export function sourceOf(job: Job | undefined): string | undefined {
  const { image, references } = (job?.request ?? {}) as { image?: unknown; references?: unknown };
  const first = Array.isArray(references) ? references[0] : image;
  return typeof first === "string" ? /^image:(.+)$/.exec(first)?.[1] : undefined;
}
