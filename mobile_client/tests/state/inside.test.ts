import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Pixels } from "../../src/lib/inside/sameness";
import { ExplanationStore } from "../../src/lib/inside/store";
import { Catalog } from "../../src/lib/state/catalog";
import { GalleryState } from "../../src/lib/state/gallery";
import { Inside } from "../../src/lib/state/inside";
import { MemoryKeyValue, MemoryPreferences } from "../../src/lib/storage";
import { Problem, Unreachable } from "../../src/lib/transport/http";
import type { Job } from "../../src/lib/transport/types";
import { explained, FakeApi, job, MODEL, picture, settle } from "../fakes";

const ID = "made-0";

let api: FakeApi;
let preferences: MemoryPreferences;
let disk: MemoryKeyValue;
let troubles: unknown[];
let pixels: Record<string, number[]>;

beforeEach(() => {
  vi.useFakeTimers();
  api = new FakeApi();
  preferences = new MemoryPreferences();
  disk = new MemoryKeyValue();
  troubles = [];
  pixels = {};
});

afterEach(() => {
  vi.useRealTimers();
});

/** The app, opened (again) on the same phone. */
async function open(known?: Catalog): Promise<Inside> {
  const catalog = known ?? new Catalog(api, preferences);
  if (!known) await catalog.load();
  return new Inside({
    api,
    preferences,
    store: new ExplanationStore(preferences, disk),
    catalog,
    gallery: new GalleryState(api),
    pixelsOf: async (file): Promise<Pixels> => {
      const data = new Uint8ClampedArray(pixels[await file.text()] ?? []);
      return { width: 1, height: data.length / 4, data };
    },
    onTrouble: (error) => troubles.push(error),
  });
}

/** A picture on the server, of a job that has ended. */
function make(request: Record<string, unknown> = {}, change: Partial<Job> = {}): void {
  const all = { prompt: "a fox", model: "tintype", num_images: 1, seed: 7, ...request };
  api.kept.set("made", job("made", { request: all, status: "succeeded", ...change }));
  const images = [{ ...picture("made"), seed: 9 }];
  api.update("made", { images, ...change });
}

/** The job that makes it again. */
function copy(): Job {
  const found = [...api.kept.values()].at(-1);
  if (!found || found.id === "made") throw new Error("it is not made again");
  return found;
}

async function passes(ms = 1_000): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  await settle();
}

test("a picture that was made with an explanation shows it, and keeps it for later", async () => {
  make({ explain: true });
  const look = (await open()).look(ID);
  await look.open();
  expect(look.state.value).toMatchObject({
    status: "ready",
    kept: { pictureId: ID, prompt: "a fox", explained: explained(0), sameness: null },
  });

  api.unplug();
  const later = (await open()).look(ID);
  await later.open();
  expect(later.state.value).toMatchObject({ status: "ready", kept: { prompt: "a fox" } });
});

test("one without is made again: its seed, alone and exact, and nobody is called for it", async () => {
  make({ num_images: 4, webhook: "http://box/hook", scheduler: "ddim" });
  const look = (await open()).look(ID);
  await look.open();
  expect(look.state.value).toEqual({ status: "absent" });

  void look.again();
  await settle();

  expect(api.submissions[0]?.task).toBe("txt2img");
  expect(api.submissions[0]?.request).toEqual({
    ...{ prompt: "a fox", model: "tintype", scheduler: "ddim" },
    ...{ seed: 9, num_images: 1, exact: true, explain: true },
  });
  expect(look.state.value).toMatchObject({ status: "making", job: { status: "queued" } });
  api.update(copy().id, { status: "running", progress: { step: 5, steps: 20 } });
  await passes();
  expect(look.state.value).toMatchObject({ status: "making", job: { progress: { step: 5 } } });
});

test("the copy is compared, and deleted once the explanation is kept", async () => {
  make();
  const inside = await open();
  const look = inside.look(ID);
  await look.open();
  void look.again();
  await settle();
  api.finish(copy().id);
  await passes();

  expect(look.state.value).toMatchObject({
    status: "ready",
    kept: { sameness: { kind: "bytes" } },
  });
  expect(new ExplanationStore(preferences, disk).has(ID)).toBe(true);
  expect(api.deleted).toEqual([`${copy().id}-0`]);
});

test.each([
  ["within 1/255: the old picture is shown", [10, 20, 31, 255], 1, "old"],
  [
    "different: the new picture is shown, for it is the one explained",
    [90, 20, 30, 255],
    80,
    "new",
  ],
])("a copy that is %s", async (_, copied, most, shown) => {
  make();
  pixels = { old: [10, 20, 30, 255], new: copied };
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  api.files.set(ID, "old").set(`${copy().id}-0`, "new");
  api.finish(copy().id);
  await passes();

  const found = look.state.value;
  if (found.status !== "ready") throw new Error(found.status);
  expect(found.kept.sameness).toEqual({ kind: "pixels", most });
  expect(await found.kept.picture.text()).toBe(shown);
});

test("it goes on after the app was closed meanwhile", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  api.finish(copy().id);

  const inside = await open();
  await inside.resume();

  expect(inside.look(ID).state.value).toMatchObject({ status: "ready" });
  expect(api.submissions).toHaveLength(1);
  expect(api.deleted).toEqual([`${copy().id}-0`]);
});

