/** Colours of a heat map that lies over a picture: dark where little is, glowing where much is. */

import type { Grid } from "./maps";

/** Red, green, blue, opacity (0–255) at 0, 1/4 … 1. Lightness alone tells them apart, too. */
const RAMP = [
  [8, 4, 24, 208],
  [84, 18, 108, 190],
  [190, 52, 84, 160],
  [248, 140, 36, 120],
  [252, 248, 164, 70],
] as const;

/** RGBA of each cell, row by row, for `ImageData`; of values from 0 to 1. */
export function heat({ values }: Grid): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(values.length * 4);
  values.forEach((value, cell) => {
    const at = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
    const low = RAMP[Math.floor(at)] ?? RAMP[0];
    const high = RAMP[Math.ceil(at)] ?? low;
    low.forEach((from, channel) => {
      const to = high[channel] ?? from;
      pixels[cell * 4 + channel] = from + (to - from) * (at % 1);
    });
  });
  return pixels;
}
