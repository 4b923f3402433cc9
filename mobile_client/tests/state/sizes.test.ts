import { expect, test } from "vitest";
import { RATIOS, ratiosFor, sizeFor } from "../../src/lib/state/sizes";
import type { ModelInfo } from "../../src/lib/transport/types";
import { LARGE, MODEL } from "../fakes";

const TIGHT: ModelInfo = {
  ...MODEL,
  defaults: { ...MODEL.defaults, width: 160, height: 160 },
  limits: {
    min_side: 100,
    max_side: 200,
    max_pixels: 25_600,
    multiple_of: 16,
    max_clip_skip: 0,
    max_references: 0,
  },
};

test.each([MODEL, LARGE, TIGHT])("every shape is a size that $name can do", (model) => {
  for (const ratio of RATIOS) {
    const { width, height } = sizeFor(ratio, model);
    const { min_side, max_side, max_pixels, multiple_of } = model.limits;
    for (const side of [width, height]) {
      expect(side % multiple_of).toBe(0);
      expect(side).toBeGreaterThanOrEqual(min_side);
      expect(side).toBeLessThanOrEqual(max_side);
    }
    expect(width * height).toBeLessThanOrEqual(max_pixels);
  }
});

test("a shape keeps about as many pixels as the model was made for", () => {
  expect(sizeFor("1:1", LARGE)).toEqual({ width: 1024, height: 1024 });
  expect(sizeFor("3:4", MODEL)).toEqual({ width: 112, height: 144 });
  expect(sizeFor("16:9", LARGE)).toEqual({ width: 1344, height: 768 });
});

test("shapes that come to the same size are offered once", () => {
  const sizes = ratiosFor(TIGHT).map(({ size }) => `${size.width}×${size.height}`);
  expect(new Set(sizes).size).toBe(sizes.length);
});

test("a model that draws certain sizes is asked for these only", () => {
  const sizes = [
    { width: 128, height: 128 },
    { width: 96, height: 160 },
  ];
  const model = { ...MODEL, sizes };
  expect(ratiosFor(model).map(({ ratio }) => ratio)).toEqual(["1:1", "9:16"]);
  expect(sizeFor("2:3", model)).toEqual({ width: 96, height: 160 });
});
