/** Turns pointer events into a board's contacts. */

import type { Board } from "../../lib/canvas/board";
import type { Contact } from "../../lib/canvas/hands";

const MIDDLE_BUTTON = 1;
const RIGHT_BUTTON = 2;
const WHEEL_SPEED = 0.002;

/** Sends the pointer events of `element` to the board. @returns a function that stops it. */
export function listen(element: HTMLElement, board: Board): () => void {
  const contact = (event: PointerEvent, pans = false): Contact => {
    const edge = element.getBoundingClientRect();
    return {
      id: event.pointerId,
      x: event.clientX - edge.left,
      y: event.clientY - edge.top,
      type: event.pointerType,
      pressure: event.pointerType === "pen" ? event.pressure : 0.5,
      time: event.timeStamp,
      pans,
    };
  };
  const hover = (event: PointerEvent) => {
    if (event.pointerType !== "touch") board.hover(contact(event));
  };
  const controller = new AbortController();
  const on = <Type extends keyof HTMLElementEventMap>(
    type: Type,
    listener: (event: HTMLElementEventMap[Type]) => void,
    options: AddEventListenerOptions = {},
  ) => element.addEventListener(type, listener, { ...options, signal: controller.signal });

  on("pointerdown", (event) => {
    // Keeps the pointer's events here when it leaves the canvas before it is lifted.
    element.setPointerCapture(event.pointerId);
    board.down(contact(event, event.button === MIDDLE_BUTTON || event.button === RIGHT_BUTTON));
    hover(event);
  });
  on("pointermove", (event) => {
    // A finger moves many times between two frames; each position is a point of the stroke.
    const all = event.getCoalescedEvents?.() ?? [];
    board.move((all.length > 0 ? all : [event]).map((each) => contact(each)));
    hover(event);
  });
  on("pointerup", (event) => board.up(event.pointerId));
  on("pointercancel", (event) => board.cancel(event.pointerId));
  on("pointerleave", () => board.hover(undefined));
  on("contextmenu", (event) => event.preventDefault());
  on(
    "wheel",
    (event) => {
      event.preventDefault();
      const edge = element.getBoundingClientRect();
      const at = { x: event.clientX - edge.left, y: event.clientY - edge.top };
      board.zoom(Math.exp(-event.deltaY * WHEEL_SPEED), at);
    },
    { passive: false },
  );
  return () => controller.abort();
}
