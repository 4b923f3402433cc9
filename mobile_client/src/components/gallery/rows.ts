/** Computes the layout of the gallery, so that only visible thumbnails are in the DOM. */

export interface Dated {
  readonly id: string;
  /** RFC 3339. */
  readonly createdAt: string;
}

export interface DayRow {
  readonly kind: "day";
  /** Of the first picture of the day. */
  readonly createdAt: string;
  readonly top: number;
  readonly height: number;
}

export interface PictureRow {
  readonly kind: "pictures";
  /** Range of pictures: first index, and index after the last. */
  readonly from: number;
  readonly to: number;
  readonly top: number;
  readonly height: number;
}

export type Row = DayRow | PictureRow;

export interface Layout {
  readonly columns: number;
  /** The side of a thumbnail. CSS pixels, as everything here. */
  readonly cell: number;
  readonly rows: readonly Row[];
  readonly height: number;
}

export const GAP = 4;
const DAY_HEIGHT = 44;
const LEAST_CELL = 104;
const MOST_CELL = 180;

export function layOut(pictures: readonly Dated[], width: number): Layout {
  const most = Math.max(3, Math.floor((width + GAP) / (LEAST_CELL + GAP)));
  const least = Math.ceil((width + GAP) / (MOST_CELL + GAP));
  // Three columns on an upright phone; on wider screens thumbnails grow before a column is added.
  const columns = Math.max(3, Math.min(most, least));
  const cell = Math.max(1, (width - GAP * (columns - 1)) / columns);
  const rows: Row[] = [];
  let top = 0;
  let day = "";
  let from = 0;
  for (let index = 0; index <= pictures.length; index += 1) {
    const picture = pictures[index];
    const its = picture ? dayOf(picture.createdAt) : "";
    const isFull = index - from === columns;
    if (index > from && (isFull || its !== day)) {
      rows.push({ kind: "pictures", from, to: index, top, height: cell + GAP });
      top += cell + GAP;
      from = index;
    }
    if (picture && its !== day) {
      rows.push({ kind: "day", createdAt: picture.createdAt, top, height: DAY_HEIGHT });
      top += DAY_HEIGHT;
      day = its;
    }
  }
  return { columns, cell, rows, height: top };
}

/** The rows from `top` to `bottom`: indexes of the first, and after the last. */
export function inSight(
  rows: readonly Row[],
  top: number,
  bottom: number,
): readonly [number, number] {
  const first = firstThat(rows, (row) => row.top + row.height > top);
  const end = firstThat(rows, (row) => row.top >= bottom);
  return [first, Math.max(first, end)];
}

/** The calendar day in this device's time zone. */
export function dayOf(time: string): string {
  const date = new Date(time);
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`;
}

function firstThat(rows: readonly Row[], is: (row: Row) => boolean): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const row = rows[middle];
    if (row && is(row)) high = middle;
    else low = middle + 1;
  }
  return low;
}
