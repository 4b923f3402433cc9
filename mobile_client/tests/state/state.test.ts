import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { State } from "../../src/lib/state";
import { type Place, Router } from "../../src/lib/state/route";
import { MemoryKeyValue, MemoryPreferences } from "../../src/lib/storage";
import { FakeApi, settle } from "../fakes";

/** The browser's address, without the browser. */
class FakePlace implements Place {
  location = { hash: "" };
  history = {
    length: 1,
    back: () => {},
    replaceState: (_: unknown, __: string, url?: string | URL | null) => {
      this.location.hash = String(url);
    },
  };
  addEventListener(): void {}
}

let api: FakeApi;
let preferences: MemoryPreferences;
let pictures: MemoryKeyValue;
let unsent: MemoryKeyValue;
let shown: string[];
let hidden: boolean;
let erased: number;

function open(place = new FakePlace()): State {
  return new State({
    api,
    route: new Router(place),
    preferences,
    pictures,
    unsent,
    explanations: new MemoryKeyValue(),
    notifier: {
      supported: true,
      allow: async () => true,
      show: async (title) => void shown.push(title),
    },
    erase: async () => {
      erased += 1;
    },
    hidden: () => hidden,
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("navigator", { languages: ["en"] });
  api = new FakeApi();
  preferences = new MemoryPreferences();
  preferences.set("language", "en");
  pictures = new MemoryKeyValue();
  unsent = new MemoryKeyValue();
  shown = [];
  hidden = false;
  erased = 0;
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("from the tap to the picture", async () => {
  const state = open();
  await state.start();
  state.draft.set({ prompt: "a fox" });
  await state.develop();
  await settle();
  expect(state.route.current.value).toEqual({ screen: "job", id: "job-1" });
  expect(state.history.entries.value).toEqual([{ prompt: "a fox", negativePrompt: "" }]);

  api.finish("job-1");
  await state.jobs.focus("job-1");
  expect(state.jobs.get("job-1")?.job.status).toBe("succeeded");
  expect(state.toasts.shown.value).toEqual([]); // it is on screen; nothing to say
});

test("asked for without a network, made when there is one", async () => {
  const state = open();
  await state.start();
  api.unplug();
  state.draft.set({ prompt: "a fox" });
  await state.develop();
  await settle();
  expect(state.server.reach.value).toBe("unreachable");
  expect(state.outbox.entries.value).toHaveLength(1);

  api.plugIn();
  await state.wake();
  await settle();
  expect(state.route.current.value).toEqual({ screen: "job", id: "job-1" });
});

test("a page that was killed while offline sends it when it is opened again", async () => {
  const first = open();
  await first.start();
  api.unplug();
  first.draft.set({ prompt: "a fox" });
  await first.develop();
  await settle();

  api.plugIn();
  const next = open();
  await next.start();
  await settle();

  expect(api.submissions).toHaveLength(1);
  expect(next.jobs.active.value).toEqual(["job-1"]);
});

test("a picture that is ready while the page is hidden is notified if that is wanted", async () => {
  const state = open();
  await state.start();
  await state.settings.setNotifications(true);
  state.draft.set({ prompt: "a fox" });
  await state.develop();
  await settle();
  hidden = true;
  api.finish("job-1");
  await state.jobs.resume();
  await settle();

  expect(shown).toEqual(["Your picture is ready"]);
});

test("the server's refusal leads back to the form, with its message at the field", async () => {
  const state = open();
  await state.start();
  state.draft.set({ prompt: "a fox" });
  api.refuse(422, { errors: [{ pointer: "#/prompt", detail: "not this word" }] });
  await state.develop();
  await settle();
  const [entry] = state.outbox.entries.value;
  if (!entry) throw new Error("nothing was kept");

  state.amend(entry);

  expect(state.route.current.value).toEqual({ screen: "create" });
  expect(state.draft.complaints.value).toEqual({ prompt: { text: "not this word" } });
  expect(state.outbox.entries.value).toEqual([]);
});

test("developing again sends the same request with another seed", async () => {
  const state = open();
  await state.start();
  state.draft.set({ prompt: "a fox", seed: 7 });
  await state.develop();
  await settle();
  const done = api.finish("job-1");
  await state.again(done);
  await settle();

  expect(api.submissions[1]?.request).toMatchObject({ prompt: "a fox" });
  expect(api.submissions[1]?.request).not.toHaveProperty("seed");
});

test("a picture is made larger without leaving its file on the way", async () => {
  const state = open();
  await state.start();

  await state.upscale("job-1-0", 4);
  await settle();

  const { task, request, files } = api.submissions[0] ?? {};
  expect({ task, request, files }).toEqual({
    task: "upscale",
    request: { image: "image:job-1-0", scale: 4 },
    files: {},
  });
  expect(state.route.current.value).toEqual({ screen: "job", id: "job-1" });
});

test("a photo that another app shared is cropped first", async () => {
  const shared = new Blob(["photo"], { type: "image/jpeg" });
  await pictures.set("shared", shared);
  const state = open();
  await state.start();

  expect(state.route.current.value).toEqual({ screen: "photo" });
  expect(state.draft.photo.value).toBe(shared);
  expect(await pictures.get("shared")).toBeUndefined();
});

test("a result can be the start picture of the next request", async () => {
  const state = open();
  state.useAs("inpaint", { id: "job-1-0", width: 128, height: 96 });

  expect(state.draft.source.value).toEqual({ picture: "job-1-0", width: 128, height: 96 });
  expect(state.route.current.value).toEqual({ screen: "mask" });
});

test("a refused request comes back with its photo and the seed that it used up", async () => {
  const state = open();
  await state.start();
  const source = { picture: new Blob(["photo"]), width: 128, height: 96 };
  state.draft.set({ prompt: "a fox", seed: 7, seedOnce: true });
  state.draft.setSource(source);
  api.refuse(422, { errors: [{ pointer: "#/prompt", detail: "not this word" }] });
  await state.develop();
  await settle();
  expect(state.draft.values.value.seed).toBeNull();
  const [entry] = state.outbox.entries.value;
  if (!entry) throw new Error("nothing was kept");

  state.amend(entry);

  expect(state.draft.source.value).toBe(source);
  expect(state.draft.values.value).toMatchObject({ seed: 7, seedOnce: true });
});

test("what a remix replaced comes back", async () => {
  const state = open();
  await state.start();
  state.draft.set({ prompt: "a half-written idea" });
  state.remix({ prompt: "a frog", seed: 3 });
  expect(state.draft.values.value.prompt).toBe("a frog");

  state.toasts.shown.value.at(-1)?.action?.run();

  expect(state.draft.values.value).toMatchObject({ prompt: "a half-written idea", seed: null });
});

test("a server that is away is not forgotten before its user knows that access has not ended", async () => {
  const state = open();
  await state.start();
  api.unplug();
  await state.forget();
  expect(erased).toBe(0);
  const [said] = state.toasts.shown.value;
  expect(said?.text).toContain("access has not ended");

  said?.action?.run();
  expect(erased).toBe(1);
});

test("a device whose token is gone already is forgotten", async () => {
  const state = open();
  await state.start();
  api.refuse(401);
  await state.forget();
  expect(erased).toBe(1);
});

test("a picture that is done while another is open is in the gallery below", async () => {
  const state = open();
  await state.start();
  state.draft.set({ prompt: "a fox" });
  await state.develop();
  await settle();
  await state.gallery.refresh();
  state.route.go({ screen: "picture", id: "other-0" });

  api.finish("job-1");
  await state.jobs.focus("job-1");
  await settle();

  expect(state.gallery.pictures.value).toHaveLength(1);
});

test("what a refused request was made of comes back, and so does what has taken its place", async () => {
  const state = open();
  await state.start();
  const photo = { picture: new Blob(["photo"]), width: 128, height: 96 };
  state.draft.setSource(photo);
  state.draft.setMask({ picture: new Blob(["mask"]), preview: null, operations: [] });
  state.draft.set({ prompt: "a fox" });
  const { mask } = state.draft.start();
  api.refuse(422);
  await state.develop();
  await settle();
  api.plugIn();
  state.draft.setSource(null);
  state.draft.set({ prompt: "an owl" });

  const [entry] = state.outbox.entries.value;
  if (!entry) throw new Error("nothing was kept");
  state.amend(entry);
  expect(state.draft.start()).toMatchObject({ source: photo, mask, values: { prompt: "a fox" } });

  state.toasts.shown.value.at(-1)?.action?.run();
  expect(state.draft.start()).toMatchObject({ source: null, values: { prompt: "an owl" } });
});
