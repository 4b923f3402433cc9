import { useEffect, useState } from "preact/hooks";
import { useApp } from "../context";

export interface Reload {
  /** For the `key` of the `<img>`: another one loads it again. */
  tries: number;
  failed: boolean;
  onError: () => void;
}

/** Has a picture that failed loaded again when the server is back; browsers do not by themselves. */
export function useReload(): Reload {
  const { server } = useApp();
  const [state, setState] = useState({ tries: 0, failed: false });
  const reach = server.reach.value;
  const again = () =>
    setState((now) => (now.failed ? { tries: now.tries + 1, failed: false } : now));

  useEffect(() => {
    if (reach === "ok") again();
  }, [reach]);

  async function onError(): Promise<void> {
    setState((now) => ({ ...now, failed: true }));
    await server.check(); // no request of the app's own may have failed yet
    // It may have been away so shortly that nobody noticed. A second failure is the picture's.
    if (server.open && state.tries === 0) again();
  }
  return { ...state, onError: () => void onError() };
}
