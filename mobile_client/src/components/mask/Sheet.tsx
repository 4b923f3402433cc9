import { useEffect, useRef } from "preact/hooks";
import type { Board } from "../../lib/canvas/board";
import { t } from "../../strings";
import { listenToKeys } from "./keys";
import { listen } from "./pointers";

/** The canvas. Once it is mounted, the board draws on it by itself. */
export function Sheet({ board }: { board: Board }) {
  const sheet = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);

  useEffect(() => {
    const surface = canvas.current;
    const place = sheet.current;
    if (!surface || !place) return;
    const ends = [board.attach(surface), listen(place, board), listenToKeys(place, board)];
    return () => {
      for (const end of ends) end();
    };
  }, [board]);

  return (
    <div
      class="mask-sheet"
      ref={sheet}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: keys work here, as the help says
      tabIndex={0}
      role="application"
      aria-label={t("mask.canvas")}
      aria-describedby="mask-help"
    >
      <canvas ref={canvas} />
      <p id="mask-help" class="visually-hidden">
        {t("mask.help")}
      </p>
    </div>
  );
}
