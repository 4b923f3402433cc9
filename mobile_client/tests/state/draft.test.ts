import { beforeEach, expect, test } from "vitest";
import { Catalog } from "../../src/lib/state/catalog";
import { Draft } from "../../src/lib/state/draft";
import { MemoryKeyValue, MemoryPreferences } from "../../src/lib/storage";
import type { ModelInfo } from "../../src/lib/transport/types";
import { FakeApi, LORA, MODEL, settle } from "../fakes";

let catalog: Catalog;
let preferences: MemoryPreferences;
let pictures: MemoryKeyValue;
let draft: Draft;

const photo = new Blob(["photo"], { type: "image/jpeg" });
const mask = {
  picture: new Blob(["mask"], { type: "image/png" }),
  preview: "data:,",
  operations: [],
};

beforeEach(async () => {
  preferences = new MemoryPreferences();
  pictures = new MemoryKeyValue();
  catalog = new Catalog(new FakeApi(), preferences);
  await catalog.load();
  draft = new Draft(catalog, preferences, pictures);
});

test("what is attached decides the task", () => {
  expect(draft.task.value).toBe("txt2img");
  draft.setSource({ picture: photo, width: 128, height: 96 });
  expect(draft.task.value).toBe("img2img");
  draft.setMask(mask);
  expect(draft.task.value).toBe("inpaint");
  draft.setSource(null);
  expect(draft.task.value).toBe("txt2img");
  expect(draft.mask.value).toBeNull();
});

test("what was left alone is left to the server", () => {
  draft.set({ prompt: " a fox " });

  expect(draft.request()).toEqual({
    task: "txt2img",
    request: { prompt: "a fox", width: 128, height: 128 },
    files: {},
  });
});

test("everything that was chosen is sent", () => {
  draft.set({
    prompt: "a fox",
    negativePrompt: "rain",
    steps: 12,
    guidance: 5,
    scheduler: "euler_karras",
    count: 3,
    seed: 0,
    ratio: "3:4",
    loras: [{ name: "ink", scale: 0.5 }],
    clipSkip: 1,
    numbers: { guidance_rescale: 0.7 },
  });

  expect(draft.request().request).toEqual({
    prompt: "a fox",
    negative_prompt: "rain",
    num_inference_steps: 12,
    guidance_scale: 5,
    scheduler: "euler_karras",
    num_images: 3,
    seed: 0,
    width: 112,
    height: 144,
    loras: [{ name: "ink", scale: 0.5 }],
    clip_skip: 1,
    guidance_rescale: 0.7,
  });
});

test("a number at its usual value is not sent, and a model's change resets it", () => {
  draft.set({ prompt: "a fox", numbers: { guidance_rescale: 0 } });
  expect(draft.request().request).not.toHaveProperty("guidance_rescale");

  draft.remix({ prompt: "a fox", guidance_rescale: 0.4 });
  expect(draft.request().request).toMatchObject({ guidance_rescale: 0.4 });

  draft.setModel("tintype");
  expect(draft.request().request).not.toHaveProperty("guidance_rescale");
});

test("a photograph goes along as a file, a stored picture by its name", () => {
  draft.set({ prompt: "a fox" });
  draft.setSource({ picture: photo, width: 128, height: 96 });
  expect(draft.request()).toEqual({
    task: "img2img",
    request: { prompt: "a fox" },
    files: { image: photo },
  });

  draft.setSource({ picture: "job-1-0", width: 128, height: 96 });
  draft.set({ strength: 0.4 });
  expect(draft.request()).toEqual({
    task: "img2img",
    request: { prompt: "a fox", image: "image:job-1-0", strength: 0.4 },
    files: {},
  });
});

test("options of the mask are sent with a mask only", () => {
  draft.set({ prompt: "a fox", maskBlur: 4, maskPadding: 0, invertMask: true });
  expect(draft.request().request).not.toHaveProperty("mask_blur");

  draft.setSource({ picture: photo, width: 128, height: 128 });
  draft.setMask(mask);
  expect(draft.request()).toMatchObject({
    task: "inpaint",
    request: { mask_blur: 4, padding_mask_crop: 0, invert_mask: true },
    files: { image: photo, mask_image: mask.picture },
  });
});

