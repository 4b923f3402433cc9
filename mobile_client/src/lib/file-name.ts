/** File names of saved pictures. */

import type { Job, Picture } from "./transport/types";

/** Like `red-fox-on-a-hill-7.png`: the beginning of the prompt, and the seed. */
export function fileName(job: Job, picture: Picture): string {
  const words = String(job.request.prompt ?? "")
    .normalize("NFD")
    .replace(/\p{Diacritic}/gu, "")
    .replace(/đ/gi, "d")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 40)
    .replace(/^-+|-+$/g, "");
  const extension = picture.content_type.replace("image/", "").replace("jpeg", "jpg");
  return `${words || "darkroom"}-${picture.seed}.${extension}`;
}
