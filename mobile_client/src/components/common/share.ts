/** Sharing a picture with another app of the phone. */

import { useEffect, useRef } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";

/** Whether the browser can share files. It needs HTTPS or localhost. */
export function canShare(): boolean {
  const probe = new File([], "picture.png", { type: "image/png" });
  return navigator.canShare?.({ files: [probe] }) ?? false;
}

/**
 * Returns a function that shares a stored picture. A browser shares only while it handles a tap, so
 * the bytes are fetched before one: they are in its cache, because the picture is on screen.
 */
export function useShare(id: string, name: string): () => Promise<void> {
  const { api, server, toasts } = useApp();
  const bytes = useRef<Promise<Blob>>(undefined);
  const ready = useRef<File>(undefined);

  const fetchBytes = () => {
    const fetching = bytes.current ?? api.image(id);
    bytes.current = fetching;
    return fetching.then(
      (picture) => {
        const file = new File([picture], name, { type: picture.type });
        // Another picture may be on screen by now.
        if (bytes.current === fetching) ready.current = file;
        return file;
      },
      (error: unknown) => {
        if (bytes.current === fetching) bytes.current = undefined; // the next tap asks again
        throw error;
      },
    );
  };

  useEffect(() => {
    bytes.current = undefined;
    ready.current = undefined;
    if (canShare()) fetchBytes().catch(() => undefined);
  }, [id]);

  const saveInstead = () => download(api.imageUrl(id), name);

  return async function share() {
    try {
      const file = ready.current ?? (await fetchBytes());
      await navigator.share({ files: [file] });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return; // closed by hand
      if (error instanceof DOMException && error.name === "NotAllowedError") {
        // Fetching took longer than a tap lasts. The bytes are here for the next one.
        toasts.show({
          text: t("viewer.shareAgain"),
          action: { label: t("common.share"), run: () => void share() },
        });
        return;
      }
      server.report(error);
      toasts.show({
        text: t("viewer.shareFailed"),
        action: { label: t("common.save"), run: saveInstead },
      });
    }
  };
}

function download(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
