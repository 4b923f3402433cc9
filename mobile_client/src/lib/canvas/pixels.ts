/** The pixels of a picture's file. */

import type { Pixels } from "../inside/sameness";
import { brushOf, CanvasError, makeSurface, release } from "./surface";

/** @throws CanvasError where the browser cannot decode it. */
export async function pixelsOf(picture: Blob): Promise<Pixels> {
  const url = URL.createObjectURL(picture);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch (cause) {
    throw new CanvasError(`cannot decode ${picture.type}`, { cause });
  } finally {
    URL.revokeObjectURL(url);
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  const surface = makeSurface({ width, height });
  const brush = brushOf(surface);
  brush.drawImage(image, 0, 0);
  const { data } = brush.getImageData(0, 0, width, height);
  release(surface);
  return { width, height, data };
}
