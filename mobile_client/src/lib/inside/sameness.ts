/** Whether a picture that was made again is the one that there was. */

/** RGBA of a picture, 8 bits each. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray;
}

export type Sameness =
  | { readonly kind: "bytes" }
  /** The files differ. `most`: the largest difference of two pixels, in 1/255. */
  | { readonly kind: "pixels"; readonly most: number }
  | { readonly kind: "size" };

/** Pixels that differ by no more show the same picture: the calls that made them were shared. */
export const ROUNDING = 1;

/** Compares two files, and their pixels where the files differ. */
export async function compare(
  before: Blob,
  after: Blob,
  pixelsOf: (picture: Blob) => Promise<Pixels>,
): Promise<Sameness> {
  const [one, other] = await Promise.all([before.arrayBuffer(), after.arrayBuffer()]);
  if (sameBytes(new Uint8Array(one), new Uint8Array(other))) return { kind: "bytes" };
  const [left, right] = await Promise.all([pixelsOf(before), pixelsOf(after)]);
  if (left.width !== right.width || left.height !== right.height) return { kind: "size" };
  return { kind: "pixels", most: largestDifference(left.data, right.data) };
}

export function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

export function largestDifference(one: Uint8ClampedArray, other: Uint8ClampedArray): number {
  let most = 0;
  for (let at = 0; at < one.length; at += 1) {
    most = Math.max(most, Math.abs((one[at] ?? 0) - (other[at] ?? 0)));
  }
  return most;
}
