import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Models } from "../../src/lib/state/models";
import type { Pull } from "../../src/lib/transport/types";
import { FakeApi } from "../fakes";

let api: FakeApi;
let arrived: string[];
let models: Models;

beforeEach(() => {
  vi.useFakeTimers();
  api = new FakeApi();
  arrived = [];
  models = new Models(api, {
    onArrived: ({ name }: Pull) => arrived.push(name),
    onTrouble: () => {},
  });
});

afterEach(() => vi.useRealTimers());

/** Sets what the server says of the newest download. */
function serverSays(change: Partial<Pull>) {
  Object.assign(api.downloads[0] ?? {}, change);
}

test("a download is followed until it has arrived", async () => {
  const leave = models.watch();
  await models.begin(" studio/fox ");
  expect(models.pulls.value[0]?.source).toBe("studio/fox");

  serverSays({ done_bytes: 1_000_000 });
  await vi.advanceTimersByTimeAsync(1_100);
  expect(models.pulls.value[0]?.done_bytes).toBe(1_000_000);

  serverSays({ status: "succeeded" });
  await vi.advanceTimersByTimeAsync(1_100);
  expect(arrived).toEqual(["fox"]);
  expect(models.pulls.value).toEqual([]);
  leave();
});

test("one that failed stays listed until it is tried again or removed", async () => {
  const leave = models.watch();
  await models.begin("studio/fox");
  serverSays({ status: "failed" });
  await vi.advanceTimersByTimeAsync(1_100);

  const [failed] = models.pulls.value;
  expect(failed?.status).toBe("failed");
  expect(arrived).toEqual([]);
  if (failed) await models.stop(failed);
  expect(models.pulls.value).toEqual([]);
  leave();
});

test("nothing is asked when nobody looks", async () => {
  models.watch()();
  await vi.advanceTimersByTimeAsync(100);
  const asked = vi.spyOn(api, "pulls");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).not.toHaveBeenCalled();
});
