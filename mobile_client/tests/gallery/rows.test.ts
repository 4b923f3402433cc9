import { describe, expect, it } from "vitest";
import { inSight, layOut } from "../../src/components/gallery/rows";

/** Pictures of days, newest first: `[3, 5]` are three of the last day and five of the one before. */
function pictures(days: number[]) {
  return days.flatMap((count, day) =>
    Array.from({ length: count }, (_, index) => ({
      id: `${day}-${index}`,
      createdAt: new Date(2026, 4, 28 - day, 12).toISOString(),
    })),
  );
}

describe("the layout", () => {
  it("begins each day under its name, in a row of its own", () => {
    const { rows, columns } = layOut(pictures([4, 2]), 360);
    expect(columns).toBe(3);
    expect(rows.map((row) => (row.kind === "day" ? "day" : `${row.from}-${row.to}`))).toEqual([
      "day",
      "0-3",
      "3-4",
      "day",
      "4-6",
    ]);
  });

  it("leaves no picture out and none twice", () => {
    const all = pictures([7, 1, 30, 3]);
    const { rows } = layOut(all, 900);
    const shown = rows.flatMap((row) =>
      row.kind === "pictures" ? all.slice(row.from, row.to).map(({ id }) => id) : [],
    );
    expect(shown).toEqual(all.map(({ id }) => id));
  });

  it("stacks rows without gap or overlap, up to its height", () => {
    const { rows, height } = layOut(pictures([5, 5]), 360);
    let top = 0;
    for (const row of rows) {
      expect(row.top).toBeCloseTo(top);
      top += row.height;
    }
    expect(height).toBeCloseTo(top);
  });

  it.each([320, 390, 768, 1440])("fills %i px", (width) => {
    const { columns, cell } = layOut(pictures([1]), width);
    expect(columns * cell + (columns - 1) * 4).toBeCloseTo(width);
    expect(cell).toBeGreaterThan(100);
    expect(cell).toBeLessThanOrEqual(180);
  });

  it("of nothing is nothing", () => {
    expect(layOut([], 360)).toMatchObject({ rows: [], height: 0 });
  });
});

describe("what is in sight", () => {
  const { rows, height } = layOut(pictures([3000]), 360);

  it("is a handful of rows, wherever one is among thousands", () => {
    for (const top of [0, 500, height / 2, height - 700]) {
      const [first, end] = inSight(rows, top, top + 700);
      expect(end - first).toBeLessThan(9);
      expect(rows[first]?.top).toBeLessThanOrEqual(top + 44);
      const last = rows[end - 1];
      expect((last?.top ?? 0) + (last?.height ?? 0)).toBeGreaterThanOrEqual(top + 690);
    }
  });

  it("is nothing past the end", () => {
    expect(inSight(rows, height + 100, height + 800)).toEqual([rows.length, rows.length]);
  });
});
