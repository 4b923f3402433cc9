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

test("a picture can be made as much larger as an upscaler can make one of its size", async () => {
  const api = new FakeApi();
  const catalog = new Catalog(api, new MemoryPreferences());
  const scales = (width: number, height: number) => catalog.scalesFor({ width, height });
  expect(scales(128, 128)).toEqual([]);

  await catalog.load();

  expect(scales(128, 128)).toEqual([2, 4]);
  expect(scales(1024, 1024)).toEqual([2, 4]);
  expect(scales(1025, 1024)).toEqual([2]);
  expect(scales(2049, 2048)).toEqual([]);
});

test("nothing is made larger by a server without upscalers", async () => {
  const api = new FakeApi();
  api.networks.length = 0;
  const catalog = new Catalog(api, new MemoryPreferences());

  await catalog.load();

  expect(catalog.scalesFor({ width: 64, height: 64 })).toEqual([]);
});

test("lists that an older version of the page stored lack the upscalers", () => {
  const preferences = new MemoryPreferences();
  preferences.set("catalog", { models: [], schedulers: [], loras: [] });

  const catalog = new Catalog(new FakeApi(), preferences);

  expect(catalog.scalesFor({ width: 64, height: 64 })).toEqual([]);
});
