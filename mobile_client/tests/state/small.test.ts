/** Routes, history, settings, words: what needs no server. */

import { expect, test } from "vitest";
import { Presets, PromptHistory } from "../../src/lib/state/history";
import { formatRoute, parseRoute } from "../../src/lib/state/route";
import { originOf } from "../../src/lib/state/settings";
import { surprise } from "../../src/lib/state/surprises";
import { MemoryPreferences, randomId } from "../../src/lib/storage";
import { preferredLanguage, t, useLanguage } from "../../src/strings";
import { en } from "../../src/strings/en";
import { moreOf, sayProblem } from "../../src/strings/problems";
import { vi } from "../../src/strings/vi";

test.each([
  ["#/create", { screen: "create" }],
  ["", { screen: "create" }],
  ["#/nonsense", { screen: "create" }],
  ["#/job/a%2Fb", { screen: "job", id: "a/b" }],
  ["#/job", { screen: "gallery" }],
  ["#/picture/x-0", { screen: "picture", id: "x-0" }],
  ["#/gallery", { screen: "gallery" }],
  ["#pair=ABCD-1234", { screen: "pair", code: "ABCD-1234" }],
  ["#pair=%E0%A4", { screen: "pair", code: "" }],
] as const)("%s leads to a screen", (hash, route) => {
  expect(parseRoute(hash)).toEqual(route);
});

test("a route survives the address bar", () => {
  const route = { screen: "picture", id: "a b/0" } as const;
  expect(parseRoute(formatRoute(route))).toEqual(route);
});

test("history has each prompt once, newest first, and only so many", () => {
  const history = new PromptHistory(new MemoryPreferences());
  for (let n = 0; n < 100; n += 1) history.add({ prompt: `p${n}`, negativePrompt: "" });
  history.add({ prompt: "p98", negativePrompt: "rain" });
  history.add({ prompt: "  ", negativePrompt: "" });

  expect(history.entries.value).toHaveLength(60);
  expect(history.entries.value[0]).toEqual({ prompt: "p98", negativePrompt: "rain" });
  expect(history.entries.value.filter(({ prompt }) => prompt === "p98")).toHaveLength(1);
});

test("presets keep how, not what", () => {
  const preferences = new MemoryPreferences();
  const values = { prompt: "a fox", steps: 9, seed: 3, ratio: "3:4" };
  new Presets(preferences).save("mine", values as never);

  const [preset] = new Presets(preferences).entries.value;
  expect(preset?.recipe).toMatchObject({ steps: 9, ratio: "3:4" });
  expect(preset?.recipe).not.toHaveProperty("prompt");
  expect(preset?.recipe).not.toHaveProperty("seed");
});

test.each([
  ["192.168.1.20", "http://192.168.1.20:7860"],
  ["box.local:8080", "http://box.local:8080"],
  [" https://box.example/x ", "https://box.example"],
  ["not an address", null],
  ["what!!", null],
  ["", null],
])("%j is a server at %j", (typed, origin) => {
  expect(originOf(typed)).toBe(origin);
});

test("a surprise is one of the model's own examples, if it has any", () => {
  expect(surprise("a cat", ["a cat", "a dog"])).toBe("a dog");
});

test("a surprise is never the one before", () => {
  const rolls = [0, 0, 0.5, 0.5];
  const first = surprise("", [], () => 0);
  expect(surprise(first, [], () => rolls.shift() ?? 0.5)).not.toBe(first);
});

test("ids are 128 bits", () => {
  expect(randomId()).toMatch(/^[0-9a-f]{32}$/);
  expect(randomId()).not.toBe(randomId());
});

test("words have one form for one thing and another for more", async () => {
  await useLanguage("en");
  expect(t("create.go", { count: 1 })).toBe("Develop");
  expect(t("create.go", { count: 4 })).toBe("Develop 4");
  await useLanguage("vi");
  expect(t("tab.create")).toBe(vi["tab.create"]);
  await useLanguage("en");
});

test("the browser's language is taken where it is known", () => {
  expect(preferredLanguage(["fr-FR", "vi-VN", "en"])).toBe("vi");
  expect(preferredLanguage(["fr"])).toBe("en");
});

test("translations fill in the same names", () => {
  const names = (text: string) => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();
  for (const key of Object.keys(en) as (keyof typeof en)[]) {
    expect([key, names(vi[key])]).toEqual([key, names(en[key])]);
    expect(vi[key]).not.toBe("");
  }
});

test("a problem is said by its type, in the user's language, and never with nothing", async () => {
  const full = {
    status: 429,
    type: "urn:darkroom:problem:queue-full",
    title: "The queue is full",
    detail: "2 of your jobs wait or run, and one client may not have more; ask again in 5 s",
  };
  expect(sayProblem(full)).toBe(en["problem.queue-full"]);
  await useLanguage("vi");
  expect(sayProblem(full)).toBe(vi["problem.queue-full"]);
  await useLanguage("en");

  const empty = { status: 502, type: "about:blank", title: "", detail: "" };
  expect(sayProblem(empty)).toContain("502");
  expect(sayProblem({ ...empty, detail: "in other words" })).toBe("in other words");
});

test("what the server says of a wrong field is shown besides", () => {
  const type = "urn:darkroom:problem:validation";
  const wrong = { status: 422, type, title: "", detail: "image: too many pixels" };
  expect(sayProblem(wrong)).toBe(en["problem.validation"]);
  expect(moreOf(wrong)).toBe("image: too many pixels");
});
