/** Moves a photo under its crop frame by fingers, wheel and keys. */

import type { Cropper } from "../../lib/canvas/cropper";

const WHEEL_SPEED = 0.002;
const STEP_PX = 16;
const ZOOM_STEP = 1.15;

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [STEP_PX, 0],
  ArrowRight: [-STEP_PX, 0],
  ArrowUp: [0, STEP_PX],
  ArrowDown: [0, -STEP_PX],
};

export function listen(element: HTMLElement, cropper: Cropper): () => void {
  const controller = new AbortController();
  const options = { signal: controller.signal };
  const contact = (event: PointerEvent) => {
    const edge = element.getBoundingClientRect();
    return {
      id: event.pointerId,
      x: event.clientX - edge.left,
      y: event.clientY - edge.top,
      type: event.pointerType,
      pressure: 0.5,
      time: event.timeStamp,
      pans: true,
    };
  };
  const lift = (event: PointerEvent) => cropper.hands.up(event.pointerId);

  element.addEventListener(
    "pointerdown",
    (event) => {
      element.setPointerCapture(event.pointerId);
      cropper.hands.down(contact(event));
    },
    options,
  );
  element.addEventListener("pointermove", (event) => cropper.hands.move([contact(event)]), options);
  element.addEventListener("pointerup", lift, options);
  element.addEventListener("pointercancel", lift, options);
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = contact(event as unknown as PointerEvent);
      cropper.zoom(Math.exp(-event.deltaY * WHEEL_SPEED), { x, y });
    },
    { ...options, passive: false },
  );
  element.addEventListener(
    "keydown",
    (event) => {
      const arrow = ARROWS[event.key];
      if (arrow) cropper.pan(...arrow);
      else if (event.key === "+" || event.key === "=") cropper.zoom(ZOOM_STEP);
      else if (event.key === "-") cropper.zoom(1 / ZOOM_STEP);
      else return;
      event.preventDefault();
    },
    options,
  );
  return () => controller.abort();
}
