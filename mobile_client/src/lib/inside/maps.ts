/** Where each word of a prompt was looked for, from the arrays of `GET /jobs/{id}/explain`. No DOM. */

import type { Explained, MapArray, MapName, TokenKind } from "../transport/types";

/** A place of the picture's grid. */
export interface Cell {
  readonly row: number;
  readonly column: number;
}

/** Numbers on the grid, row by row. */
export interface Grid {
  readonly height: number;
  readonly width: number;
  readonly values: Float32Array;
}

/** What can be touched: a word of the prompt, or all tokens of another kind together. */
export interface Term {
  readonly kind: "word" | Exclude<TokenKind, "text">;
  /** Of a word; empty for other kinds. */
  readonly text: string;
  readonly tokens: readonly number[];
}

/** The arrays do not fit together: the answer is damaged. */
export class DamagedError extends Error {
  override readonly name = "DamagedError";
}

const OTHERS: readonly Exclude<TokenKind, "text">[] = ["start", "template", "end", "padding"];

/** The prompt's words in order, then the other kinds of tokens that there are. */
export function termsOf({ tokens, words }: Pick<Explained, "tokens" | "words">): Term[] {
  const others = OTHERS.map((kind) => ({
    kind,
    text: "",
    tokens: tokens.flatMap((token, index) => (token.kind === kind ? [index] : [])),
  }));
  return [
    ...words.map((word): Term => ({ kind: "word", ...word })),
    ...others.filter((term) => term.tokens.length > 0),
  ];
}

/** The shares of attention of one map: what a place of the picture gives to each token. */
export class Maps {
  readonly height: number;
  readonly width: number;
  private readonly bytes: Uint8Array;

  /** @throws DamagedError */
  constructor(private readonly array: MapArray) {
    const [count = 0, height = 0, width = 0] = array.shape;
    this.bytes = bytesOf(array.data);
    this.height = height;
    this.width = width;
    const fits = array.dtype === "uint8" && array.peaks.length === count;
    if (!fits || height < 1 || width < 1 || this.bytes.length !== count * height * width) {
      const found = `${array.dtype} ${array.shape}, ${this.bytes.length} bytes`;
      throw new DamagedError(`The answer is damaged: ${found}.`);
    }
  }

  /** The share of its attention that a place gives to a term, from 0 to 1. */
  at({ tokens }: Term, { row, column }: Cell): number {
    const cells = this.height * this.width;
    const cell = row * this.width + column;
    return tokens.reduce(
      (sum, token) =>
        sum + ((this.bytes[token * cells + cell] ?? 0) / 255) * (this.array.peaks[token] ?? 0),
      0,
    );
  }

  /** The share that each place gives to a term. */
  of(term: Term): Grid {
    const { height, width } = this;
    const values = Float32Array.from({ length: height * width }, (_, cell) =>
      this.at(term, { row: Math.floor(cell / width), column: cell % width }),
    );
    return { height, width, values };
  }
}

/** An even map must not look as if it had places: it is stretched so many times at most. */
const MOST_STRETCHED = 4;

/** The same grid from 0, where it is least, to 1, where it is greatest; 0 if it is 0 everywhere. */
export function stretched(grid: Grid): Grid {
  const peak = Math.max(...grid.values);
  const least = Math.min(...grid.values, peak * (1 - 1 / MOST_STRETCHED));
  const range = peak - least;
  return { ...grid, values: grid.values.map((value) => (peak > 0 ? (value - least) / range : 0)) };
}

/**
 * The map to show first. Where most attention goes to the padding, as in the demo model, that holds
 * the picture's layout, and words are found only in what is carried back to them.
 */
export function firstMap(explained: Explained): MapName {
  const { maps, tokens } = explained;
  if (!maps.carried_back) return "all_steps";
  const all = new Maps(maps.all_steps);
  const mean = (term: Term) => all.of(term).values.reduce((sum, value) => sum + value, 0);
  const padding = tokens.flatMap(({ kind }, index) => (kind === "padding" ? [index] : []));
  const others = tokens.flatMap(({ kind }, index) => (kind === "padding" ? [] : [index]));
  const sum = (each: number[]) => mean({ kind: "padding", text: "", tokens: each });
  return sum(padding) > sum(others) ? "carried_back" : "all_steps";
}

/** Bytes from base64. @throws DamagedError */
export function bytesOf(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    throw new DamagedError("The answer is damaged: it is not base64.");
  }
}