test("it goes on while another screen is open", async () => {
  make();
  const inside = await open();
  const look = inside.look(ID);
  await look.open();
  void look.again();
  await settle();
  inside.leave(ID);
  api.finish(copy().id);
  await passes();
  expect(inside.look(ID).state.value).toMatchObject({ status: "ready" });
});

test("a connection that breaks is waited for", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  api.unplug();
  await passes(5_000);
  expect(look.state.value).toMatchObject({ status: "making" });
  expect(troubles.length).toBeGreaterThan(0);

  api.plugIn();
  api.finish(copy().id);
  await passes(5_000);
  expect(look.state.value).toMatchObject({ status: "ready" });
});

test("asked for twice because the answer was lost, it is made once", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  api.unplug();
  await look.again();
  expect(look.state.value).toEqual({ status: "trouble", trouble: { kind: "offline" } });

  api.plugIn();
  await look.open();
  void look.again();
  await settle();
  const keys = new Set(api.submissions.map(({ key }) => key));
  expect(keys.size).toBe(1);
});

test("cancelled, it can be asked for again", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  await look.cancel();
  expect(look.state.value).toEqual({ status: "absent" });
  expect(copy().status).toBe("cancelled");

  void look.again();
  await passes();
  expect(look.state.value).toMatchObject({ status: "making" });
  expect(api.submissions[0]?.key).not.toBe(api.submissions[1]?.key);
});

test("a job that failed says why", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  const error = { type: "urn:darkroom:problem:out-of-memory", title: "No", detail: "no memory" };
  api.update(copy().id, { status: "failed", error: error as Job["error"] });
  await passes();
  expect(look.state.value).toMatchObject({
    status: "trouble",
    trouble: { kind: "problem", problem: { detail: "no memory" } },
  });
});

test("a copy that came without an explanation says so, and can be asked for again", async () => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  void look.again();
  await settle();
  api.finish(copy().id);
  api.update(copy().id, { request: {} });
  await passes();
  expect(look.state.value).toMatchObject({
    status: "trouble",
    trouble: { problem: { type: "urn:darkroom:problem:no-explanation" } },
  });
  await look.open();
  expect(look.state.value).toEqual({ status: "absent" });
});

test("without the server, and nothing kept", async () => {
  api.unplug();
  const look = (await open()).look(ID);
  await look.open();
  expect(look.state.value).toEqual({ status: "trouble", trouble: { kind: "offline" } });

  api.plugIn();
  make();
  await look.open();
  expect(look.state.value).toEqual({ status: "absent" });
});

test("a job that is gone, and one whose picture was deleted", async () => {
  const look = (await open()).look(ID);
  await look.open();
  expect(look.state.value).toEqual({ status: "trouble", trouble: { kind: "gone" } });

  make({}, { images: [] });
  const other = (await open()).look(ID);
  await other.open();
  expect(other.state.value).toEqual({ status: "trouble", trouble: { kind: "gone" } });
});

test("a model that cannot, and one that the server no longer has", async () => {
  const fields = MODEL.fields.filter((name) => name !== "explain");
  api.list.push({ ...MODEL, name: "plain", fields });
  make({ model: "plain" });
  const look = (await open()).look(ID);
  await look.open();
  expect(look.state.value).toEqual({
    status: "trouble",
    trouble: { kind: "cannot", model: "plain" },
  });

  make({ model: "sold" });
  const other = (await open()).look(ID);
  await other.open();
  expect(other.state.value).toEqual({
    status: "trouble",
    trouble: { kind: "model-gone", model: "sold" },
  });
});

test("that a model is gone shows once the server has told its models", async () => {
  make({ model: "sold" });
  const models = vi.spyOn(api, "models").mockRejectedValueOnce(new Unreachable("late"));
  const catalog = new Catalog(api, preferences);
  await catalog.load();
  const look = (await open(catalog)).look(ID);
  await look.open();
  expect(look.state.value).toEqual({ status: "absent" });

  await catalog.load();
  await look.open();
  expect(models).toHaveBeenCalledTimes(2);
  expect(look.state.value).toMatchObject({ trouble: { kind: "model-gone" } });
});

test.each([
  ["#/explain", "field_not_taken", { kind: "cannot", model: "" }],
  ["#/model", "unknown_model", { kind: "model-gone", model: "sold" }],
])("the server's refusal at %s is understood", async (pointer, code, trouble) => {
  make();
  const look = (await open()).look(ID);
  await look.open();
  const errors = [{ pointer, detail: "no", code, values: { name: "sold" } }];
  vi.spyOn(api, "submit").mockRejectedValue(
    new Problem(422, "urn:darkroom:problem:validation", "No", "no", errors),
  );
  await look.again();
  expect(look.state.value).toMatchObject({ status: "trouble", trouble: { kind: trouble.kind } });
  if (trouble.model) expect(look.state.value).toMatchObject({ trouble });
});

test("an answer that is damaged is not kept", async () => {
  make({ explain: true });
  const { maps } = explained();
  const broken = explained(0, {
    maps: { ...maps, all_steps: { ...maps.all_steps, data: btoa("cut") } },
  });
  vi.spyOn(api, "explain").mockResolvedValue({ job_id: "made", images: [broken] });
  const inside = await open();
  const look = inside.look(ID);
  await look.open();
  expect(look.state.value).toMatchObject({ status: "trouble", trouble: { kind: "problem" } });
  expect(new ExplanationStore(preferences, disk).has(ID)).toBe(false);
});
