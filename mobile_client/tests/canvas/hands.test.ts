import { beforeEach, describe, expect, it } from "vitest";
import { type Contact, Hands } from "../../src/lib/canvas/hands";

let said: string[];
let hands: Hands;

beforeEach(() => {
  said = [];
  hands = new Hands({
    begin: (contact) => said.push(`begin ${contact.x},${contact.y}`),
    extend: (contacts) => said.push(`extend ${contacts.length}`),
    end: () => said.push("end"),
    drop: () => said.push("drop"),
    pan: (x, y) => said.push(`pan ${x},${y}`),
    pinch: (from, to) => said.push(`pinch ${JSON.stringify([from, to].map(xs))}`),
  });
});

const xs = (pair: readonly [{ x: number }, { x: number }]) => pair.map((point) => point.x);

function at(id: number, x: number, more: Partial<Contact> = {}): Contact {
  return { id, x, y: 0, type: "touch", pressure: 0.5, time: 0, pans: false, ...more };
}

describe("one finger", () => {
  it("paints", () => {
    hands.down(at(1, 0));
    hands.move([at(1, 5), at(1, 10)]);
    hands.up(1);
    expect(said).toEqual(["begin 0,0", "extend 2", "end"]);
  });

  it("loses its stroke when the system takes the pointer", () => {
    hands.down(at(1, 0));
    hands.cancel(1);
    expect(said).toEqual(["begin 0,0", "drop"]);
  });

  it("moves the picture with the middle button", () => {
    hands.down(at(1, 0, { type: "mouse", pans: true }));
    hands.move([at(1, 7)]);
    hands.up(1);
    expect(said).toEqual(["pan 7,0"]);
  });
});

describe("two fingers", () => {
  it("zoom, and what the first began to paint is dropped", () => {
    hands.down(at(1, 0));
    hands.move([at(1, 3)]);
    hands.down(at(2, 100, { time: 900 }));
    hands.move([at(2, 120)]);
    expect(said.slice(2)).toEqual(["drop", "pinch [[3,100],[3,120]]"]);
  });

  it("keep a stroke that was meant", () => {
    hands.down(at(1, 0));
    hands.move([at(1, 80)]);
    hands.down(at(2, 100, { time: 900 }));
    expect(said).toEqual(["begin 0,0", "extend 1", "end"]);
  });

  it("do not paint with the finger that is lifted last", () => {
    hands.down(at(1, 0));
    hands.down(at(2, 100));
    hands.up(2);
    hands.move([at(1, 50)]);
    hands.up(1);
    expect(said).toEqual(["begin 0,0", "drop"]);
    hands.down(at(3, 9));
    expect(said.at(-1)).toBe("begin 9,0");
  });

  it("are joined by a third in vain", () => {
    hands.down(at(1, 0));
    hands.down(at(2, 100));
    hands.down(at(3, 50));
    hands.move([at(3, 60)]);
    expect(said).toEqual(["begin 0,0", "drop"]);
  });
});

describe("a pen", () => {
  it("paints while the hand rests on the screen", () => {
    hands.down(at(1, 0, { type: "pen" }));
    hands.down(at(2, 300));
    hands.move([at(2, 310)]);
    hands.move([at(1, 5, { type: "pen" })]);
    hands.up(2);
    hands.up(1);
    expect(said).toEqual(["begin 0,0", "extend 1", "end"]);
  });

  it("takes over from a hand that came first", () => {
    hands.down(at(2, 300));
    hands.down(at(1, 0, { type: "pen" }));
    expect(said).toEqual(["begin 300,0", "drop", "begin 0,0"]);
  });

  it("leaves fingers the moving of the picture", () => {
    hands.down(at(1, 0, { type: "pen" }));
    hands.up(1);
    hands.down(at(2, 0));
    hands.move([at(2, 8)]);
    expect(said).toEqual(["begin 0,0", "end", "pan 8,0"]);
  });
});
