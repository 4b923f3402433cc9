/**
 * Gestures of the picture viewer: pinch and double tap zoom; one finger moves a zoomed picture, swipes
 * to the next one, or pulls down to close. No DOM.
 */

import {
  clamp,
  fitted,
  keepInside,
  type Pair,
  type Point,
  panBy,
  pinch,
  type Size,
  type View,
  zoomTo,
} from "./geometry";
import { type Contact, type Deeds, Hands } from "./hands";

export interface Seen {
  readonly view: View;
  /** How far an unzoomed picture was pulled from its place. CSS pixels. */
  readonly drag: Point;
  /** Whether fingers hold it: then it follows them, otherwise it animates. */
  readonly held: boolean;
}

export interface Wishes {
  show(seen: Seen): void;
  newer(): void;
  older(): void;
  leave(): void;
  tap(): void;
}

const SLOP_PX = 10;
const TAP_MS = 300;
const DOUBLE_TAP_MS = 300;
const DOUBLE_TAP_PX = 40;
const ZOOMED = 1.02;
const DOUBLE_TAP_ZOOM = 2.5;
const CLOSEST = 8;
/** A swipe counts when it went this part of the width, or was this quick in px per ms. */
const FAR = 0.28;
const QUICK = 0.45;
const PULL_PX = 110;
const NOWHERE: Point = { x: 0, y: 0 };

export class Viewing implements Deeds {
  private readonly hands = new Hands(this);
  private view: View = { scale: 1, x: 0, y: 0 };
  private picture: Size = { width: 1, height: 1 };
  private box: Size = { width: 1, height: 1 };
  private drag: Point = NOWHERE;
  private axis: "x" | "y" | undefined;
  private fingers = 0;
  private first: Contact | undefined;
  private moved = false;
  private pinched = false;
  private lastTap: { at: Point; time: number; single: () => void } | undefined;

  constructor(
    private readonly wishes: Wishes,
    private readonly wait: (run: () => void, ms: number) => () => void = later,
  ) {}

  /** Fits another picture, or the picture on another screen size. */
  reset(picture: Size, box: Size): void {
    this.picture = picture;
    this.box = box;
    this.view = fitted(picture, box);
    this.drag = NOWHERE;
    this.show();
  }

  get zoomed(): boolean {
    return this.view.scale > this.fit.scale * ZOOMED;
  }

  down(contact: Contact): void {
    if (this.fingers === 0) {
      this.first = contact;
      this.moved = false;
      this.pinched = false;
      this.axis = undefined;
    }
    this.fingers += 1;
    this.hands.down({ ...contact, pans: true });
  }

  move(contact: Contact): void {
    if (this.fingers > 0) this.hands.move([{ ...contact, pans: true }]);
  }

  up(contact: Contact): void {
    if (this.fingers === 0) return;
    this.fingers -= 1;
    this.hands.up(contact.id);
    if (this.fingers > 0) return;
    if (!this.moved && !this.pinched) this.tapped(contact);
    else if (this.drag !== NOWHERE) this.released(contact);
    else this.settle();
  }

  cancel(contact: Contact): void {
    this.fingers = Math.max(0, this.fingers - 1);
    this.hands.up(contact.id);
    this.settle();
  }

  /** By wheel and keys. */
  zoom(factor: number, anchor: Point = this.middle): void {
    const scale = clamp(this.view.scale * factor, this.fit.scale, this.most);
    this.look(zoomTo(this.view, anchor, scale));
  }

  pan(x: number, y: number): void {
    if (!this.begun(x, y)) return;
    if (this.zoomed) this.look(panBy(this.view, x, y));
    else this.pull(x, y);
  }

  pinch(from: Pair, to: Pair): void {
    this.pinched = true;
    this.drag = NOWHERE;
    // Fingers may shrink it a little below the fitting size; it springs back when they are lifted.
    this.view = pinch(this.view, from, to, this.fit.scale * 0.7, this.most);
    this.show();
  }

  begin(): void {}
  extend(): void {}
  end(): void {}
  drop(): void {}

  private get fit(): View {
    return fitted(this.picture, this.box);
  }

  private get most(): number {
    return Math.max(this.fit.scale * CLOSEST, 4);
  }

  private get middle(): Point {
    return { x: this.box.width / 2, y: this.box.height / 2 };
  }

  private travelled: Point = NOWHERE;

  /** Whether the finger moved far enough to count as a move. */
  private begun(x: number, y: number): boolean {
    if (this.moved) return true;
    this.travelled = { x: this.travelled.x + x, y: this.travelled.y + y };
    if (Math.hypot(this.travelled.x, this.travelled.y) < SLOP_PX) return false;
    this.axis = Math.abs(this.travelled.x) >= Math.abs(this.travelled.y) ? "x" : "y";
    this.moved = true;
    this.travelled = NOWHERE;
    return true;
  }

  private pull(x: number, y: number): void {
    this.drag =
      this.axis === "x" ? { x: this.drag.x + x, y: 0 } : { x: 0, y: Math.max(0, this.drag.y + y) };
    this.show();
  }

  private released(contact: Contact): void {
    const elapsed = Math.max(1, contact.time - (this.first?.time ?? contact.time));
    const { x, y } = this.drag;
    this.drag = NOWHERE;
    const isSwipe = Math.abs(x) > this.box.width * FAR || Math.abs(x) / elapsed > QUICK;
    if (x > 0 && isSwipe) this.wishes.newer();
    else if (x < 0 && isSwipe) this.wishes.older();
    else if (y > PULL_PX) this.wishes.leave();
    this.settle();
  }

  private tapped(contact: Contact): void {
    this.travelled = NOWHERE;
    if (contact.time - (this.first?.time ?? 0) > TAP_MS) {
      this.settle(); // a long press opens the browser's menu and is not a tap
      return;
    }
    const last = this.lastTap;
    const isSecond =
      last !== undefined &&
      contact.time - last.time < DOUBLE_TAP_MS &&
      Math.hypot(contact.x - last.at.x, contact.y - last.at.y) < DOUBLE_TAP_PX;
    if (isSecond) {
      last.single();
      this.lastTap = undefined;
      this.toggleZoom(contact);
      return;
    }
    const stop = this.wait(() => this.wishes.tap(), DOUBLE_TAP_MS);
    this.lastTap = { at: contact, time: contact.time, single: stop };
  }

  private toggleZoom(at: Point): void {
    if (this.zoomed) this.look(this.fit);
    else this.look(zoomTo(this.view, at, Math.min(this.most, this.fit.scale * DOUBLE_TAP_ZOOM)));
  }

  /** Moves the picture back into bounds. */
  private settle(): void {
    this.travelled = NOWHERE;
    this.look(this.view.scale < this.fit.scale ? this.fit : this.view);
  }

  private look(view: View): void {
    this.view = keepInside(view, this.picture, this.box);
    this.show();
  }

  private show(): void {
    this.wishes.show({ view: this.view, drag: this.drag, held: this.fingers > 0 });
  }
}

function later(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
}
