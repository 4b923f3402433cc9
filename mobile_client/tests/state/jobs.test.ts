import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Jobs } from "../../src/lib/state/jobs";
import { MemoryPreferences } from "../../src/lib/storage";
import type { Job } from "../../src/lib/transport/types";
import { FakeApi, job, settle } from "../fakes";

let api: FakeApi;
let preferences: MemoryPreferences;
let over: Job[];

const open = () =>
  new Jobs(api, preferences, {
    onOver: (ended) => over.push(ended),
    onTrouble: () => {},
    onDoubt: () => {},
  });

/** A job that the server has. */
function accept(id: string): Job {
  const made = job(id);
  api.kept.set(id, made);
  return made;
}

beforeEach(() => {
  vi.useFakeTimers();
  api = new FakeApi();
  preferences = new MemoryPreferences();
  over = [];
});

afterEach(() => vi.useRealTimers());

test("the job on screen is followed step by step to its picture", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  const see = () => jobs.get("a");

  api.emit({ type: "queued", id: null, job_id: "a", position: 2, eta_seconds: 30 });
  expect(see()?.job.position).toBe(2);
  api.emit({ type: "started", id: 1, job_id: "a", attempt: 1 });
  expect(see()?.job.status).toBe("running");
  api.emit({ type: "progress", id: 2, job_id: "a", step: 5, steps: 20, eta_seconds: 3 });
  api.emit({ type: "preview", id: 3, job_id: "a", image: "data:image/webp;base64,AA" });
  expect(see()).toMatchObject({
    previews: { 0: "data:image/webp;base64,AA" },
    job: { progress: { step: 5, steps: 20 } },
    eta: { seconds: 3 },
  });
  api.finish("a");
  api.emit({ type: "succeeded", id: 4, job_id: "a" });
  await settle();

  expect(see()?.job.images).toHaveLength(1);
  expect(over.map(({ id }) => id)).toEqual(["a"]);
  expect(jobs.active.value).toEqual([]);
  expect(api.openStreams).toEqual([]);
});

test("after a page was killed, the next one finds the picture that was made meanwhile", async () => {
  open().track(accept("a"));
  api.finish("a");

  const next = open();
  await next.resume();

  expect(over.map(({ id }) => id)).toEqual(["a"]);
  expect(next.get("a")?.job.status).toBe("succeeded");
  expect(next.active.value).toEqual([]);
});

test("it goes on from the last event that it saw", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  api.emit({ type: "progress", id: 41, job_id: "a", step: 5, steps: 20, eta_seconds: 3 });

  await jobs.resume();

  expect(api.openStreams).toMatchObject([{ jobId: "a", lastEventId: 41 }]);
});

test("a stream that ends while the job goes on is opened again", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  api.unplug();
  api.openStreams[0]?.handlers.onEnd?.();
  await settle();
  api.plugIn();
  await vi.advanceTimersByTimeAsync(3_000);

  expect(api.openStreams.map(({ jobId }) => jobId)).toContain("a");
});

test("a stream that dies without a word is noticed: jobs without news are asked for", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  api.finish("a");
  await vi.advanceTimersByTimeAsync(20_000);

  expect(over).toHaveLength(1);
});

test("however many jobs are followed, two connections suffice", async () => {
  const jobs = open();
  for (const id of ["a", "b", "c", "d"]) jobs.track(accept(id));
  await jobs.focus("b");

  expect(api.openStreams.map(({ jobId }) => jobId).sort()).toEqual(["b", null]);
  api.finish("c");
  api.emit({ type: "succeeded", id: 9, job_id: "c" });
  await settle();
  expect(jobs.active.value).toEqual(["a", "b", "d"]);
});

test("news of other devices' jobs are let pass", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  api.emit({ type: "started", id: 1, job_id: "not-mine", attempt: 1 });

  expect(jobs.get("not-mine")).toBeNull();
});

test("a job that the server lost is said to be gone", async () => {
  preferences.set("jobs", ["gone"]);
  const jobs = open();
  await jobs.focus("gone");
  await jobs.resume();

  expect(jobs.missing.value.has("gone")).toBe(true);
  expect(jobs.active.value).toEqual([]);
});

test("a job that cannot be asked for is kept for later", async () => {
  preferences.set("jobs", ["a"]);
  accept("a");
  const jobs = open();
  api.unplug();
  await jobs.resume();
  expect(jobs.active.value).toEqual(["a"]);

  api.plugIn();
  api.finish("a");
  await jobs.resume();
  expect(over).toHaveLength(1);
});

test("cancelling ends it at once, without a word of a finished picture", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.cancel("a");

  expect(jobs.get("a")?.job.status).toBe("cancelled");
  expect(jobs.active.value).toEqual([]);
});

test("a finished job from a link is shown, and not followed", async () => {
  accept("a");
  api.finish("a");
  const jobs = open();
  await jobs.focus("a");

  expect(jobs.get("a")?.job.status).toBe("succeeded");
  expect(over).toEqual([]);
  expect(api.openStreams).toEqual([]);
});

test("notes are kept once each", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  for (const id of [1, 2]) api.emit({ type: "note", id, job_id: "a", note: "memory was short" });

  expect(jobs.get("a")?.job.notes).toEqual(["memory was short"]);
});

test("a job that starts a second time is said to be made again", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  const replay = () => {
    api.emit({ type: "started", id: 1, job_id: "a", attempt: 1 });
    api.emit({ type: "progress", id: 2, job_id: "a", step: 9, steps: 20, eta_seconds: 3 });
  };
  replay();
  replay(); // a stream that begins at the beginning repeats what is known
  expect(jobs.get("a")).toMatchObject({ restarted: false, job: { progress: { step: 9 } } });

  api.emit({ type: "started", id: 7, job_id: "a", attempt: 1 }); // handed back, not counted

  expect(jobs.get("a")).toMatchObject({ restarted: true, job: { progress: { step: 0 } } });
});

test("an estimate that the server took back is not kept", async () => {
  const jobs = open();
  jobs.track(accept("a"));
  await jobs.focus("a");
  expect(jobs.get("a")?.eta).not.toBeNull();

  api.update("a", { eta_seconds: null });
  await jobs.resume();

  expect(jobs.get("a")?.eta).toBeNull();
});
