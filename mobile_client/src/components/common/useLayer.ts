import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** Focuses an element that covers the screen, and gives the focus back when it closes. */
export function useLayer<Layer extends HTMLElement>(): RefObject<Layer | null> {
  const layer = useRef<Layer>(null);
  useEffect(() => {
    const before = document.activeElement;
    layer.current?.focus({ preventScroll: true });
    return () => {
      if (before instanceof HTMLElement && before.isConnected)
        before.focus({ preventScroll: true });
    };
  }, []);
  return layer;
}
