import { beforeEach, describe, expect, it } from "vitest";
import type { Contact } from "../../src/lib/canvas/hands";
import { type Seen, Viewing } from "../../src/lib/canvas/viewing";

let said: string[];
let seen: Seen;
let viewing: Viewing;
let waiting: (() => void)[];

beforeEach(() => {
  said = [];
  waiting = [];
  viewing = new Viewing(
    {
      show: (now) => {
        seen = now;
      },
      newer: () => said.push("newer"),
      older: () => said.push("older"),
      leave: () => said.push("leave"),
      tap: () => said.push("tap"),
    },
    (run) => {
      waiting.push(run);
      return () => {
        waiting = waiting.filter((each) => each !== run);
      };
    },
  );
  viewing.reset({ width: 100, height: 100 }, { width: 400, height: 600 });
});

function at(x: number, y: number, time: number, id = 1): Contact {
  return { id, x, y, time, type: "touch", pressure: 0.5, pans: false };
}

function swipe(from: [number, number], to: [number, number], ms: number): void {
  viewing.down(at(...from, 0));
  for (let step = 1; step <= 5; step += 1) {
    const part = step / 5;
    const x = from[0] + (to[0] - from[0]) * part;
    const y = from[1] + (to[1] - from[1]) * part;
    viewing.move(at(x, y, ms * part));
  }
  viewing.up(at(...to, ms));
}

function tap(x: number, y: number, time: number): void {
  viewing.down(at(x, y, time));
  viewing.up(at(x, y, time + 50));
}

describe("a picture that is shown whole", () => {
  it("lies in the middle", () => {
    expect(seen.view).toEqual({ scale: 4, x: 0, y: 100 });
  });

  it("gives way to its neighbours when it is swiped far, or quickly", () => {
    swipe([300, 300], [100, 310], 900);
    swipe([100, 300], [180, 300], 100);
    expect(said).toEqual(["older", "newer"]);
  });

  it("stays when it is not", () => {
    swipe([300, 300], [260, 300], 900);
    expect(said).toEqual([]);
    expect(seen.drag).toEqual({ x: 0, y: 0 });
  });

  it("can be pulled down and away", () => {
    swipe([200, 200], [210, 400], 500);
    expect(said).toEqual(["leave"]);
  });

  it("follows the finger along one axis only", () => {
    viewing.down(at(200, 300, 0));
    viewing.move(at(180, 302, 10));
    viewing.move(at(150, 340, 20));
    expect(seen.drag.y).toBe(0);
    expect(seen.drag.x).toBeLessThan(-40);
    expect(seen.held).toBe(true);
  });
});

describe("tapping", () => {
  it("once shows or hides the bars, when no second tap came", () => {
    tap(200, 300, 0);
    expect(said).toEqual([]);
    for (const run of waiting) run();
    expect(said).toEqual(["tap"]);
  });

  it("twice zooms to the place, and twice again shows all", () => {
    tap(200, 300, 0);
    tap(205, 302, 150);
    expect(seen.view.scale).toBe(10);
    expect(waiting).toEqual([]);
    tap(200, 300, 1000);
    tap(205, 302, 1150);
    expect(seen.view.scale).toBe(4);
    expect(said).toEqual([]);
  });
});

describe("a zoomed picture", () => {
  beforeEach(() => {
    tap(200, 300, 0);
    tap(200, 300, 100);
  });

  it("moves under the finger, and does not leave", () => {
    const before = seen.view.x;
    swipe([300, 300], [100, 300], 500);
    expect(said).toEqual([]);
    expect(seen.view.x).toBeLessThan(before);
  });

  it("never shows a gap at its edges", () => {
    swipe([0, 0], [5000, 5000], 500);
    expect(seen.view).toMatchObject({ x: 0, y: 0 });
  });
});

describe("pinching", () => {
  it("springs back when the picture becomes too small", () => {
    viewing.down(at(100, 300, 0, 1));
    viewing.down(at(300, 300, 0, 2));
    viewing.move(at(190, 300, 10, 1));
    viewing.move(at(210, 300, 10, 2));
    expect(seen.view.scale).toBeLessThan(4);
    viewing.up(at(190, 300, 20, 1));
    viewing.up(at(210, 300, 20, 2));
    expect(seen.view.scale).toBe(4);
    expect(said).toEqual([]);
  });
});
