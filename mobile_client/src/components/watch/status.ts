import type { Watched } from "../../lib/state/jobs";
import type { Job } from "../../lib/transport/types";
import { duration, t } from "../../strings";

/** The status of a job in a few words. */
export function statusText(job: Job): string {
  switch (job.status) {
    case "queued":
      if (job.position === null) return t("watch.starting");
      return job.position > 0 ? t("watch.ahead", { count: job.position }) : t("watch.next");
    case "running":
      if (job.progress.step === 0) return t("watch.starting");
      return stepText(job);
    case "succeeded":
      return t("watch.done");
    case "failed":
      return t("watch.failed");
    case "cancelled":
      return t("watch.cancelled");
  }
}

/** How many pictures a job makes. */
export function picturesOf(job: Job): number {
  return Number(job.request.num_images) || 1;
}

/** The step of each picture: the server counts those of all pictures of the job together. */
function stepText(job: Job): string {
  const count = picturesOf(job);
  const [step, steps] = [job.progress.step, job.progress.steps].map((all) =>
    Math.ceil(all / count),
  );
  const text = t("watch.step", { step: step ?? 0, steps: steps ?? 0 });
  return count > 1 ? `${text} · ${t("watch.pictures", { count })}` : text;
}

/**
 * The estimated time left, or that the job takes longer than that. Null without an estimate, and
 * while the server does not answer: nothing is known then.
 */
export function etaText(eta: Watched["eta"], now: number, open: boolean): string | null {
  if (!eta || !open) return null;
  const left = eta.seconds - (now - eta.at) / 1000;
  if (left > 0) return t("watch.eta", { time: duration(left) });
  return left > -3 ? null : t("watch.late");
}
