/** Which sizes a model takes, and how a photo becomes one of them. No DOM. */

import { clamp, type Point, type Size } from "./geometry";

/** Of a model, as the server tells them. Pixels. */
export interface SizeLimits {
  readonly min_side: number;
  readonly max_side: number;
  readonly max_pixels: number;
  readonly multiple_of: number;
}

/** A part of a picture, in its pixels. */
export type Rect = Point & Size;

/** The most that one side can be longer than the other. */
export function widest({ min_side, max_side, max_pixels }: SizeLimits): number {
  return Math.min(max_side / min_side, max_pixels / min_side ** 2);
}

/** The nearest ratio of width to height that the model takes. */
export function takenRatio(ratio: number, limits: SizeLimits): number {
  const most = widest(limits);
  return clamp(ratio, 1 / most, most);
}

/**
 * The largest size of about this aspect ratio that the model takes, and not larger than the crop:
 * more pixels than the photo has would cost time and add nothing. Only a crop that is smaller than
 * the model's smallest picture is enlarged.
 *
 * @param there the pixels that were cropped.
 */
export function usefulSize(there: Size, limits: SizeLimits): Size {
  const part = centered(there, takenRatio(there.width / there.height, limits));
  const shrink = Math.min(
    1,
    limits.max_side / Math.max(part.width, part.height),
    Math.sqrt(limits.max_pixels / (part.width * part.height)),
  );
  const scale = Math.max(shrink, limits.min_side / Math.min(part.width, part.height));
  const width = stepped(part.width * scale, limits);
  const height = stepped(part.height * scale, limits);
  return withinArea({ width, height }, limits);
}

/** The nearest side that the model takes. */
function stepped(side: number, limits: SizeLimits): number {
  const step = limits.multiple_of;
  const low = Math.ceil(limits.min_side / step) * step;
  const high = Math.floor(limits.max_side / step) * step;
  return clamp(Math.round(side / step) * step, low, high);
}

/** Shortens the longer side if rounding went over the area. */
function withinArea(size: Size, limits: SizeLimits): Size {
  let { width, height } = size;
  const step = limits.multiple_of;
  while (width * height > limits.max_pixels && Math.max(width, height) - step >= limits.min_side) {
    if (width >= height) width -= step;
    else height -= step;
  }
  return { width, height };
}

/** The largest middle part of a picture with this ratio of width to height. */
export function centered(picture: Size, ratio: number): Rect {
  const width = Math.min(picture.width, picture.height * ratio);
  const height = Math.min(picture.height, picture.width / ratio);
  return { x: (picture.width - width) / 2, y: (picture.height - height) / 2, width, height };
}

/** A size whose sides are at most `longest`. */
export function within(size: Size, longest: number): Size {
  const scale = Math.min(1, longest / Math.max(size.width, size.height));
  return {
    width: Math.max(1, Math.round(size.width * scale)),
    height: Math.max(1, Math.round(size.height * scale)),
  };
}

/** Quarter turns to the right. */
export type Turns = 0 | 1 | 2 | 3;

export function turned(size: Size, turns: Turns): Size {
  return turns % 2 === 0 ? size : { width: size.height, height: size.width };
}

/**
 * Maps a part of the rotated picture to the picture before the rotation.
 *
 * @param part of the picture after `turns`.
 * @param picture its size before them.
 */
export function unturned(part: Rect, picture: Size, turns: Turns): Rect {
  const { x, y, width, height } = part;
  switch (turns) {
    case 0:
      return part;
    case 1:
      return { x: y, y: picture.height - x - width, width: height, height: width };
    case 2:
      return { x: picture.width - x - width, y: picture.height - y - height, width, height };
    case 3:
      return { x: picture.width - y - height, y: x, width: height, height: width };
  }
}
