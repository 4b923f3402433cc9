import { beforeEach, expect, it } from "vitest";
import { ExplanationStore, type Kept, MOST_BYTES } from "../../src/lib/inside/store";
import { MemoryKeyValue, MemoryPreferences } from "../../src/lib/storage";
import { explained } from "../fakes";

let preferences: MemoryPreferences;
let disk: MemoryKeyValue;

beforeEach(() => {
  preferences = new MemoryPreferences();
  disk = new MemoryKeyValue();
});

const open = () => new ExplanationStore(preferences, disk);
const ids = (store: ExplanationStore) => store.entries.value.map(({ pictureId }) => pictureId);

function kept(pictureId: string, bytes = 10): Kept {
  const picture = { size: bytes, type: "image/png" } as Blob;
  const size = { width: 128, height: 128 };
  return { pictureId, prompt: "a fox", size, explained: explained(), picture, sameness: null };
}

it("has what was kept after the app is opened again, the newest first", async () => {
  const store = open();
  await store.keep(kept("one"));
  await store.keep(kept("two"));
  await store.keep(kept("one"));

  const again = open();
  expect(ids(again)).toEqual(["one", "two"]);
  expect(await again.find("two")).toEqual(kept("two"));
  expect(await again.find("three")).toBeUndefined();
});

it("drops the oldest ones when there is no room, and never the newest", async () => {
  const store = open();
  await store.keep(kept("oldest", 20_000));
  await store.keep(kept("old", MOST_BYTES / 2));
  await store.keep(kept("new", MOST_BYTES / 2 - 10_000));
  expect(ids(store)).toEqual(["new", "old"]);
  await store.keep(kept("huge", MOST_BYTES * 2));
  expect(ids(store)).toEqual(["huge"]);
  expect((await disk.entries()).map(([key]) => key)).toEqual(["huge"]);
});

it("notices that the browser has cleared its database", async () => {
  const store = open();
  await store.keep(kept("one"));
  await disk.delete("one");
  expect(await store.find("one")).toBeUndefined();
  expect(store.has("one")).toBe(false);
});

it("forgets a picture that was deleted", async () => {
  const store = open();
  await store.keep(kept("one"));
  await store.keep(kept("two"));
  await store.forget(["one", "never there"]);
  expect(ids(open())).toEqual(["two"]);
  expect(await disk.get("one")).toBeUndefined();
});
