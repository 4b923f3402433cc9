/** Painting with a keyboard: arrows move the brush, the space bar paints. */

import type { Board } from "../../lib/canvas/board";
import type { Contact } from "../../lib/canvas/hands";

const STEP_PX = 12;
const SMALL_STEP_PX = 2;
const BRUSH_STEP_PX = 6;
const ZOOM_STEP = 1.25;
/** No browser gives a pointer this id. */
const KEYBOARD = -1;

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export function listenToKeys(element: HTMLElement, board: Board): () => void {
  let at: { x: number; y: number } | undefined;
  let pressed = false;
  const here = () => {
    at ??= { x: element.clientWidth / 2, y: element.clientHeight / 2 };
    return at;
  };
  const contact = (): Contact => ({
    ...here(),
    id: KEYBOARD,
    type: "mouse",
    pressure: 0.5,
    time: performance.now(),
    pans: false,
  });

  const move = ([x, y]: readonly [number, number], step: number) => {
    at = {
      x: Math.min(Math.max(here().x + x * step, 0), element.clientWidth),
      y: Math.min(Math.max(here().y + y * step, 0), element.clientHeight),
    };
    if (pressed) board.move([contact()]);
    board.hover(at);
  };

  const press = () => {
    if (pressed) return;
    pressed = true;
    board.down(contact());
    board.hover(here());
  };

  const lift = () => {
    if (!pressed) return;
    pressed = false;
    board.up(KEYBOARD);
  };

  const down = (event: KeyboardEvent) => {
    const arrow = ARROWS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrow) move(arrow, event.shiftKey ? SMALL_STEP_PX : STEP_PX);
    else if (event.key === " ") press();
    else if (event.key === "+" || event.key === "=") board.zoom(ZOOM_STEP);
    else if (event.key === "-") board.zoom(1 / ZOOM_STEP);
    else if (event.key === "0") board.showAll();
    else return;
    event.preventDefault();
  };
  const up = (event: KeyboardEvent) => {
    if (event.key === " ") lift();
  };
  const leave = () => {
    lift();
    board.hover(undefined);
  };

  element.addEventListener("keydown", down);
  element.addEventListener("keyup", up);
  element.addEventListener("blur", leave);
  return () => {
    element.removeEventListener("keydown", down);
    element.removeEventListener("keyup", up);
    element.removeEventListener("blur", leave);
  };
}

/** Handles shortcuts of the editor. @returns whether the key was one. */
export function shortcut(event: KeyboardEvent, board: Board): boolean {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (command && key === "z") event.shiftKey ? board.redo() : board.undo();
  else if (command && key === "y") board.redo();
  else if (command || event.altKey) return false;
  else if (key === "b") board.erases.value = false;
  else if (key === "e") board.erases.value = true;
  else if (key === "i") board.invert();
  else if (key === "[") board.resizeBrush(board.diameter.value - BRUSH_STEP_PX);
  else if (key === "]") board.resizeBrush(board.diameter.value + BRUSH_STEP_PX);
  else return false;
  return true;
}
