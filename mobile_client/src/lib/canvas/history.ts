/** An undo history. Immutable, so that it can be kept in a signal. */
export interface History<T> {
  readonly done: readonly T[];
  readonly undone: readonly T[];
}

export const EMPTY: History<never> = { done: [], undone: [] };

/** Adds an operation and drops the undone ones. */
export function push<T>(history: History<T>, item: T): History<T> {
  return { done: [...history.done, item], undone: [] };
}

export function undo<T>(history: History<T>): History<T> {
  const last = history.done.at(-1);
  if (last === undefined) return history;
  return { done: history.done.slice(0, -1), undone: [...history.undone, last] };
}

export function redo<T>(history: History<T>): History<T> {
  const last = history.undone.at(-1);
  if (last === undefined) return history;
  return { done: [...history.done, last], undone: history.undone.slice(0, -1) };
}
