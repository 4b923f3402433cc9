/** The position of a picture on the screen: fitting, panning and zooming. No DOM. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Screen position = picture position × scale + (x, y). Screen units are CSS pixels. */
export interface View {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

export interface Insets {
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
  readonly left: number;
}

export const NO_INSETS: Insets = { top: 0, right: 0, bottom: 0, left: 0 };

/** Two fingers. */
export type Pair = readonly [Point, Point];

export function distance(a: Point, b: Point): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

export function middle([a, b]: Pair): Point {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** The view that shows the full picture in the middle of the box less its insets. */
export function fitted(picture: Size, box: Size, insets: Insets = NO_INSETS): View {
  const width = Math.max(1, box.width - insets.left - insets.right);
  const height = Math.max(1, box.height - insets.top - insets.bottom);
  const scale = Math.min(width / picture.width, height / picture.height);
  return {
    scale,
    x: insets.left + (width - picture.width * scale) / 2,
    y: insets.top + (height - picture.height * scale) / 2,
  };
}

export function toPicture(view: View, screen: Point): Point {
  return { x: (screen.x - view.x) / view.scale, y: (screen.y - view.y) / view.scale };
}

export function toScreen(view: View, picture: Point): Point {
  return { x: picture.x * view.scale + view.x, y: picture.y * view.scale + view.y };
}

/** The view at another scale; the point under `anchor` stays in place. */
export function zoomTo(view: View, anchor: Point, scale: number): View {
  const factor = scale / view.scale;
  return {
    scale,
    x: anchor.x - (anchor.x - view.x) * factor,
    y: anchor.y - (anchor.y - view.y) * factor,
  };
}

export function panBy(view: View, x: number, y: number): View {
  return { scale: view.scale, x: view.x + x, y: view.y + y };
}

/** The view after two fingers moved; the picture follows both. */
export function pinch(view: View, from: Pair, to: Pair, low: number, high: number): View {
  const before = middle(from);
  const after = middle(to);
  // At least one pixel, so that the factor stays finite.
  const factor = Math.max(1, distance(...to)) / Math.max(1, distance(...from));
  const moved = panBy(view, after.x - before.x, after.y - before.y);
  return zoomTo(moved, after, clamp(view.scale * factor, low, high));
}

/**
 * The nearest view that keeps the picture on screen: centred along an axis where it is smaller than
 * the box, without a gap at either edge where it is larger.
 */
export function keepInside(view: View, picture: Size, box: Size, insets: Insets = NO_INSETS): View {
  return {
    scale: view.scale,
    x: along(view.x, picture.width * view.scale, insets.left, box.width - insets.right),
    y: along(view.y, picture.height * view.scale, insets.top, box.height - insets.bottom),
  };
}

function along(start: number, length: number, low: number, high: number): number {
  const room = high - low - length;
  return room >= 0 ? low + room / 2 : clamp(start, high - length, low);
}

/** The nearest view in which the picture covers the frame, as a crop must. */
export function cover(view: View, picture: Size, frame: Point & Size): View {
  const scale = Math.max(view.scale, frame.width / picture.width, frame.height / picture.height);
  const center = { x: frame.x + frame.width / 2, y: frame.y + frame.height / 2 };
  const zoomed = scale === view.scale ? view : zoomTo(view, center, scale);
  return {
    scale,
    x: clamp(zoomed.x, frame.x + frame.width - picture.width * scale, frame.x),
    y: clamp(zoomed.y, frame.y + frame.height - picture.height * scale, frame.y),
  };
}
