import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Entry, Outbox } from "../../src/lib/state/outbox";
import { MemoryKeyValue } from "../../src/lib/storage";
import type { Job } from "../../src/lib/transport/types";
import { FakeApi, settle } from "../fakes";

let api: FakeApi;
let disk: MemoryKeyValue;
let accepted: [string, Job][];
let refused: Entry[];

const open = () =>
  new Outbox(api, disk, {
    onAccepted: (key, job) => accepted.push([key, job]),
    onRefused: (entry) => refused.push(entry),
    onTrouble: () => {},
  });

beforeEach(() => {
  vi.useFakeTimers();
  api = new FakeApi();
  disk = new MemoryKeyValue();
  accepted = [];
  refused = [];
});

afterEach(() => vi.useRealTimers());

test("a request is on disk before it is sent, and leaves it when it is accepted", async () => {
  const outbox = open();
  const onDisk: number[] = [];
  const submit = api.submit.bind(api);
  api.submit = async (...asked) => {
    onDisk.push((await disk.entries()).length);
    return submit(...asked);
  };

  const key = await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();

  expect(onDisk).toEqual([1]);
  expect(await disk.entries()).toEqual([]);
  expect(accepted.map(([sent, job]) => [sent, job.id])).toEqual([[key, "job-1"]]);
  expect(outbox.entries.value).toEqual([]);
});

test("without a network it waits, and goes by itself when there is one", async () => {
  const outbox = open();
  api.unplug();
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();
  expect(outbox.entries.value).toHaveLength(1);

  api.plugIn();
  await vi.advanceTimersByTimeAsync(2_000);

  expect(accepted).toHaveLength(1);
});

test("what a killed page left is sent by the next one, with its pictures and the same key", async () => {
  api.unplug();
  const image = new Blob(["photo"], { type: "image/jpeg" });
  const key = await open().add("img2img", { prompt: "a fox" }, { image });
  await settle();

  const next = open();
  await next.restore();
  api.plugIn();
  await next.flush();

  expect(api.submissions).toMatchObject([{ task: "img2img", key, files: { image } }]);
  expect(await disk.entries()).toEqual([]);
});

test("when the answer was lost, the second try finds the first one's job", async () => {
  const outbox = open();
  const submit = api.submit.bind(api);
  let lost = false;
  api.submit = async (...asked) => {
    const job = await submit(...asked);
    if (!lost) {
      lost = true;
      api.unplug();
      await api.me(); // throws: the line broke before the answer came
    }
    return job;
  };
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();

  api.plugIn();
  await outbox.flush();

  expect(api.submissions).toHaveLength(2);
  expect(api.kept.size).toBe(1);
  expect(accepted.map(([, job]) => job.id)).toEqual(["job-1"]);
});

test("requests go in the order in which they were made", async () => {
  const outbox = open();
  api.unplug();
  for (const prompt of ["one", "two", "three"]) await outbox.add("txt2img", { prompt }, {});

  api.plugIn();
  await outbox.flush();

  expect(api.submissions.map(({ request }) => request.prompt)).toEqual(["one", "two", "three"]);
});

test("what the server will not have is kept with its reason, and others go on", async () => {
  const outbox = open();
  api.refuse(422, { detail: "prompt: too long" });
  const key = await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();
  api.plugIn();
  await outbox.add("txt2img", { prompt: "an owl" }, {});
  await settle();

  expect(refused.map((entry) => entry.key)).toEqual([key]);
  expect(outbox.find(key)?.refusal?.detail).toBe("prompt: too long");
  expect(accepted).toHaveLength(1);
  await outbox.discard(key);
  expect(await disk.entries()).toEqual([]);
});

test("what is discarded on its way and then refused is gone, and nothing is said", async () => {
  const outbox = open();
  api.refuse(413);
  const submit = api.submit.bind(api);
  api.submit = async (...asked) => {
    await outbox.discard(asked[3]);
    return submit(...asked);
  };
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();

  expect(refused).toEqual([]);
  expect(outbox.entries.value).toEqual([]);
  expect(await disk.entries()).toEqual([]);
});

test("a full queue is asked again when it says so", async () => {
  const outbox = open();
  api.refuse(429, { retryAfter: 7, detail: "the queue is full" });
  const key = await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();
  expect(outbox.find(key)).toMatchObject({
    refusal: null,
    delay: { status: 429, detail: "the queue is full" },
  });

  api.plugIn();
  await vi.advanceTimersByTimeAsync(6_900);
  expect(accepted).toHaveLength(0);
  await vi.advanceTimersByTimeAsync(200);
  expect(accepted).toHaveLength(1);
});

test("without a token it waits for the pairing, and does not try again by itself", async () => {
  const outbox = open();
  api.refuse(401);
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();
  api.plugIn();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(api.submissions).toHaveLength(0);

  await outbox.flush();
  expect(accepted).toHaveLength(1);
});

test("what is discarded on its way to the server is cancelled there", async () => {
  const outbox = open();
  const submit = api.submit.bind(api);
  api.submit = async (...asked) => {
    const job = await submit(...asked);
    await outbox.discard(asked[3]);
    return job;
  };
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();

  expect(accepted).toEqual([]);
  expect(api.kept.get("job-1")?.status).toBe("cancelled");
});

test("two flushes at once send once", async () => {
  const outbox = open();
  api.unplug();
  await outbox.add("txt2img", { prompt: "a fox" }, {});
  await settle();
  api.plugIn();

  await Promise.all([outbox.flush(), outbox.flush()]);

  expect(api.submissions).toHaveLength(1);
});