test("an empty prompt, a bad seed and too little strength are seen before sending", () => {
  expect(draft.complaints.value).toMatchObject({ prompt: { key: "prompt" } });
  expect(draft.ready.value).toBe(false);
  draft.set({ prompt: "a fox", seed: 2 ** 32 });
  expect(draft.complaints.value).toEqual({ seed: { key: "seed" } });
  draft.set({ seed: Number.NaN });
  expect(draft.complaints.value).toEqual({ seed: { key: "seed" } });
  draft.set({ seed: null, steps: 5 });
  expect(draft.ready.value).toBe(true);

  draft.setSource({ picture: photo, width: 128, height: 128 });
  draft.set({ strength: 0.1 });
  expect(draft.complaints.value).toEqual({ strength: { key: "steps" } });
});

test("a model that cannot do the task is complained about", () => {
  draft.set({ prompt: "a fox" });
  draft.setSource({ picture: photo, width: 128, height: 128 });
  draft.setModel("large");

  expect(draft.complaints.value).toEqual({ model: { key: "task" } });
});

test("another model brings its own settings, and only the LoRAs that fit it", () => {
  draft.set({ steps: 99, size: { width: 128, height: 64 }, loras: [{ name: "ink", scale: 1 }] });
  draft.setModel("large");

  expect(draft.values.value).toMatchObject({ model: "large", steps: null, loras: [] });
  expect(draft.size.value).toEqual({ width: 1024, height: 1024 });
});

test("the server's findings stand at the fields they name, until something changes", () => {
  draft.set({ prompt: "a fox" });
  draft.refuse([{ pointer: "#/num_inference_steps", detail: "too many" }], "no");
  expect(draft.complaints.value).toEqual({ steps: { text: "too many" } });
  draft.refuse([{ pointer: "#/loras/0/name", detail: "unknown" }], "no");
  expect(draft.complaints.value).toEqual({ loras: { text: "unknown" } });
  draft.refuse([], "the disk is full");
  expect(draft.complaints.value).toEqual({ other: { text: "the disk is full" } });

  draft.set({ prompt: "an owl" });
  expect(draft.complaints.value).toEqual({});
});

test("remix brings back every setting, with the stored source and mask", () => {
  const request = {
    prompt: "a fox",
    negative_prompt: "rain",
    width: 144,
    height: 112,
    num_inference_steps: 12,
    guidance_scale: 4,
    scheduler: "euler",
    num_images: 2,
    seed: 5,
    model: "tintype",
    loras: [],
    image: "image:up-1",
    mask_image: "image:up-2",
    strength: 0.5,
    mask_blur: 3,
    invert_mask: true,
  };
  draft.remix(request);

  expect(draft.request()).toEqual({
    task: "inpaint",
    request: (({ loras: _, ...sent }) => sent)(request),
    files: {},
  });
});

test("a remix sends the hashes of the files that made the picture, once", () => {
  draft.remix({ prompt: "a fox", seed: 5, model_hash: "ab12", lora_hashes: "ink: 0123456789ab" });
  expect(draft.request().request.model_hash).toBe("ab12");
  expect(draft.request().request.lora_hashes).toBeUndefined(); // there is no LoRA to compare

  draft.set({ loras: [{ name: "ink", scale: 1 }] });
  expect(draft.request().request.lora_hashes).toBe("ink: 0123456789ab");

  draft.forgetSeed();
  expect(draft.request().request.model_hash).toBeUndefined();
  expect(draft.request().request.lora_hashes).toBeUndefined();
});

test("a remix says whether the model's file has changed", async () => {
  const listed = { ...MODEL, sha256: "ab12cd" };
  const api = new FakeApi();
  api.list[0] = listed;
  catalog = new Catalog(api, preferences);
  await catalog.load();
  draft = new Draft(catalog, preferences, pictures);
  const remixed = (model_hash?: string) => {
    draft.remix({ prompt: "a fox", seed: 5, ...(model_hash && { model_hash }) });
    return draft.modelChanged.value;
  };

  expect(remixed("ab12cd")).toBe(false);
  expect(remixed("ab12")).toBe(false);
  expect(remixed()).toBe(false);
  expect(remixed("ffff")).toBe(true);
  draft.set({ model: listed.name }); // as a preset does
  expect(draft.modelChanged.value).toBe(false);
});

test("the form and its pictures outlive the page", async () => {
  draft.set({ prompt: "a fox", steps: 9 });
  draft.setSource({ picture: photo, width: 128, height: 96 });
  draft.setMask(mask);
  await settle();

  const next = new Draft(catalog, preferences, pictures);
  await next.restore();

  expect(next.values.value).toMatchObject({ prompt: "a fox", steps: 9 });
  expect(next.source.value).toEqual({ picture: photo, width: 128, height: 96 });
  expect(next.mask.value).toEqual(mask);
});

