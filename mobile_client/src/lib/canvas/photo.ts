/** Photos of any size: opened, cropped, rotated, made small enough to send. */

import type { Size } from "./geometry";
import { type Rect, type Turns, turned, unturned, within } from "./sizes";
import { brushOf, encode, makeSurface, release, type Surface } from "./surface";

/** The bytes are not a picture that this browser can show. */
export class PhotoError extends Error {
  override readonly name = "PhotoError";
}

/** Enough for any phone's screen. A full 48 megapixel photo would be 190 MB of pixels. */
const PREVIEW_SIDE = 1600;
const JPEG_QUALITY = 0.92;
/** Up to here PNG costs little and loses nothing. */
const SMALL_PIXELS = 512 * 512;

export interface Crop {
  /** Of the turned photo, in its pixels. */
  readonly part: Rect;
  readonly turns: Turns;
  /** Size of the result. */
  readonly size: Size;
}

/** A photo, upright as its EXIF data says. */
export class Photo {
  private constructor(
    readonly size: Size,
    /** The photo, scaled down for the screen. */
    readonly preview: Surface,
    private readonly image: HTMLImageElement,
    private readonly url: string,
    private readonly type: string,
  ) {}

  /** @throws PhotoError */
  static async open(file: Blob): Promise<Photo> {
    const url = URL.createObjectURL(file);
    // An <img> knows its upright size from the file's head, decodes only when it is drawn, and
    // where memory is short browsers decode large JPEGs at a fraction of their size.
    const image = new Image();
    image.src = url;
    try {
      await loaded(image);
      const size = { width: image.naturalWidth, height: image.naturalHeight };
      if (size.width === 0 || size.height === 0) throw new PhotoError("no pixels");
      const full = { x: 0, y: 0, ...size };
      const preview = await scaled(image, full, within(size, PREVIEW_SIDE));
      return new Photo(size, preview, image, url, file.type);
    } catch (error) {
      URL.revokeObjectURL(url);
      throw error instanceof PhotoError ? error : new PhotoError(String(error));
    }
  }

  /** @throws CanvasError */
  async crop({ part, turns, size }: Crop): Promise<Blob> {
    const source = unturned(part, this.size, turns);
    const upright = turned(size, turns);
    const piece = await scaled(this.image, source, upright);
    const result = turns === 0 ? piece : turnedSurface(piece, turns);
    try {
      const { type, quality } = encoding(this.type, size);
      return await encode(result, type, quality);
    } finally {
      release(piece);
      release(result);
    }
  }

  dispose(): void {
    release(this.preview);
    this.image.src = "";
    URL.revokeObjectURL(this.url);
  }
}

/** Drawings and small pictures keep every pixel; photographs travel as JPEG. */
export function encoding(source: string, size: Size): { type: string; quality?: number } {
  const drawn = source === "image/png" || source === "image/gif";
  if (drawn || size.width * size.height <= SMALL_PIXELS) return { type: "image/png" };
  return { type: "image/jpeg", quality: JPEG_QUALITY };
}

function loaded(image: HTMLImageElement): Promise<void> {
  return new Promise((resolve, reject) => {
    image.onload = () => resolve();
    image.onerror = () => reject(new PhotoError("cannot be decoded"));
  });
}

/** A part of a picture at another size, smoothly also when it becomes much smaller. */
async function scaled(image: HTMLImageElement, part: Rect, size: Size): Promise<Surface> {
  const surface = makeSurface(size);
  const brush = brushOf(surface);
  brush.imageSmoothingQuality = "high";
  // JPEG has no transparency: transparent pixels become white, not black.
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, size.width, size.height);
  const bitmap = await shrunk(image, part, size);
  if (bitmap) {
    brush.drawImage(bitmap, 0, 0, size.width, size.height);
    bitmap.close();
  } else {
    brush.drawImage(image, part.x, part.y, part.width, part.height, 0, 0, size.width, size.height);
  }
  return surface;
}

/** Scales with the browser's good resampler, off the main thread; undefined if it has none. */
async function shrunk(
  image: HTMLImageElement,
  part: Rect,
  size: Size,
): Promise<ImageBitmap | undefined> {
  if (typeof createImageBitmap === "undefined") return undefined;
  const x = Math.max(0, Math.round(part.x));
  const y = Math.max(0, Math.round(part.y));
  const width = Math.max(1, Math.min(Math.round(part.width), image.naturalWidth - x));
  const height = Math.max(1, Math.min(Math.round(part.height), image.naturalHeight - y));
  try {
    return await createImageBitmap(image, x, y, width, height, {
      imageOrientation: "from-image",
      resizeWidth: size.width,
      resizeHeight: size.height,
      resizeQuality: "high",
    });
  } catch {
    return undefined; // options this browser does not know, or too little memory for this way
  }
}

function turnedSurface(piece: Surface, turns: Turns): Surface {
  const size = turned(piece, turns);
  const surface = makeSurface(size);
  const brush = brushOf(surface);
  brush.translate(size.width / 2, size.height / 2);
  brush.rotate((turns * Math.PI) / 2);
  brush.drawImage(piece, -piece.width / 2, -piece.height / 2);
  return surface;
}
