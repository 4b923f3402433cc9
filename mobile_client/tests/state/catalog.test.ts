import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Catalog } from "../../src/lib/state/catalog";
import { MemoryPreferences } from "../../src/lib/storage";
import { FakeApi } from "../fakes";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => vi.useRealTimers());

test("the lists are asked for until the server answers", async () => {
  const api = new FakeApi();
  const troubles: unknown[] = [];
  const catalog = new Catalog(api, new MemoryPreferences(), (error) => troubles.push(error));
  api.refuse(500);
  await catalog.load();
  await vi.advanceTimersByTimeAsync(2_000);
  expect(catalog.models.value).toEqual([]);
  expect(troubles).toHaveLength(2);

  api.plugIn();
  await vi.advanceTimersByTimeAsync(4_000);

  expect(catalog.models.value).toHaveLength(api.list.length);
});
