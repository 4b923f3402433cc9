import { expect, it } from "vitest";
import { EMPTY, type History, push, redo, undo } from "../../src/lib/canvas/history";

const two: History<string> = push(push<string>(EMPTY, "a"), "b");

it("undoes and redoes in order", () => {
  expect(undo(two)).toEqual({ done: ["a"], undone: ["b"] });
  expect(undo(undo(two))).toEqual({ done: [], undone: ["b", "a"] });
  expect(redo(undo(undo(two)))).toEqual({ done: ["a"], undone: ["b"] });
});

it("has nothing to undo or redo at its ends", () => {
  expect(undo(EMPTY)).toBe(EMPTY);
  expect(redo(two)).toBe(two);
});

it("forgets what was undone when something new is done", () => {
  expect(push(undo(two), "c")).toEqual({ done: ["a", "c"], undone: [] });
});