test("a LoRA for few steps brings its defaults, and what a picture had is taken over", async () => {
  const api = new FakeApi();
  const defaults = { num_inference_steps: 4, guidance_scale: 0, scheduler: "lcm" };
  api.adapters.push({ ...LORA, name: "lcm", models: [MODEL.name], defaults });
  catalog = new Catalog(api, preferences);
  await catalog.load();
  draft = new Draft(catalog, preferences, pictures);
  const model = catalog.model(null) as ModelInfo;
  const loras = [{ name: "lcm", scale: 1 }];
  draft.set({ prompt: "a fox", loras });

  expect(draft.defaults(model)).toMatchObject(defaults);
  expect(draft.request().request.num_inference_steps).toBeUndefined();

  const { num_inference_steps, guidance_scale, scheduler } = MODEL.defaults;
  draft.remix({ prompt: "a fox", loras, num_inference_steps, guidance_scale, scheduler });
  expect(draft.request().request).toMatchObject({ num_inference_steps, guidance_scale, scheduler });

  draft.remix({ prompt: "a fox", loras, ...defaults });
  expect(draft.values.value).toMatchObject({ steps: null, guidance: null, scheduler: null });

  draft.set({ loras: [{ name: "lcm", scale: 0 }] });
  expect(draft.defaults(model)).toBe(model.defaults);
});

test("reset to defaults keeps the prompt", () => {
  draft.set({ prompt: "a fox", negativePrompt: "rain", steps: 3, seed: 1, ratio: "16:9" });
  draft.resetSettings();

  expect(draft.values.value).toMatchObject({
    prompt: "a fox",
    negativePrompt: "rain",
    steps: null,
    seed: null,
    ratio: "1:1",
  });
});

const cat = { picture: photo, width: 128, height: 96 };
const hat = { picture: "job-1-0", width: 64, height: 64 };
const sofa = { picture: "job-2-0", width: 64, height: 64 };

function startEdit(): void {
  draft.setModel("editor");
  draft.set({ prompt: "the cat wears the hat" });
  draft.setSource(cat);
}

test("a model that edits is sent its pictures as references", () => {
  startEdit();
  expect(draft.task.value).toBe("edit");
  expect(draft.ready.value).toBe(true);
  expect(draft.request()).toEqual({
    task: "edit",
    request: { prompt: "the cat wears the hat", model: "editor" },
    files: { references: [photo] },
  });

  draft.addReference(hat);
  expect(draft.request().files).toEqual({ references: [photo, "image:job-1-0"] });

  draft.setSource(sofa);
  expect(draft.request()).toMatchObject({
    request: { references: ["image:job-2-0", "image:job-1-0"] },
    files: {},
  });
});

test("an edit has as many pictures as its model takes", () => {
  startEdit();
  expect(draft.roomForReference.value).toBe(true);
  draft.addReference(hat);
  draft.addReference(sofa);
  expect(draft.roomForReference.value).toBe(false);

  draft.setModel("tintype");
  expect(draft.task.value).toBe("img2img");
  expect(draft.references.value).toEqual([]);
  expect(draft.request().request).not.toHaveProperty("references");

  draft.setModel("editor");
  draft.removeReference(hat);
  expect(draft.references.value).toEqual([sofa]);
  expect(draft.roomForReference.value).toBe(true);
});

test("when the first picture of an edit goes, the next takes its place", () => {
  startEdit();
  draft.addReference(hat);

  draft.removeSource();
  expect(draft.source.value).toEqual(hat);
  expect(draft.references.value).toEqual([]);

  draft.removeSource();
  expect(draft.task.value).toBe("txt2img");
});

test("a photo is placed where it was picked for", () => {
  startEdit();
  draft.pick(new Blob(["hat"]), true);
  draft.place(hat);
  expect(draft.references.value).toEqual([hat]);
  expect(draft.photo.value).toBeNull();

  draft.pick(new Blob(["sofa"]));
  draft.place(sofa);
  expect(draft.source.value).toEqual(sofa);
  expect(draft.references.value).toEqual([hat]);
});

test("the pictures of an edit are there after a reload, and in a remix", async () => {
  startEdit();
  draft.addReference(hat);
  const restored = new Draft(catalog, preferences, pictures);
  await restored.restore();
  expect(restored.request().files).toEqual({ references: [photo, "image:job-1-0"] });

  const request = {
    prompt: "the cat wears the hat",
    model: "editor",
    width: 128,
    height: 96,
    references: ["image:up1", "image:up2"],
  };
  draft.remix(request);
  expect(draft.task.value).toBe("edit");
  expect(draft.request()).toEqual({ task: "edit", request, files: {} });
});

