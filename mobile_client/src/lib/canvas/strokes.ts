/** Turns the path of a finger into the painted area. No DOM. */

import { getStroke } from "perfect-freehand";

/** x and y in the picture's pixels, pressure from 0 to 1. */
export type Dab = readonly [x: number, y: number, pressure: number];

export interface Stroke {
  readonly kind: "stroke";
  readonly dabs: readonly Dab[];
  /** Diameter in the picture's pixels, at medium pressure. */
  readonly size: number;
  readonly erases: boolean;
  /** Whether the device measured the pressure; a finger's is always the same. */
  readonly pressed: boolean;
}

/** A step of painting a mask. */
export type Operation = Stroke | { readonly kind: "clear" } | { readonly kind: "invert" };

type Outline = readonly (readonly [number, number])[];

/** The polygon around a stroke; round at both ends, a disc for a single dab. */
export function outline(stroke: Stroke): Outline {
  const first = stroke.dabs[0];
  if (first === undefined) return [];
  if (stroke.dabs.every(([x, y]) => x === first[0] && y === first[1])) {
    return disc(first, stroke);
  }
  return getStroke(stroke.dabs as unknown as number[][], {
    size: stroke.size,
    thinning: stroke.pressed ? 0.6 : 0,
    // Little smoothing: a mask must be where the finger was.
    smoothing: 0.4,
    streamline: 0.2,
    simulatePressure: false,
    last: true,
  });
}

const DISC_CORNERS = 32;

function disc([x, y, pressure]: Dab, stroke: Stroke): Outline {
  const radius = (stroke.size / 2) * (stroke.pressed ? 1 - 0.6 * (0.5 - pressure) : 1);
  return Array.from({ length: DISC_CORNERS }, (_, corner) => {
    const angle = (corner / DISC_CORNERS) * 2 * Math.PI;
    return [x + radius * Math.cos(angle), y + radius * Math.sin(angle)] as const;
  });
}

/** SVG path data of a smooth closed curve through the middles of the polygon's sides. */
export function pathData(points: Outline): string {
  if (points.length < 3) return "";
  const between = ([ax, ay]: readonly [number, number], [bx, by]: readonly [number, number]) =>
    `${round((ax + bx) / 2)} ${round((ay + by) / 2)}`;
  const last = points[points.length - 1] ?? [0, 0];
  const first = points[0] ?? [0, 0];
  let data = `M${between(last, first)}`;
  points.forEach((point, index) => {
    const next = points[(index + 1) % points.length] ?? first;
    data += `Q${round(point[0])} ${round(point[1])} ${between(point, next)}`;
  });
  return `${data}Z`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/**
 * Whether nothing is painted after these operations, judged without pixels.
 *
 * @param blank whether nothing is painted before them.
 */
export function isBlank(operations: readonly Operation[], blank = true): boolean {
  for (const operation of operations) {
    if (operation.kind === "clear") blank = true;
    else if (operation.kind === "invert") blank = false;
    else if (!operation.erases) blank = false;
  }
  return blank;
}
