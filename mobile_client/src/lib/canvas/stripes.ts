/** The pattern of a mask: stripes in the accent colour, visible on pictures of any colour. */

import { type Brush, brushOf, makeSurface } from "./surface";

/** @param pixel canvas pixels to a CSS pixel. */
export function stripes(brush: Brush, colour: string, pixel: number): CanvasPattern | string {
  const side = Math.round(10 * pixel);
  const tile = makeSurface({ width: side, height: side });
  const draw = brushOf(tile);
  draw.fillStyle = colour;
  draw.fillRect(0, 0, side, side);
  draw.strokeStyle = "rgb(255 255 255 / 70%)";
  draw.lineWidth = side / 6;
  // Three lines, so that the stripe continues over the tile's corners.
  for (const shift of [-side, 0, side]) {
    draw.beginPath();
    draw.moveTo(shift - side / 2, side * 1.5);
    draw.lineTo(shift + side * 1.5, -side / 2);
    draw.stroke();
  }
  return brush.createPattern(tile, "repeat") ?? colour;
}
