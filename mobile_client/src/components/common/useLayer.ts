import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** For what covers the screen: takes the focus while it is there, and gives it back after. */
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
