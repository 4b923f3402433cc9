import { describe, expect, it } from "vitest";
import {
  cover,
  fitted,
  keepInside,
  pinch,
  toPicture,
  toScreen,
  zoomTo,
} from "../../src/lib/canvas/geometry";

const PICTURE = { width: 200, height: 100 };
const BOX = { width: 400, height: 400 };

describe("fitting", () => {
  it("shows the whole picture in the middle", () => {
    expect(fitted(PICTURE, BOX)).toEqual({ scale: 2, x: 0, y: 100 });
  });

  it("leaves the bars their room", () => {
    const view = fitted(PICTURE, BOX, { top: 40, right: 0, bottom: 160, left: 0 });
    expect(view).toEqual({ scale: 2, x: 0, y: 40 });
  });
});

describe("zooming", () => {
  it("keeps what is under the finger there", () => {
    const before = fitted(PICTURE, BOX);
    const finger = { x: 130, y: 170 };
    const after = zoomTo(before, finger, 7);
    const there = toScreen(after, toPicture(before, finger));
    expect(there.x).toBeCloseTo(finger.x);
    expect(there.y).toBeCloseTo(finger.y);
  });

  it("makes the picture stick to both fingers", () => {
    const before = fitted(PICTURE, BOX);
    const from = [
      { x: 100, y: 200 },
      { x: 200, y: 200 },
    ] as const;
    const to = [
      { x: 50, y: 240 },
      { x: 250, y: 240 },
    ] as const;
    const after = pinch(before, from, to, 0.1, 100);
    expect(after.scale).toBe(4);
    from.forEach((finger, index) => {
      const there = toScreen(after, toPicture(before, finger));
      expect(there.x).toBeCloseTo(to[index]?.x ?? 0);
      expect(there.y).toBeCloseTo(to[index]?.y ?? 0);
    });
  });

  it("stops at its limits, also when both fingers are at one place", () => {
    const here = { x: 5, y: 5 };
    const spread = [
      { x: 0, y: 0 },
      { x: 400, y: 0 },
    ] as const;
    expect(pinch(fitted(PICTURE, BOX), [here, here], spread, 1, 8).scale).toBe(8);
    expect(pinch(fitted(PICTURE, BOX), spread, [here, here], 1, 8).scale).toBe(1);
  });
});

describe("keeping the picture in sight", () => {
  it("centres what is smaller than the box", () => {
    expect(keepInside({ scale: 1, x: -900, y: 900 }, PICTURE, BOX)).toEqual({
      scale: 1,
      x: 100,
      y: 150,
    });
  });

  it("leaves no gap beside what is larger", () => {
    expect(keepInside({ scale: 4, x: 30, y: -500 }, PICTURE, BOX)).toEqual({
      scale: 4,
      x: 0,
      y: 0,
    });
    expect(keepInside({ scale: 4, x: -900, y: 0 }, PICTURE, BOX).x).toBe(-400);
  });

  it("always fills a crop's frame", () => {
    const frame = { x: 50, y: 50, width: 300, height: 300 };
    const view = cover({ scale: 1, x: 0, y: 0 }, PICTURE, frame);
    expect(view.scale).toBe(3);
    expect(view.x).toBeLessThanOrEqual(50);
    expect(view.x + 600).toBeGreaterThanOrEqual(350);
    expect(view.y).toBe(50);
  });
});
