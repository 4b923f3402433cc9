import { expect, it } from "vitest";
import { fileName } from "../../src/lib/file-name";
import type { Job, Picture } from "../../src/lib/transport/types";

function name(prompt: string, content_type = "image/png"): string {
  return fileName({ request: { prompt } } as unknown as Job, { seed: 7, content_type } as Picture);
}

it("says what is in the picture, in letters that every file system takes", () => {
  expect(name("A red fox, on a hill!")).toBe("a-red-fox-on-a-hill-7.png");
  expect(name("Con mèo đỏ")).toBe("con-meo-do-7.png");
  expect(name("../../etc/passwd")).toBe("etc-passwd-7.png");
});

it("says how much larger a picture was made", () => {
  const job = { task: "upscale", request: { image: "image:a-0", scale: 2 } } as unknown as Job;
  expect(fileName(job, { seed: 0, content_type: "image/png" } as Picture)).toBe("upscaled-2.png");
});

it("has a name also without words", () => {
  expect(name("")).toBe("darkroom-7.png");
  expect(name("狐狸", "image/jpeg")).toBe("darkroom-7.jpg");
});
