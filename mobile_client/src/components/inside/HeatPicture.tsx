import { useEffect, useRef } from "preact/hooks";
import { heat } from "../../lib/inside/heat";
import { type Cell, type Grid, type Maps, stretched } from "../../lib/inside/maps";
import { cellAt, moved } from "../../lib/inside/places";
import type { Kept } from "../../lib/inside/store";
import { t } from "../../strings";

interface Props {
  kept: Kept;
  /** What lies over the picture; null for nothing. */
  grid: Grid | null;
  /** The place that was touched. */
  cell: Cell | null;
  maps: Maps;
  onTouch: (cell: Cell) => void;
}

/** The picture, with a heat map over it. A place is chosen by touch, mouse or arrow keys. */
export function HeatPicture({ kept, grid, cell, maps, onTouch }: Props) {
  const { picture, size, prompt, explained } = kept;
  const image = usePicture(picture);
  const part = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height } = maps;

  useEffect(() => {
    const brush = canvas.current?.getContext("2d");
    if (!brush) return;
    if (grid) brush.putImageData(new ImageData(heat(stretched(grid)), width, height), 0, 0);
    else brush.clearRect(0, 0, width, height);
  }, [grid, width, height]);

  function touch(event: PointerEvent) {
    const box = part.current?.getBoundingClientRect();
    if (!box || (event.type === "pointermove" && event.buttons === 0)) return;
    onTouch(cellAt({ x: event.clientX - box.left, y: event.clientY - box.top }, box, maps));
  }

  function press(event: KeyboardEvent) {
    const next = moved(cell, event.key, maps);
    if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onTouch(next);
  }

  // Maps may show a part of the picture alone.
  const [left, top, right, bottom] = explained.crop ?? [0, 0, size.width, size.height];
  const place = {
    left: `${(left / size.width) * 100}%`,
    top: `${(top / size.height) * 100}%`,
    width: `${((right - left) / size.width) * 100}%`,
    height: `${((bottom - top) / size.height) * 100}%`,
  };
  return (
    <div
      class="inside-picture"
      style={{ "--ratio": size.width / size.height }}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys move the place here
      tabIndex={0}
      role="application"
      aria-label={t("inside.picture")}
      onPointerDown={touch}
      onPointerMove={touch}
      onKeyDown={press}
    >
      <img ref={image} alt={prompt || t("gallery.untitled")} draggable={false} />
      <div class="inside-part" style={place} ref={part}>
        <canvas ref={canvas} width={width} height={height} />
        {cell && (
          <span
            class="inside-mark"
            style={{
              left: `${((cell.column + 0.5) / width) * 100}%`,
              top: `${((cell.row + 0.5) / height) * 100}%`,
            }}
          />
        )}
      </div>
    </div>
  );
}

/** Shows a picture's file in an `<img>`. */
function usePicture(picture: Blob) {
  const image = useRef<HTMLImageElement>(null);
  useEffect(() => {
    const url = URL.createObjectURL(picture);
    if (image.current) image.current.src = url;
    return () => URL.revokeObjectURL(url);
  }, [picture]);
  return image;
}
