import { describe, expect, it } from "vitest";
import { brightest, cellAt, moved, regionOf } from "../../src/lib/inside/places";

const GRID = { height: 4, width: 6 };

describe("a touched place", () => {
  const shown = { width: 300, height: 200 };

  it("is the cell under the finger", () => {
    expect(cellAt({ x: 0, y: 0 }, shown, GRID)).toEqual({ row: 0, column: 0 });
    expect(cellAt({ x: 149, y: 101 }, shown, GRID)).toEqual({ row: 2, column: 2 });
  });

  it("stays in the picture when the finger leaves it", () => {
    expect(cellAt({ x: -20, y: 900 }, shown, GRID)).toEqual({ row: 3, column: 0 });
    expect(cellAt({ x: 300, y: 200 }, shown, GRID)).toEqual({ row: 3, column: 5 });
  });
});

describe("arrow keys", () => {
  it("begin in the middle and move by a cell, not out of the picture", () => {
    const middle = moved(null, "ArrowUp", GRID);
    expect(middle).toEqual({ row: 2, column: 3 });
    expect(moved(middle, "ArrowLeft", GRID)).toEqual({ row: 2, column: 2 });
    expect(moved({ row: 0, column: 5 }, "ArrowUp", GRID)).toEqual({ row: 0, column: 5 });
    expect(moved({ row: 0, column: 5 }, "ArrowRight", GRID)).toEqual({ row: 0, column: 5 });
  });

  it("are the only keys that do", () => {
    expect(moved(null, "a", GRID)).toBeNull();
    expect(moved({ row: 1, column: 1 }, "Tab", GRID)).toBeNull();
  });
});

describe("a place in words", () => {
  it.each([
    [0, 0, "top-left"],
    [3, 5, "bottom-right"],
    [1, 2, "middle-centre"],
    [2, 0, "middle-left"],
  ] as const)("row %i, column %i is %s", (row, column, region) => {
    expect(regionOf({ row, column }, GRID)).toBe(region);
  });

  it("is where most of a map is, or the two places that have nearly as much", () => {
    const grid = {
      height: 3,
      width: 3,
      values: new Float32Array([0, 0, 0, 0, 1, 0, 0, 0.95, 0.2]),
    };
    expect(brightest(grid)).toEqual(["middle-centre", "bottom-centre"]);
    grid.values[7] = 0.5;
    expect(brightest(grid)).toEqual(["middle-centre"]);
  });

  it("is nowhere on an empty map", () => {
    expect(brightest({ height: 3, width: 3, values: new Float32Array(9) })).toEqual([]);
  });

  it("works for grids smaller than three", () => {
    expect(brightest({ height: 1, width: 2, values: new Float32Array([0, 1]) })).toEqual([
      "middle-right",
    ]);
  });
});
