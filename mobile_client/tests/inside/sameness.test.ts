import { expect, it } from "vitest";
import { compare, type Pixels } from "../../src/lib/inside/sameness";

const file = (text: string) => new Blob([text], { type: "image/png" });

function decoded(files: Record<string, number[]>, width = 1): (picture: Blob) => Promise<Pixels> {
  return async (picture) => {
    const data = new Uint8ClampedArray(files[await picture.text()] ?? []);
    return { width, height: data.length / 4 / width, data };
  };
}

it("is the same file to the byte, and nothing is decoded", async () => {
  const fails = () => Promise.reject(new Error("decoded"));
  expect(await compare(file("one"), file("one"), fails)).toEqual({ kind: "bytes" });
});

it("is the same picture in another file", async () => {
  const pixels = decoded({ one: [1, 2, 3, 255], two: [1, 2, 3, 255] });
  expect(await compare(file("one"), file("two"), pixels)).toEqual({ kind: "pixels", most: 0 });
});

it("tells the largest difference of two pixels", async () => {
  const pixels = decoded({
    one: [10, 20, 30, 255, 40, 50, 60, 255],
    two: [11, 20, 30, 255, 40, 43, 62, 255],
  });
  expect(await compare(file("one"), file("two"), pixels)).toEqual({ kind: "pixels", most: 7 });
});

it("says if one has another size", async () => {
  const pixels = decoded({ one: [1, 2, 3, 255], two: [1, 2, 3, 255, 1, 2, 3, 255] });
  expect(await compare(file("one"), file("two"), pixels)).toEqual({ kind: "size" });
});
