import { describe, expect, it } from "vitest";
import { harden } from "../../src/lib/canvas/mask";
import { type Dab, isBlank, outline, pathData, type Stroke } from "../../src/lib/canvas/strokes";

function stroke(dabs: Dab[], more: Partial<Stroke> = {}): Stroke {
  return { kind: "stroke", dabs, size: 10, erases: false, pressed: false, ...more };
}

const LINE = Array.from({ length: 30 }, (_, step): Dab => [step * 4, 50, 0.5]);

function height(points: ReturnType<typeof outline>): number {
  const ys = points.map(([, y]) => y);
  return Math.max(...ys) - Math.min(...ys);
}

describe("the area of a stroke", () => {
  it("is as wide as the brush, and covers both ends", () => {
    const area = outline(stroke(LINE));
    expect(height(area)).toBeGreaterThan(9);
    expect(height(area)).toBeLessThan(11);
    const xs = area.map(([x]) => x);
    expect(Math.min(...xs)).toBeLessThan(-3);
    expect(Math.max(...xs)).toBeGreaterThan(115);
  });

  it("is a disc where the finger only tapped", () => {
    const area = outline(
      stroke([
        [20, 30, 0.5],
        [20, 30, 0.5],
      ]),
    );
    for (const [x, y] of area) expect(Math.hypot(x - 20, y - 30)).toBeCloseTo(5);
  });

  it("is wider under more pressure, where the device measures it", () => {
    const light = outline(
      stroke(
        LINE.map(([x, y]) => [x, y, 0.1] as const),
        { pressed: true },
      ),
    );
    const firm = outline(
      stroke(
        LINE.map(([x, y]) => [x, y, 0.9] as const),
        { pressed: true },
      ),
    );
    expect(height(firm)).toBeGreaterThan(height(light) * 1.5);
  });

  it("becomes a closed path", () => {
    expect(
      pathData([
        [0, 0],
        [10, 0],
        [10, 10],
      ]),
    ).toBe("M5 5Q0 0 5 0Q10 0 10 5Q10 10 5 5Z");
    expect(pathData([])).toBe("");
  });
});

describe("a mask", () => {
  it("is blank until something is painted, and after it is cleared", () => {
    expect(isBlank([])).toBe(true);
    expect(isBlank([stroke(LINE, { erases: true })])).toBe(true);
    expect(isBlank([stroke(LINE)])).toBe(false);
    expect(isBlank([stroke(LINE), { kind: "clear" }])).toBe(true);
    expect(isBlank([{ kind: "invert" }])).toBe(false);
  });

  it("has hard edges: white or black, nothing between, nothing transparent", () => {
    const pixels = new Uint8ClampedArray([255, 0, 0, 127, 255, 0, 0, 128, 0, 0, 0, 0]);
    harden(pixels);
    expect([...pixels]).toEqual([0, 0, 0, 255, 255, 255, 255, 255, 0, 0, 0, 255]);
  });
});

it("begins with a mask that is there already", () => {
  expect(isBlank([], false)).toBe(false);
  expect(isBlank([{ kind: "clear" }], false)).toBe(true);
});
