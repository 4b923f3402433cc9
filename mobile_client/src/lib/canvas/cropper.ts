/** A photo under a frame of a chosen aspect ratio. The part in the frame is used. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import {
  clamp,
  cover,
  fitted,
  type Insets,
  type Pair,
  type Point,
  panBy,
  pinch,
  type Size,
  toPicture,
  type View,
  zoomTo,
} from "./geometry";
import { type Deeds, Hands } from "./hands";
import type { Crop, Photo } from "./photo";
import {
  centered,
  type Rect,
  type SizeLimits,
  type Turns,
  takenRatio,
  turned,
  usefulSize,
} from "./sizes";
import { type Brush, brushOf } from "./surface";

const MARGIN: Insets = { top: 16, right: 16, bottom: 16, left: 16 };
const MAX_PIXEL_RATIO = 2.5;

/** A ratio of width to height, or the photo's own. */
export type Ratio = number | "own";

/** What was chosen, to go on from there. */
export interface Cropping {
  readonly ratio: Ratio;
  readonly turns: Turns;
  /** Of the turned photo, in its pixels. */
  readonly part: Rect;
}

export class Cropper implements Deeds {
  readonly ratio = signal<Ratio>("own");
  readonly turns = signal<Turns>(0);
  /** Size of the result. */
  readonly result: ReadonlySignal<Size>;
  /** Whether the photo is too long for the model, so that a part of it has to be chosen. */
  readonly tooLong: ReadonlySignal<boolean>;
  /** Whether the crop has fewer pixels than the model's smallest picture. */
  readonly enlarged: ReadonlySignal<boolean>;

  readonly hands = new Hands(this);
  private readonly part: { value: Rect };
  private element: HTMLCanvasElement | undefined;
  private brush: Brush | undefined;
  private pixels = 1;
  private box: Size = { width: 1, height: 1 };
  private frame: Rect = { x: 0, y: 0, width: 1, height: 1 };
  private view: View = { scale: 1, x: 0, y: 0 };
  private request = 0;

  constructor(
    readonly photo: Photo,
    readonly limits: SizeLimits,
    before: Cropping | null = null,
  ) {
    const part = signal<Rect>(before?.part ?? { x: 0, y: 0, ...photo.size });
    this.part = part;
    if (before) {
      this.ratio.value = before.ratio;
      this.turns.value = before.turns;
    }
    this.result = computed(() => usefulSize(part.value, limits));
    this.tooLong = computed(
      () => this.ratio.value === "own" && this.shownRatio("own") !== this.ownRatio,
    );
    this.enlarged = computed(() => part.value.width < this.result.value.width * 0.9);
  }

  /** The part in the frame, less a few pixels: sizes come in steps, and nothing is stretched. */
  get crop(): Crop {
    const size = this.result.value;
    const framed = this.part.value;
    const inner = centered(framed, size.width / size.height);
    const part = { ...inner, x: framed.x + inner.x, y: framed.y + inner.y };
    return { part, turns: this.turns.value, size };
  }

  get cropping(): Cropping {
    return { ratio: this.ratio.value, turns: this.turns.value, part: this.part.value };
  }

  attach(element: HTMLCanvasElement): () => void {
    this.element = element;
    this.brush = brushOf(element);
    const observer = new ResizeObserver(() => this.measure());
    observer.observe(element);
    this.measure();
    return () => {
      observer.disconnect();
      cancelAnimationFrame(this.request);
      this.element = undefined;
      this.brush = undefined;
    };
  }

  shape(ratio: Ratio): void {
    this.ratio.value = ratio;
    this.reframe();
  }

  turn(): void {
    this.turns.value = ((this.turns.value + 1) % 4) as Turns;
    const { value } = this.ratio;
    // The frame turns with the photo.
    if (value !== "own") this.ratio.value = 1 / value;
    this.reframe();
  }

  zoom(factor: number, anchor?: Point): void {
    const { frame } = this;
    const at = anchor ?? { x: frame.x + frame.width / 2, y: frame.y + frame.height / 2 };
    this.look(zoomTo(this.view, at, clamp(this.view.scale * factor, this.least, this.most)));
  }

  pan(x: number, y: number): void {
    this.look(panBy(this.view, x, y));
  }

  pinch(from: Pair, to: Pair): void {
    this.look(pinch(this.view, from, to, this.least, this.most));
  }

