/** Gives components the state. They read it and call its methods; they never fetch. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { State } from "../lib/state";

export const StateContext = createContext<State | null>(null);

export function useApp(): State {
  const state = useContext(StateContext);
  if (!state) throw new Error("a component stands outside <StateContext.Provider>");
  return state;
}
