import { useEffect, useState } from "preact/hooks";
import { Board } from "../../lib/canvas/board";
import type { Operation } from "../../lib/canvas/strokes";

/**
 * The board for a picture, once the picture and the mask to start from are loaded. It has the
 * picture's own size, which the server wants of a mask; a job's may be another one.
 */
export function useBoard(
  picture: string | Blob,
  operations: readonly Operation[] = [],
  base?: string | Blob,
): { board: Board | undefined; failed: boolean } {
  const [board, setBoard] = useState<Board>();
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    let wanted = true;
    let made: Board | undefined;
    const urls: string[] = [];
    const load = async (from: string | Blob) => {
      const image = new Image();
      const url = typeof from === "string" ? from : URL.createObjectURL(from);
      if (url !== from) urls.push(url);
      image.src = url;
      await image.decode();
      return image;
    };
    Promise.all([load(picture), base === undefined ? undefined : load(base)]).then(
      ([image, mask]) => {
        if (!wanted) return;
        const { naturalWidth: width, naturalHeight: height } = image;
        made = new Board(image, { width, height }, operations, mask);
        setBoard(made);
      },
      () => wanted && setFailed(true),
    );
    return () => {
      wanted = false;
      made?.dispose();
      for (const url of urls) URL.revokeObjectURL(url);
    };
  }, [picture, base]);

  return { board, failed };
}
