/** Turns an aspect ratio into a size that the model can make. */

import type { ModelInfo, Size } from "../transport/types";

export const RATIOS = ["1:1", "3:4", "2:3", "9:16", "4:3", "3:2", "16:9"] as const;
export type Ratio = (typeof RATIOS)[number];

function quotient(ratio: Ratio): number {
  const [across, down] = ratio.split(":").map(Number);
  return (across ?? 1) / (down ?? 1);
}

/** How far an aspect ratio is from a size's; 0 if it is the same. */
function distance(ratio: Ratio, { width, height }: Size): number {
  return Math.abs(Math.log(width / height / quotient(ratio)));
}

/**
 * The size with this aspect ratio and about as many pixels as the model was trained for. Of a model
 * that draws certain sizes only, the one whose aspect ratio is nearest.
 */
export function sizeFor(ratio: Ratio, { defaults, limits, sizes }: ModelInfo): Size {
  const shape = quotient(ratio);
  const [nearest] = [...sizes].sort((one, other) => distance(ratio, one) - distance(ratio, other));
  if (nearest) return nearest;
  const pixels = Math.min(defaults.width * defaults.height, limits.max_pixels);
  const step = limits.multiple_of;
  const allowed = (side: number) =>
    Math.min(
      Math.max(Math.round(side / step) * step, Math.ceil(limits.min_side / step) * step),
      Math.floor(limits.max_side / step) * step,
    );
  const size = {
    width: allowed(Math.sqrt(pixels * shape)),
    height: allowed(Math.sqrt(pixels / shape)),
  };
  while (size.width * size.height > limits.max_pixels) {
    // Rounding went over the limit: shorten the longer side, as the server does.
    if (size.width >= size.height) size.width -= step;
    else size.height -= step;
  }
  return size;
}

/** The aspect ratios to offer: those that differ within the model's limits, or of its own sizes. */
export function ratiosFor(model: ModelInfo): { ratio: Ratio; size: Size }[] {
  const seen = new Set<string>();
  const offered = model.sizes.length
    ? model.sizes.map(
        (size) =>
          [...RATIOS].sort((one, other) => distance(one, size) - distance(other, size))[0] ?? "1:1",
      )
    : RATIOS;
  return offered
    .map((ratio) => ({ ratio, size: sizeFor(ratio, model) }))
    .filter(({ size }) => {
      const name = `${size.width}×${size.height}`;
      return !seen.has(name) && seen.add(name);
    });
}