test("the server's word on a reference stands at the picture", () => {
  startEdit();
  draft.refuse([{ pointer: "#/references/1", detail: "is no picture" }], "");
  expect(draft.complaints.value).toEqual({ image: { text: "is no picture" } });
});

test("what the model does not take is not sent, and kept for one that does", async () => {
  const api = new FakeApi();
  api.list.push({ ...MODEL, name: "distilled", fields: ["model", "width", "height"] });
  await new Catalog(api, preferences).load();
  draft = new Draft(new Catalog(api, preferences), preferences, pictures);
  draft.set({ prompt: "a fox", negativePrompt: "rain", numbers: { guidance_rescale: 0.5 } });

  draft.set({ model: "distilled" });
  expect(draft.takes("negative_prompt")).toBe(false);
  expect(draft.request().request).toEqual({
    prompt: "a fox",
    model: "distilled",
    width: 128,
    height: 128,
  });

  draft.set({ model: "tintype" });
  expect(draft.request().request).toMatchObject({ negative_prompt: "rain", guidance_rescale: 0.5 });
});

test("a catalog kept from an older server refuses nothing", () => {
  const { fields: _, ...older } = MODEL;
  preferences.set("catalog", { models: [older], schedulers: [], loras: [] });
  draft = new Draft(new Catalog(new FakeApi(), preferences), preferences, pictures);

  expect(draft.takes("negative_prompt")).toBe(true);
});

test("a remix's seed serves one request; one that somebody set stays", () => {
  draft.remix({ prompt: "a fox", seed: 9 });
  expect(draft.request().request.seed).toBe(9);
  draft.forgetSeed();
  expect(draft.values.value.seed).toBeNull();

  draft.set({ seed: 5, seedOnce: false });
  draft.forgetSeed();
  expect(draft.values.value.seed).toBe(5);
});

test("a remix's mask is where painting goes on", () => {
  draft.remix({
    prompt: "a hat",
    image: "image:a-0",
    mask_image: "image:m",
    width: 128,
    height: 96,
  });

  expect(draft.mask.value).toMatchObject({ picture: "m", base: "m", operations: [] });
});

test("strokes without a mask outlive the page, and go with the picture", async () => {
  const strokes = [{ kind: "invert" }] as const;
  draft.setSource({ picture: photo, width: 128, height: 96 });
  draft.setStrokes(strokes);
  const next = new Draft(catalog, preferences, pictures);
  await next.restore();
  expect(next.strokes.value).toEqual(strokes);

  next.setSource(null);
  expect(next.strokes.value).toBeNull();
});

test("what was removed is put back, with the words that were written since", () => {
  const source = { picture: photo, width: 128, height: 96 };
  draft.setSource(source);
  draft.setMask(mask);
  draft.set({ strength: 0.4 });
  const before = draft.start();
  draft.removeSource();
  draft.set({ prompt: "new words" });

  draft.putBack(before);

  expect(draft.source.value).toBe(source);
  expect(draft.mask.value).toBe(mask);
  expect(draft.values.value).toMatchObject({ strength: 0.4, prompt: "new words" });
});

test("a photo is cropped again from itself", () => {
  const crop = { ratio: 1, turns: 0, part: { x: 0, y: 0, width: 9, height: 9 } } as const;
  const original = { photo: new Blob(["large"]), crop };
  draft.pickAgain({ picture: photo, width: 128, height: 96, original });

  expect(draft.photo.value).toBe(original.photo);
  expect(draft.cropping).toBe(crop);
  draft.pick(photo);
  expect(draft.cropping).toBeNull();
});

test("a model that is gone from the server is shown, and can be left", () => {
  draft.set({ prompt: "a fox", model: "deleted" });
  expect(draft.missing.value).toBe("deleted");

  draft.resetSettings();

  expect(draft.missing.value).toBeNull();
  expect(draft.request().request).not.toHaveProperty("model");
});

test("a remix of a part of a picture does not take the part's size for the picture's", () => {
  const asked = { prompt: "a fox", width: 1024, height: 1024, image: "image:a-0" };
  draft.remix({ ...asked, mask_image: "image:b-0", padding_mask_crop: 32 });
  expect(draft.request().request).not.toHaveProperty("width");

  draft.remix({ ...asked, mask_image: "image:b-0" });
  expect(draft.request().request).toMatchObject({ width: 1024, height: 1024 });
});
