import { describe, expect, it } from "vitest";
import { heat } from "../../src/lib/inside/heat";
import { DamagedError, firstMap, Maps, stretched, termsOf } from "../../src/lib/inside/maps";
import { explained } from "../fakes";

const FOX = explained();
const maps = new Maps(FOX.maps.all_steps);
const [a, fox, start, padding] = termsOf(FOX);

function rounded(values: Float32Array): number[] {
  return [...values].map((value) => Math.round(value * 1000) / 1000);
}

describe("what can be touched", () => {
  it("is each word of the prompt, then the start and the padding", () => {
    expect(termsOf(FOX)).toEqual([
      { kind: "word", text: "a", tokens: [1] },
      { kind: "word", text: "fox", tokens: [2] },
      { kind: "start", text: "", tokens: [0] },
      { kind: "padding", text: "", tokens: [3] },
    ]);
  });
});

describe("a map", () => {
  it("tells the share of its attention that each place gives to a word", () => {
    expect(rounded(maps.of(fox as never).values)).toEqual([0, 0.04, 0, 0, 0.08, 0.2]);
    expect(maps.at(fox as never, { row: 1, column: 2 })).toBeCloseTo(0.2);
    expect(maps.at(padding as never, { row: 0, column: 0 })).toBeCloseTo(0.5);
  });

  it("adds up the tokens of a word", () => {
    const both = { kind: "word", text: "afox", tokens: [1, 2] } as const;
    expect(rounded(maps.of(both).values)).toEqual([0.1, 0.04, 0, 0.1, 0.08, 0.2]);
  });

  it("is stretched to 1 to be seen, unless it is empty", () => {
    expect(rounded(stretched(maps.of(fox as never)).values)).toEqual([0, 0.2, 0, 0, 0.4, 1]);
    expect(rounded(stretched(maps.of(start as never)).values)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it("is stretched from its least place, and hardly if it is even", () => {
    const values = (...of: number[]) => ({ height: 1, width: 2, values: new Float32Array(of) });
    expect(rounded(stretched(values(0.5, 0.3)).values)).toEqual([1, 0]);
    expect(rounded(stretched(values(0.5, 0.45)).values)).toEqual([1, 0.6]);
    expect(rounded(stretched(values(0.5, 0.5)).values)).toEqual([1, 1]);
  });

  it.each([
    ["too few bytes", { data: btoa("abc") }],
    ["no base64", { data: "?" }],
    ["a peak too few", { peaks: [1] }],
    ["no size", { shape: [4] }],
  ])("of %s is refused", (_, change) => {
    expect(() => new Maps({ ...FOX.maps.all_steps, ...change })).toThrow(DamagedError);
  });
});

describe("the map that is shown first", () => {
  const cells = String.fromCharCode(...Array<number>(24).fill(255));
  const evenly = (peaks: number[]) => {
    const array = { ...FOX.maps.all_steps, data: btoa(cells), peaks };
    return { ...FOX, maps: { all_steps: array, last_quarter: array, carried_back: array } };
  };

  it("is the one carried back where the padding has more attention than all the rest", () => {
    expect(firstMap(evenly([0.1, 0.1, 0.1, 0.7]))).toBe("carried_back");
    expect(firstMap(evenly([0.5, 0.1, 0.1, 0.3]))).toBe("all_steps");
  });

  it("is that of all steps where none can be carried back", () => {
    const { maps: all } = evenly([0.1, 0.1, 0.1, 0.7]);
    expect(firstMap({ ...FOX, maps: { ...all, carried_back: null } })).toBe("all_steps");
  });
});

describe("the colours over a picture", () => {
  const grid = { height: 1, width: 5, values: new Float32Array([0, 0.25, 0.6, 1, 7]) };
  const pixels = heat(grid);
  const cell = (at: number) => [...pixels.slice(at * 4, at * 4 + 4)];

  it("hide little-looked-at places, and let the others shine through", () => {
    const opacities = [0, 1, 2, 3].map((at) => cell(at)[3] ?? 0);
    expect([...opacities].sort((one, other) => other - one)).toEqual(opacities);
    expect(opacities[0]).toBeGreaterThan(200);
    expect(opacities[3]).toBeLessThan(80);
  });

  it("get lighter all the way, for eyes that see no colours", () => {
    const lightness = [0, 1, 2, 3].map((at) => {
      const [red = 0, green = 0, blue = 0] = cell(at);
      return 0.3 * red + 0.59 * green + 0.11 * blue;
    });
    expect([...lightness].sort((one, other) => one - other)).toEqual(lightness);
  });

  it("end at 1", () => {
    expect(cell(4)).toEqual(cell(3));
  });

  it("are those of the word at its place", () => {
    expect(a?.text).toBe("a");
    const left = heat(stretched(maps.of(a as never)));
    expect(left[3]).toBeLessThan(left[7] ?? 0); // the place at its right is darker
  });
});
