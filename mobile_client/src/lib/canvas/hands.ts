/**
 * Tells painting from moving: one finger, a pen or a mouse paints, two fingers pan and zoom. No DOM:
 * it takes the needed parts of pointer events.
 */

import { distance, type Pair, type Point } from "./geometry";

export interface Contact extends Point {
  readonly id: number;
  readonly type: string;
  /** From 0 to 1. */
  readonly pressure: number;
  /** Milliseconds, of any clock. */
  readonly time: number;
  /** True if it moves the picture: a middle button, or a held space bar. */
  readonly pans: boolean;
}

export interface Deeds {
  begin(contact: Contact): void;
  extend(contacts: readonly Contact[]): void;
  end(): void;
  /** The stroke was unintended. */
  drop(): void;
  pan(x: number, y: number): void;
  pinch(from: Pair, to: Pair): void;
}

/** A shorter stroke that a second finger joins is the start of a pinch. */
const MEANT_AFTER_MS = 250;
const MEANT_AFTER_PX = 14;

type State =
  | { readonly kind: "idle" }
  | { readonly kind: "painting"; readonly first: Contact; travelled: number }
  | { readonly kind: "panning"; readonly id: number }
  | { readonly kind: "pinching"; readonly ids: readonly [number, number] }
  // After a pinch, the remaining fingers do nothing until all are lifted.
  | { readonly kind: "resting" };

export class Hands {
  readonly #deeds: Deeds;
  readonly #down = new Map<number, Contact>();
  #state: State = { kind: "idle" };
  /** Once a pen was used, only it paints; fingers and the palm do not. */
  #penSeen = false;

  constructor(deeds: Deeds) {
    this.#deeds = deeds;
  }

  down(contact: Contact): void {
    if (contact.type === "pen") this.#takePen();
    if (this.#penPaints()) return;
    this.#down.set(contact.id, contact);
    const state = this.#state;
    if (state.kind === "idle") this.#start(contact);
    else if (contact.type === "touch") this.#join(contact, state);
  }

  /** @param contacts of one pointer, oldest first: all that happened since the last call. */
  move(contacts: readonly Contact[]): void {
    const now = contacts.at(-1);
    const before = now && this.#down.get(now.id);
    if (!now || !before) return;
    this.#down.set(now.id, now);
    const state = this.#state;
    if (state.kind === "painting" && state.first.id === now.id) {
      state.travelled = Math.max(state.travelled, distance(state.first, now));
      this.#deeds.extend(contacts);
    } else if (state.kind === "panning" && state.id === now.id) {
      this.#deeds.pan(now.x - before.x, now.y - before.y);
    } else if (state.kind === "pinching" && state.ids.includes(now.id)) {
      this.#pinch(state.ids, now.id, before);
    }
  }

  up(id: number): void {
    this.#leave(id, () => this.#deeds.end());
  }

  /** The system took the pointer for its own gesture. */
  cancel(id: number): void {
    this.#leave(id, () => this.#deeds.drop());
  }

  #takePen(): void {
    this.#penSeen = true;
    if (this.#state.kind === "painting") this.#deeds.drop();
    this.#down.clear();
    this.#state = { kind: "idle" };
  }

  #penPaints(): boolean {
    return this.#state.kind === "painting" && this.#state.first.type === "pen";
  }

  #start(contact: Contact): void {
    if (contact.pans || (this.#penSeen && contact.type === "touch")) {
      this.#state = { kind: "panning", id: contact.id };
    } else {
      this.#state = { kind: "painting", first: contact, travelled: 0 };
      this.#deeds.begin(contact);
    }
  }

  #join(contact: Contact, state: State): void {
    if (state.kind === "painting" && state.first.type === "touch") {
      const brief = contact.time - state.first.time < MEANT_AFTER_MS;
      if (brief || state.travelled < MEANT_AFTER_PX) this.#deeds.drop();
      else this.#deeds.end();
      this.#state = { kind: "pinching", ids: [state.first.id, contact.id] };
    } else if (state.kind === "panning") {
      this.#state = { kind: "pinching", ids: [state.id, contact.id] };
    }
  }

  #pinch(ids: readonly [number, number], moved: number, before: Contact): void {
    const [a, b] = ids.map((id) => this.#down.get(id));
    if (!a || !b) return;
    const from: Pair = moved === a.id ? [before, b] : [a, before];
    this.#deeds.pinch(from, [a, b]);
  }

  #leave(id: number, finish: () => void): void {
    if (!this.#down.delete(id)) return;
    const state = this.#state;
    if (state.kind === "painting" && state.first.id === id) {
      finish();
      this.#state = { kind: "resting" };
    } else if (state.kind === "panning" && state.id === id) {
      this.#state = { kind: "resting" };
    } else if (state.kind === "pinching" && state.ids.includes(id)) {
      this.#state = { kind: "resting" };
    }
    if (this.#down.size === 0) this.#state = { kind: "idle" };
  }
}
