import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { fitted, type Size } from "../../lib/canvas/geometry";
import type { Contact } from "../../lib/canvas/hands";
import { type Seen, Viewing } from "../../lib/canvas/viewing";

export interface Turns {
  newer: (() => void) | undefined;
  older: (() => void) | undefined;
  leave: () => void;
  tap: () => void;
}

const GLIDE_MS = 220;
const GLIDE = `transform ${GLIDE_MS}ms cubic-bezier(0.2, 0.7, 0.2, 1)`;
const WHEEL_SPEED = 0.002;

/**
 * Lets fingers zoom, move and swipe the picture. They move the elements themselves, without
 * rendering anything.
 *
 * @param key of the picture. When it changes, zoom and position are reset.
 */
export function useViewing(key: string, size: Size | undefined, turns: Turns) {
  const stage = useRef<HTMLDivElement>(null);
  const strip = useRef<HTMLDivElement>(null);
  const picture = useRef<HTMLDivElement>(null);
  const latest = useRef({ turns, size });
  latest.current = { turns, size };
  const viewing = useRef<Viewing | undefined>(undefined);

  const show = ({ view, drag, held }: Seen) => {
    const box = boxOf(stage.current);
    const fit = fitted(latest.current.size ?? box, box);
    const zoom = view.scale / fit.scale;
    const x = view.x - fit.x * zoom;
    const y = view.y - fit.y * zoom;
    glide(strip.current, !held, `translate(${drag.x}px, ${drag.y}px)`);
    glide(picture.current, !held, `translate(${x}px, ${y}px) scale(${zoom})`);
  };

  /** Slides the neighbour in, then opens it. */
  const turn = (direction: 1 | -1, act: (() => void) | undefined) => {
    if (!act) return;
    const width = boxOf(stage.current).width;
    // Deferred, because the end of the gesture moves the strip back first.
    queueMicrotask(() => glide(strip.current, true, `translateX(${direction * width}px)`));
    setTimeout(act, isCalm() ? 0 : GLIDE_MS);
  };

  viewing.current ??= new Viewing({
    show,
    newer: () => turn(1, latest.current.turns.newer),
    older: () => turn(-1, latest.current.turns.older),
    leave: () => latest.current.turns.leave(),
    tap: () => latest.current.turns.tap(),
  });

  const { width, height } = size ?? { width: 0, height: 0 };
  // Resets zoom and position for another picture.
  useLayoutEffect(() => {
    const element = stage.current;
    const now = viewing.current;
    if (!element || !now) return;
    const reset = () => {
      const box = boxOf(element);
      now.reset(width > 0 ? { width, height } : box, box);
      for (const moved of [strip.current, picture.current])
        moved?.style.removeProperty("transition");
    };
    const observer = new ResizeObserver(reset);
    observer.observe(element);
    reset();
    return () => observer.disconnect();
  }, [key, width, height]);

  useEffect(() => {
    const element = stage.current;
    const now = viewing.current;
    return element && now ? listen(element, now) : undefined;
  }, []);

  return { stage, strip, picture, viewing: viewing.current };
}

function glide(element: HTMLElement | null, gliding: boolean, transform: string): void {
  if (!element) return;
  element.style.transition = gliding && !isCalm() ? GLIDE : "none";
  element.style.transform = transform;
}

function isCalm(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

function boxOf(element: HTMLElement | null): Size {
  return { width: element?.clientWidth || 1, height: element?.clientHeight || 1 };
}

function listen(element: HTMLElement, viewing: Viewing): () => void {
  const controller = new AbortController();
  const options = { signal: controller.signal };
  const contact = (event: PointerEvent | WheelEvent): Contact => {
    const edge = element.getBoundingClientRect();
    return {
      id: "pointerId" in event ? event.pointerId : 0,
      x: event.clientX - edge.left,
      y: event.clientY - edge.top,
      type: "pointerType" in event ? event.pointerType : "mouse",
      pressure: 0.5,
      time: event.timeStamp,
      pans: true,
    };
  };
  element.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0) return;
      element.setPointerCapture(event.pointerId);
      viewing.down(contact(event));
    },
    options,
  );
  element.addEventListener("pointermove", (event) => viewing.move(contact(event)), options);
  element.addEventListener("pointerup", (event) => viewing.up(contact(event)), options);
  element.addEventListener("pointercancel", (event) => viewing.cancel(contact(event)), options);
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = contact(event);
      viewing.zoom(Math.exp(-event.deltaY * WHEEL_SPEED), { x, y });
    },
    { ...options, passive: false },
  );
  return () => controller.abort();
}
