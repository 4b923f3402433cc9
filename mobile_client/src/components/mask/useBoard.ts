import { useEffect, useState } from "preact/hooks";
import { Board } from "../../lib/canvas/board";
import type { Operation } from "../../lib/canvas/strokes";
import type { Size } from "../../lib/transport/types";

/** The board for a picture, once the picture is loaded. */
export function useBoard(
  picture: string | Blob,
  { width, height }: Size,
  operations: readonly Operation[] = [],
): { board: Board | undefined; failed: boolean } {
  const [board, setBoard] = useState<Board>();
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    let made: Board | undefined;
    const url = typeof picture === "string" ? picture : URL.createObjectURL(picture);
    const image = new Image();
    image.onload = () => {
      made = new Board(image, { width, height }, operations);
      setBoard(made);
    };
    image.onerror = () => setFailed(true);
    image.src = url;
    return () => {
      image.onload = null;
      made?.dispose();
      if (url !== picture) URL.revokeObjectURL(url);
    };
  }, [picture, width, height]);

  return { board, failed };
}
