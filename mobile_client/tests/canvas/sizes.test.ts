import { describe, expect, it } from "vitest";
import { encoding } from "../../src/lib/canvas/photo";
import {
  centered,
  takenRatio,
  turned,
  unturned,
  usefulSize,
  within,
} from "../../src/lib/canvas/sizes";

const SD = { min_side: 256, max_side: 1024, max_pixels: 768 * 768, multiple_of: 8 };
const TINY = { min_side: 64, max_side: 256, max_pixels: 25_600, multiple_of: 8 };

describe("the useful size of a photo", () => {
  it.each([
    [SD, 8000, 6000],
    [SD, 6000, 8000],
    [SD, 9000, 1000],
    [SD, 300, 300],
    [SD, 30, 40],
    [TINY, 4032, 3024],
    [TINY, 3024, 3024],
    [TINY, 10, 4000],
  ])("is one that the model takes", (limits, width, height) => {
    const size = usefulSize({ width, height }, limits);
    for (const side of [size.width, size.height]) {
      expect(side % limits.multiple_of).toBe(0);
      expect(side).toBeGreaterThanOrEqual(limits.min_side);
      expect(side).toBeLessThanOrEqual(limits.max_side);
    }
    expect(size.width * size.height).toBeLessThanOrEqual(limits.max_pixels);
  });

  it("keeps the shape, and uses the area there is", () => {
    const size = usefulSize({ width: 8000, height: 6000 }, SD);
    expect(size.width / size.height).toBeCloseTo(4 / 3, 1);
    expect(size.width * size.height).toBeGreaterThan(SD.max_pixels * 0.95);
  });

  it.each([
    [TINY, 20, 14],
    [TINY, 40, 28],
    [SD, 60, 100],
  ])("enlarges a small picture in its shape", (limits, width, height) => {
    const size = usefulSize({ width, height }, limits);
    expect(size.width / size.height / (width / height)).toBeCloseTo(1, 0.9);
    expect(Math.min(size.width, size.height)).toBe(limits.min_side);
  });

  it("is at most as long as the model can, for a photo that is longer", () => {
    expect(usefulSize({ width: 6000, height: 900 }, TINY)).toEqual({ width: 256, height: 64 });
    expect(takenRatio(6000 / 900, TINY)).toBe(4);
    expect(takenRatio(1 / 9, TINY)).toBe(1 / 4);
    expect(takenRatio(1.5, TINY)).toBe(1.5);
  });

  it("adds no pixels that the photo does not have", () => {
    expect(usefulSize({ width: 400, height: 304 }, SD)).toEqual({ width: 400, height: 304 });
  });
});

describe("cropping and turning", () => {
  it("takes the largest middle part", () => {
    expect(centered({ width: 400, height: 300 }, 1)).toEqual({
      x: 50,
      y: 0,
      width: 300,
      height: 300,
    });
    expect(centered({ width: 400, height: 300 }, 4)).toEqual({
      x: 0,
      y: 100,
      width: 400,
      height: 100,
    });
  });

  it("finds a part of the turned photo in the photo as it was", () => {
    const photo = { width: 400, height: 300 };
    // The left top corner of the photo is at the right top after a quarter turn to the right.
    const corner = { x: 300 - 20, y: 0, width: 20, height: 10 };
    expect(turned(photo, 1)).toEqual({ width: 300, height: 400 });
    expect(unturned(corner, photo, 1)).toEqual({ x: 0, y: 0, width: 10, height: 20 });
    expect(unturned({ x: 390, y: 280, width: 10, height: 20 }, photo, 2)).toEqual({
      x: 0,
      y: 0,
      width: 10,
      height: 20,
    });
    expect(unturned({ x: 0, y: 390, width: 20, height: 10 }, photo, 3)).toEqual({
      x: 0,
      y: 0,
      width: 10,
      height: 20,
    });
  });

  it("makes a preview that any phone can hold", () => {
    expect(within({ width: 8000, height: 6000 }, 1600)).toEqual({ width: 1600, height: 1200 });
    expect(within({ width: 80, height: 60 }, 1600)).toEqual({ width: 80, height: 60 });
  });
});

it("sends photographs as JPEG, drawings and small pictures as PNG", () => {
  expect(encoding("image/jpeg", { width: 1024, height: 768 }).type).toBe("image/jpeg");
  expect(encoding("image/png", { width: 1024, height: 768 }).type).toBe("image/png");
  expect(encoding("image/jpeg", { width: 128, height: 128 }).type).toBe("image/png");
});
