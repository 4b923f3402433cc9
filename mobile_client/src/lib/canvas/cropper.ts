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
import { centered, type Rect, type SizeLimits, type Turns, turned, usefulSize } from "./sizes";
import { type Brush, brushOf } from "./surface";

const MARGIN: Insets = { top: 16, right: 16, bottom: 16, left: 16 };
const MAX_PIXEL_RATIO = 2.5;

/** A ratio of width to height, or the photo's own. */
export type Ratio = number | "own";

export class Cropper implements Deeds {
  readonly ratio = signal<Ratio>("own");
  readonly turns = signal<Turns>(0);
  /** Size of the result. */
  readonly result: ReadonlySignal<Size>;

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
  ) {
    const part = signal<Rect>({ x: 0, y: 0, ...photo.size });
    this.part = part;
    this.result = computed(() => usefulSize(part.value, limits));
  }

  /** The part in the frame, less a few pixels: sizes come in steps, and nothing is stretched. */
  get crop(): Crop {
    const size = this.result.value;
    const framed = this.part.value;
    const inner = centered(framed, size.width / size.height);
    const part = { ...inner, x: framed.x + inner.x, y: framed.y + inner.y };
    return { part, turns: this.turns.value, size };
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
    this.reframe();
  }

  /** The largest frame, with as much of the photo in it as fits. */
  private reframe(): void {
    const own = this.upright.width / this.upright.height;
    const ratio = this.ratio.value === "own" ? own : this.ratio.value;
    const shape = { width: ratio, height: 1 };
    const { scale, x, y } = fitted(shape, this.box, MARGIN);
    this.frame = { x, y, width: shape.width * scale, height: shape.height * scale };
    const least = this.least;
    this.look({
      scale: least,
      x: x + (this.frame.width - this.upright.width * least) / 2,
      y: y + (this.frame.height - this.upright.height * least) / 2,
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
