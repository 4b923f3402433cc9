/** Places on the grid of a map: touched, moved by keys, and put into words. No DOM. */

import { clamp, type Point, type Size } from "../canvas/geometry";
import type { Cell, Grid } from "./maps";

/** A ninth of the picture: rows top, middle, bottom; columns left, centre, right. */
export type Region = `${"top" | "middle" | "bottom"}-${"left" | "centre" | "right"}`;

const ROWS = ["top", "middle", "bottom"] as const;
const COLUMNS = ["left", "centre", "right"] as const;
/** Regions are named whose mean is at least so much of the greatest one's. */
const NEARLY_AS_MUCH = 0.85;
const MOST_REGIONS = 2;

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
};

/** The cell at a point of a picture that is shown at this size. */
export function cellAt({ x, y }: Point, shown: Size, grid: Omit<Grid, "values">): Cell {
  return inside(
    {
      row: Math.floor((y / shown.height) * grid.height),
      column: Math.floor((x / shown.width) * grid.width),
    },
    grid,
  );
}

/** Where an arrow key leads, from the middle if there is no cell yet; null for other keys. */
export function moved(cell: Cell | null, key: string, grid: Omit<Grid, "values">): Cell | null {
  const arrow = ARROWS[key];
  if (!arrow) return null;
  if (!cell) return { row: grid.height >> 1, column: grid.width >> 1 };
  return inside({ row: cell.row + arrow[0], column: cell.column + arrow[1] }, grid);
}

function inside({ row, column }: Cell, { height, width }: Omit<Grid, "values">): Cell {
  return { row: clamp(row, 0, height - 1), column: clamp(column, 0, width - 1) };
}

export function regionOf({ row, column }: Cell, grid: Omit<Grid, "values">): Region {
  const third = (at: number, length: number) => Math.min(2, Math.floor(((at + 0.5) / length) * 3));
  const [up, across] = [third(row, grid.height), third(column, grid.width)];
  return `${ROWS[up] ?? "middle"}-${COLUMNS[across] ?? "centre"}`;
}

/** The one or two regions with the most, greatest first; none if there is nothing anywhere. */
export function brightest(grid: Grid): Region[] {
  const sums = new Map<Region, { sum: number; count: number }>();
  grid.values.forEach((value, at) => {
    const cell = { row: Math.floor(at / grid.width), column: at % grid.width };
    const region = regionOf(cell, grid);
    const before = sums.get(region) ?? { sum: 0, count: 0 };
    sums.set(region, { sum: before.sum + value, count: before.count + 1 });
  });
  const means = [...sums].map(([region, { sum, count }]) => [region, sum / count] as const);
  means.sort(([, one], [, other]) => other - one);
  const most = means[0]?.[1] ?? 0;
  if (most <= 0) return [];
  return means
    .filter(([, mean]) => mean >= most * NEARLY_AS_MUCH)
    .slice(0, MOST_REGIONS)
    .map(([region]) => region);
}
