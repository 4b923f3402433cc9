/** File names of saved pictures. */

import { titleOf } from "../strings";
import type { Job, Picture } from "./transport/types";

/** Like `red-fox-on-a-hill-7.png`: the beginning of the title, and the seed if there is one. */
export function fileName(job: Job, picture: Picture): string {
  const words = titleOf(job.request)
    .normalize("NFD")
    .replace(/\p{Diacritic}/gu, "")
    .replace(/đ/gi, "d")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 40)
    .replace(/^-+|-+$/g, "");
  const extension = picture.content_type.replace("image/", "").replace("jpeg", "jpg");
  const seed = job.task === "upscale" ? "" : `-${picture.seed}`;
  return `${words || "darkroom"}${seed}.${extension}`;
}
