/** The board on which a mask is painted: a canvas, pointer input, and the history of strokes. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import {
  clamp,
  fitted,
  type Insets,
  keepInside,
  type Pair,
  type Point,
  panBy,
  pinch,
  type Size,
  toPicture,
  type View,
  zoomTo,
} from "./geometry";
import { type Contact, type Deeds, Hands } from "./hands";
import { type History, push, redo, undo } from "./history";
import { Mask } from "./mask";
import { stripes } from "./stripes";
import { type Dab, isBlank, type Operation, type Stroke } from "./strokes";
import { type Brush, brushOf, encode, makeSurface, release, type Surface } from "./surface";

export const BRUSHES = { least: 8, most: 96, usual: 36 } as const;

const MARGIN: Insets = { top: 12, right: 12, bottom: 12, left: 12 };
/** A higher pixel ratio shows no difference. */
const MAX_PIXEL_RATIO = 2.5;
const CLOSEST = 10;
const PREVIEW_SIDE = 320;
const RING_SHOWN_MS = 700;

interface Canvas {
  readonly element: HTMLCanvasElement;
  readonly brush: Brush;
  /** As large as the canvas. The mask is coloured here before it is drawn over the picture. */
  readonly layer: Surface;
  readonly layerBrush: Brush;
}

/** Keeps painting out of components, which only read the signals. */
export class Board implements Deeds {
  readonly erases = signal(false);
  /** The brush's diameter on the screen, in CSS pixels: zooming in paints finer. */
  readonly diameter = signal<number>(BRUSHES.usual);
  readonly blank: ReadonlySignal<boolean>;
  readonly canUndo: ReadonlySignal<boolean>;
  readonly canRedo: ReadonlySignal<boolean>;

  private readonly history: { value: History<Operation> };
  private readonly mask: Mask;
  private readonly hands = new Hands(this);
  private canvas: Canvas | undefined;
  private colour = "rgb(214 52 8 / 55%)";
  private pattern: CanvasPattern | string = "red";
  private ratio = 1;
  private box: Size = { width: 1, height: 1 };
  private view: View = { scale: 1, x: 0, y: 0 };
  private live: { stroke: Stroke; dabs: Dab[] } | undefined;
  /** Where the brush's outline is drawn; undefined for fingers, which cover it. */
  private ring: Point | undefined;
  private frame = 0;
  private ringTimer = 0;

  constructor(
    readonly picture: CanvasImageSource,
    readonly size: Size,
    operations: readonly Operation[] = [],
    base?: CanvasImageSource,
  ) {
    const history = signal<History<Operation>>({ done: operations, undone: [] });
    this.history = history;
    this.mask = new Mask(size, base);
    this.mask.show(operations);
    this.blank = computed(() => isBlank(history.value.done, base === undefined));
    this.canUndo = computed(() => history.value.done.length > 0);
    this.canRedo = computed(() => history.value.undone.length > 0);
  }

  get operations(): readonly Operation[] {
    return this.history.value.done;
  }

  // --- tools ---

  undo(): void {
    this.set(undo(this.history.value));
  }

  redo(): void {
    this.set(redo(this.history.value));
  }

  clear(): void {
    if (!this.blank.value) this.set(push(this.history.value, { kind: "clear" }));
  }

  invert(): void {
    this.set(push(this.history.value, { kind: "invert" }));
  }

  resizeBrush(diameter: number): void {
    this.diameter.value = clamp(diameter, BRUSHES.least, BRUSHES.most);
    // While the slider moves, the outline is shown in the middle of the picture.
    this.ring = { x: this.box.width / 2, y: this.box.height / 2 };
    clearTimeout(this.ringTimer);
    this.ringTimer = window.setTimeout(() => this.hover(undefined), RING_SHOWN_MS);
    this.redraw();
  }

  zoom(factor: number, anchor: Point = this.middle()): void {
    const { least, most } = this.scales();
    this.look(zoomTo(this.view, anchor, clamp(this.view.scale * factor, least, most)));
  }

  showAll(): void {
    this.look(fitted(this.size, this.box, MARGIN));
  }

  // --- the canvas ---

  /** Starts drawing. @returns a function that stops it. */
  attach(element: HTMLCanvasElement): () => void {
    const layer = makeSurface({ width: 1, height: 1 });
    this.canvas = { element, brush: brushOf(element), layer, layerBrush: brushOf(layer) };
    const observer = new ResizeObserver(() => this.measure());
    observer.observe(element);
    this.measure();
    return () => {
      observer.disconnect();
      cancelAnimationFrame(this.frame);
      clearTimeout(this.ringTimer);
      release(layer);
      this.canvas = undefined;
    };
  }

  dispose(): void {
    this.mask.dispose();
  }

  down(contact: Contact): void {
    this.hands.down(contact);
  }

  move(contacts: readonly Contact[]): void {
    this.hands.move(contacts);
  }

  up(id: number): void {
    this.hands.up(id);
  }

  cancel(id: number): void {
    this.hands.cancel(id);
  }

  hover(at: Point | undefined): void {
    this.ring = at;
    this.redraw();
  }

  // --- pointer input ---

  begin(contact: Contact): void {
    const dabs = [this.dab(contact)];
    const stroke: Stroke = {
      kind: "stroke",
      dabs,
      // A stroke thinner than a pixel and a half would vanish, because the mask has hard edges.
      size: Math.max(1.5, this.diameter.value / this.view.scale),
      erases: this.erases.value,
      pressed: contact.type === "pen",
    };
    this.live = { stroke, dabs };
    this.redraw();
  }

