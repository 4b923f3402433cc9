import { useEffect, useRef } from "preact/hooks";

/** Tells whether the component is gone: what it began may end later, and has no effect then. */
export function useLeft(): () => boolean {
  const left = useRef(false);
  useEffect(() => {
    left.current = false;
    return () => {
      left.current = true;
    };
  }, []);
  return () => left.current;
}
