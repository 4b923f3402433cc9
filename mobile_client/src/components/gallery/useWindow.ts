import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { GalleryPicture } from "../../lib/state/gallery";
import { inSight, type Layout, layOut } from "./rows";

/** Screens beyond the edges that are rendered, for quick scrolling. */
const AHEAD = 1;
/** Screens before the end at which older pictures are loaded. */
const MORE_WITHIN = 3;

interface Window {
  readonly layout: Layout;
  readonly first: number;
  readonly end: number;
}

/** Follows a scrolling element and returns the rows it needs. */
export function useWindow(
  pictures: readonly GalleryPicture[],
  scroll: { top: number; onScroll: (top: number) => void; onNearEnd: () => void },
) {
  const element = useRef<HTMLDivElement>(null);
  const frame = useRef(0);
  const [box, setBox] = useState({ width: 0, height: 0 });
  const layout = useMemo(() => layOut(pictures, box.width || 1), [pictures, box.width]);
  const latest = useRef({ layout, scroll });
  latest.current = { layout, scroll };
  const [range, setRange] = useState<readonly [number, number]>([0, 0]);

  const look = useCallback(() => {
    frame.current = 0;
    const place = element.current;
    if (!place) return;
    const { scrollTop, clientHeight } = place;
    const { layout: now, scroll: calls } = latest.current;
    const next = inSight(
      now.rows,
      scrollTop - clientHeight * AHEAD,
      scrollTop + clientHeight * (1 + AHEAD),
    );
    // Most scroll events do not change the rows.
    setRange((before) => (before[0] === next[0] && before[1] === next[1] ? before : next));
    calls.onScroll(scrollTop);
    if (scrollTop + clientHeight * (1 + MORE_WITHIN) > now.height) calls.onNearEnd();
  }, []);

  useLayoutEffect(() => {
    const place = element.current;
    if (!place) return;
    const measure = () => setBox({ width: place.clientWidth, height: place.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(place);
    measure();
    return () => observer.disconnect();
  }, []);

  // Restores the scroll position once there is enough to scroll.
  const restored = useRef(false);
  useLayoutEffect(() => {
    const place = element.current;
    if (place && !restored.current && layout.height > 0 && box.width > 0) {
      restored.current = true;
      place.scrollTop = scroll.top;
    }
    look();
  });

  useEffect(() => {
    const place = element.current;
    const onScroll = () => {
      frame.current ||= requestAnimationFrame(look);
    };
    place?.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      place?.removeEventListener("scroll", onScroll);
      cancelAnimationFrame(frame.current);
    };
  }, [look]);

  const window: Window = { layout, first: range[0], end: range[1] };
  return { element, window };
}