  extend(contacts: readonly Contact[]): void {
    this.live?.dabs.push(...contacts.map((contact) => this.dab(contact)));
    this.redraw();
  }

  end(): void {
    const stroke = this.live?.stroke;
    this.live = undefined;
    if (stroke) this.set(push(this.history.value, { ...stroke, dabs: [...stroke.dabs] }));
  }

  drop(): void {
    this.live = undefined;
    this.redraw();
  }

  pan(x: number, y: number): void {
    this.look(panBy(this.view, x, y));
  }

  pinch(from: Pair, to: Pair): void {
    const { least, most } = this.scales();
    this.look(pinch(this.view, from, to, least, most));
  }

  // --- results ---

  /** White where the picture is to be repainted, black elsewhere. */
  png(): Promise<Blob> {
    return this.mask.png();
  }

  /** A small picture with the mask over it. */
  async preview(): Promise<Blob> {
    const scale = PREVIEW_SIDE / Math.max(this.size.width, this.size.height);
    const surface = makeSurface({
      width: Math.max(1, Math.round(this.size.width * scale)),
      height: Math.max(1, Math.round(this.size.height * scale)),
    });
    const layer = makeSurface(surface);
    try {
      const brush = brushOf(surface);
      brush.drawImage(this.picture, 0, 0, surface.width, surface.height);
      const colours = brushOf(layer);
      colours.drawImage(this.mask.surface, 0, 0, layer.width, layer.height);
      colours.globalCompositeOperation = "source-in";
      colours.fillStyle = stripes(brush, this.colour, 1);
      colours.fillRect(0, 0, layer.width, layer.height);
      brush.drawImage(layer, 0, 0);
      return await encode(surface, "image/jpeg", 0.85);
    } finally {
      release(surface);
      release(layer);
    }
  }

  // --- inside ---

  private set(history: History<Operation>): void {
    this.mask.show(history.done);
    this.history.value = history;
    this.redraw();
  }

  private dab(contact: Contact): Dab {
    const { x, y } = toPicture(this.view, contact);
    return [x, y, contact.pressure];
  }

  private middle(): Point {
    return { x: this.box.width / 2, y: this.box.height / 2 };
  }

  private scales(): { least: number; most: number } {
    const least = fitted(this.size, this.box, MARGIN).scale;
    return { least, most: Math.max(least, 1) * CLOSEST };
  }

  private look(view: View): void {
    this.view = keepInside(view, this.size, this.box, MARGIN);
    this.redraw();
  }

  private measure(): void {
    const canvas = this.canvas;
    if (!canvas) return;
    const { clientWidth: width, clientHeight: height } = canvas.element;
    this.ratio = Math.min(MAX_PIXEL_RATIO, window.devicePixelRatio || 1);
    const whole = this.view.scale <= fitted(this.size, this.box, MARGIN).scale * 1.01;
    this.box = { width, height };
    for (const surface of [canvas.element, canvas.layer]) {
      surface.width = Math.max(1, Math.round(width * this.ratio));
      surface.height = Math.max(1, Math.round(height * this.ratio));
    }
    const colour = getComputedStyle(canvas.element).getPropertyValue("--mask").trim();
    if (colour !== "") this.colour = colour;
    this.pattern = stripes(canvas.brush, this.colour, this.ratio);
    // Rotating the phone shows the full picture again, unless it is zoomed.
    if (whole || this.view.scale === 1) this.showAll();
    else this.look(this.view);
  }

  private redraw(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private draw(): void {
    if (!this.canvas) return;
    const { element, brush, layer, layerBrush } = this.canvas;
    this.place(brush, this.picture, true);
    this.place(layerBrush, this.live ? this.mask.with(this.live.stroke) : this.mask.surface, false);
    layerBrush.setTransform(1, 0, 0, 1, 0, 0);
    layerBrush.globalCompositeOperation = "source-in";
    layerBrush.fillStyle = this.pattern;
    layerBrush.fillRect(0, 0, layer.width, layer.height);
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.drawImage(layer, 0, 0, element.width, element.height);
    this.drawRing(brush);
  }

  /** Draws only `image`, in the current view. The mask is drawn in its real pixels. */
  private place(brush: Brush, image: CanvasImageSource, smooth: boolean): void {
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.globalCompositeOperation = "source-over";
    brush.clearRect(0, 0, this.box.width * this.ratio + 1, this.box.height * this.ratio + 1);
    const { scale, x, y } = this.view;
    const factor = scale * this.ratio;
    brush.setTransform(factor, 0, 0, factor, x * this.ratio, y * this.ratio);
    brush.imageSmoothingEnabled = smooth;
    brush.imageSmoothingQuality = "high";
    brush.drawImage(image, 0, 0, this.size.width, this.size.height);
  }

  private drawRing(brush: Brush): void {
    if (!this.ring) return;
    const radius = (this.diameter.value / 2) * this.ratio;
    for (const [colour, width] of [
      ["rgb(0 0 0 / 70%)", 3],
      ["#fff", 1.5],
    ] as const) {
      brush.beginPath();
      brush.arc(this.ring.x * this.ratio, this.ring.y * this.ratio, radius, 0, 2 * Math.PI);
      brush.strokeStyle = colour;
      brush.lineWidth = width * this.ratio;
      brush.stroke();
    }
  }
}
