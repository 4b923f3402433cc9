/** The mask as pixels: opaque where the picture is to be repainted, clear elsewhere. */

import type { Size } from "./geometry";
import { type Operation, outline, pathData, type Stroke } from "./strokes";
import { type Brush, brushOf, encode, makeSurface, release, type Surface } from "./surface";

/** Repainting starts from a copy that is at most so many operations old. */
const CHECKPOINT_EVERY = 24;

interface Checkpoint {
  readonly operations: readonly Operation[];
  readonly surface: Surface;
}

/**
 * A mask of a picture's size, kept equal to a list of operations.
 *
 * A new stroke costs one operation; an undo repaints the operations after the nearest checkpoint.
 */
export class Mask {
  readonly surface: Surface;
  readonly #brush: Brush;
  readonly #live: Surface;
  readonly #liveBrush: Brush;
  #painted: readonly Operation[] = [];
  #checkpoint: Checkpoint | undefined;
  /** What is painted before the first operation; undefined for nothing. */
  readonly #base: Surface | undefined;

  /** @param base a mask of any size to start from: white is repainted. */
  constructor(
    readonly size: Size,
    base?: CanvasImageSource,
  ) {
    this.surface = makeSurface(size);
    this.#brush = brushOf(this.surface);
    this.#live = makeSurface(size);
    this.#liveBrush = brushOf(this.#live);
    this.#base = base && cutOut(base, size);
    this.#restore(undefined);
  }

  /** Make the pixels those of `operations`. */
  show(operations: readonly Operation[]): void {
    const base = [this.#painted, this.#checkpoint?.operations ?? []].find((candidate) =>
      startsWith(operations, candidate),
    );
    if (base !== this.#painted) this.#restore(base);
    const from = base?.length ?? 0;
    operations.slice(from).forEach((operation, index) => {
      this.#paint(this.#brush, operation);
      if ((from + index + 1) % CHECKPOINT_EVERY === 0) {
        this.#remember(operations.slice(0, from + index + 1));
      }
    });
    this.#painted = operations;
  }

  /** The mask with a stroke that is still being painted. Valid until the next call. */
  with(stroke: Stroke): Surface {
    this.#liveBrush.globalCompositeOperation = "copy";
    this.#liveBrush.drawImage(this.surface, 0, 0);
    this.#paint(this.#liveBrush, stroke);
    return this.#live;
  }

  /** Whether no pixel is painted. */
  get blank(): boolean {
    return !this.#pixels().data.some((value, index) => index % 4 === 3 && value >= HALF);
  }

  /** The mask as PNG: white is repainted, black is kept, nothing is in between. */
  async png(): Promise<Blob> {
    const pixels = this.#pixels();
    harden(pixels.data);
    const surface = makeSurface(this.size);
    brushOf(surface).putImageData(pixels, 0, 0);
    try {
      return await encode(surface, "image/png");
    } finally {
      release(surface);
    }
  }

  dispose(): void {
    for (const surface of [this.surface, this.#live, this.#checkpoint?.surface, this.#base]) {
      if (surface !== undefined) release(surface);
    }
  }

  #pixels(): ImageData {
    return this.#brush.getImageData(0, 0, this.size.width, this.size.height);
  }

  #paint(brush: Brush, operation: Operation): void {
    const { width, height } = this.size;
    brush.fillStyle = "#fff";
    if (operation.kind === "clear") {
      brush.clearRect(0, 0, width, height);
      return;
    }
    if (operation.kind === "invert") {
      // XOR with an opaque rectangle: what was clear is filled, what was filled is clear.
      brush.globalCompositeOperation = "xor";
      brush.fillRect(0, 0, width, height);
      return;
    }
    brush.globalCompositeOperation = operation.erases ? "destination-out" : "source-over";
    brush.fill(new Path2D(pathData(outline(operation))));
  }

  #restore(base: readonly Operation[] | undefined): void {
    if (base !== undefined && base === this.#checkpoint?.operations) {
      this.#brush.globalCompositeOperation = "copy";
      this.#brush.drawImage(this.#checkpoint.surface, 0, 0);
    } else {
      this.#brush.clearRect(0, 0, this.size.width, this.size.height);
      this.#brush.globalCompositeOperation = "source-over";
      if (this.#base) this.#brush.drawImage(this.#base, 0, 0);
    }
  }

  #remember(operations: readonly Operation[]): void {
    const surface = this.#checkpoint?.surface ?? makeSurface(this.size);
    const brush = brushOf(surface);
    brush.globalCompositeOperation = "copy";
    brush.drawImage(this.surface, 0, 0);
    this.#checkpoint = { operations, surface };
  }
}

const HALF = 128;

/** A black and white mask as pixels of ours: opaque where it is white. */
function cutOut(mask: CanvasImageSource, size: Size): Surface {
  const surface = makeSurface(size);
  const brush = brushOf(surface);
  brush.drawImage(mask, 0, 0, size.width, size.height);
  const pixels = brush.getImageData(0, 0, size.width, size.height);
  whiteOnly(pixels.data);
  brush.putImageData(pixels, 0, 0);
  return surface;
}

/** Makes RGBA pixels white where they were at least half white, and clear elsewhere. */
export function whiteOnly(rgba: Uint8ClampedArray): void {
  for (let offset = 0; offset < rgba.length; offset += 4) {
    const isWhite = (rgba[offset] ?? 0) >= HALF && (rgba[offset + 3] ?? 0) >= HALF;
    rgba.fill(255, offset, offset + 3);
    rgba[offset + 3] = isWhite ? 255 : 0;
  }
}

/** Makes RGBA pixels opaque: white where they were at least half covered, black elsewhere. */
export function harden(rgba: Uint8ClampedArray): void {
  for (let offset = 0; offset < rgba.length; offset += 4) {
    const value = (rgba[offset + 3] ?? 0) >= HALF ? 255 : 0;
    rgba[offset] = value;
    rgba[offset + 1] = value;
    rgba[offset + 2] = value;
    rgba[offset + 3] = 255;
  }
}

function startsWith<T>(list: readonly T[], start: readonly T[]): boolean {
  return start.length <= list.length && start.every((item, index) => item === list[index]);
}
