/** Canvases, on or off the screen. */

import type { Size } from "./geometry";

export type Surface = HTMLCanvasElement | OffscreenCanvas;
export type Brush = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** The browser refused memory for a canvas, or cannot encode it. */
export class CanvasError extends Error {
  override readonly name = "CanvasError";
}

/** A canvas that is not on the page. */
export function makeSurface({ width, height }: Size): Surface {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** @throws CanvasError */
export function brushOf(surface: Surface): Brush {
  const brush = surface.getContext("2d") as Brush | null;
  if (brush === null) throw new CanvasError("no 2d context");
  return brush;
}

/** @throws CanvasError */
export async function encode(surface: Surface, type: string, quality?: number): Promise<Blob> {
  const options = quality === undefined ? { type } : { type, quality };
  if ("convertToBlob" in surface) return surface.convertToBlob(options);
  return new Promise((resolve, reject) => {
    surface.toBlob(
      (blob) => (blob === null ? reject(new CanvasError(`no ${type}`)) : resolve(blob)),
      type,
      quality,
    );
  });
}

/** Frees the memory now: browsers limit canvases without waiting for garbage collection. */
export function release(surface: Surface): void {
  surface.width = 0;
  surface.height = 0;
}

/** A small picture as a data URI. */
export function dataUri(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