  // Every finger moves the photo, because nothing is painted here.
  begin(): void {}
  extend(): void {}
  end(): void {}
  drop(): void {}

  private get upright(): Size {
    return turned(this.photo.size, this.turns.value);
  }

  private get least(): number {
    const { width, height } = this.upright;
    return Math.max(this.frame.width / width, this.frame.height / height);
  }

  /** At a larger scale the crop would have fewer pixels than the model takes. */
  private get most(): number {
    const side = Math.min(this.frame.width, this.frame.height);
    return Math.max(this.least, side / this.limits.min_side);
  }

  private measure(): void {
    const { element } = this;
    if (!element) return;
    this.pixels = Math.min(MAX_PIXEL_RATIO, window.devicePixelRatio || 1);
    this.box = { width: element.clientWidth, height: element.clientHeight };
    element.width = Math.max(1, Math.round(this.box.width * this.pixels));
    element.height = Math.max(1, Math.round(this.box.height * this.pixels));
    this.reframe(this.part.value);
  }

  private get ownRatio(): number {
    return this.upright.width / this.upright.height;
  }

  /** The ratio of the frame: the model takes no longer ones. */
  private shownRatio(ratio: Ratio): number {
    return takenRatio(ratio === "own" ? this.ownRatio : ratio, this.limits);
  }

  /** The largest frame around the middle of a part of the photo, with all of that in it. */
  private reframe(part: Rect = { x: 0, y: 0, ...this.upright }): void {
    const shape = { width: this.shownRatio(this.ratio.value), height: 1 };
    const fit = fitted(shape, this.box, MARGIN);
    const { x, y } = fit;
    this.frame = { x, y, width: shape.width * fit.scale, height: shape.height * fit.scale };
    const { width, height } = this.frame;
    const scale = Math.max(this.least, Math.min(width / part.width, height / part.height));
    this.look({
      scale,
      x: x + width / 2 - (part.x + part.width / 2) * scale,
      y: y + height / 2 - (part.y + part.height / 2) * scale,
    });
  }

  private look(view: View): void {
    this.view = cover(view, this.upright, this.frame);
    const corner = toPicture(this.view, this.frame);
    this.part.value = {
      x: Math.max(0, corner.x),
      y: Math.max(0, corner.y),
      width: this.frame.width / this.view.scale,
      height: this.frame.height / this.view.scale,
    };
    this.request ||= requestAnimationFrame(() => {
      this.request = 0;
      this.draw();
    });
  }

  private draw(): void {
    const { brush, element, pixels, frame } = this;
    if (!brush || !element) return;
    brush.setTransform(pixels, 0, 0, pixels, 0, 0);
    brush.clearRect(0, 0, this.box.width, this.box.height);
    this.drawPhoto(brush);
    brush.setTransform(pixels, 0, 0, pixels, 0, 0);
    // The photo outside the frame is drawn dimmed.
    brush.fillStyle = "rgb(0 0 0 / 66%)";
    brush.beginPath();
    brush.rect(0, 0, this.box.width, this.box.height);
    brush.rect(frame.x, frame.y, frame.width, frame.height);
    brush.fill("evenodd");
    brush.strokeStyle = "#fff";
    brush.lineWidth = 2;
    brush.strokeRect(frame.x, frame.y, frame.width, frame.height);
    this.drawThirds(brush);
  }

  private drawPhoto(brush: Brush): void {
    const { preview, size } = this.photo;
    const { width, height } = this.upright;
    const turns = this.turns.value;
    brush.translate(this.view.x, this.view.y);
    brush.scale(this.view.scale, this.view.scale);
    brush.translate(width / 2, height / 2);
    brush.rotate((turns * Math.PI) / 2);
    brush.imageSmoothingQuality = "high";
    brush.drawImage(preview, -size.width / 2, -size.height / 2, size.width, size.height);
  }

  private drawThirds(brush: Brush): void {
    const { x, y, width, height } = this.frame;
    brush.lineWidth = 1;
    brush.strokeStyle = "rgb(255 255 255 / 45%)";
    brush.beginPath();
    for (const third of [1 / 3, 2 / 3]) {
      brush.moveTo(x + width * third, y);
      brush.lineTo(x + width * third, y + height);
      brush.moveTo(x, y + height * third);
      brush.lineTo(x + width, y + height * third);
    }
    brush.stroke();
  }
}
