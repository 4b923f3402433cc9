import { useEffect, useState } from "preact/hooks";
import { Cropper, type Cropping } from "../../lib/canvas/cropper";
import { Photo } from "../../lib/canvas/photo";
import { Problem } from "../../lib/transport/http";
import type { ModelLimits } from "../../lib/transport/types";
import { useApp } from "../context";

/**
 * - opening: the browser reads the photo
 * - decoding: it cannot, so the server does
 * - open, and with which file
 * - failed, and what the server said; null if it did not answer
 */
export type Opening =
  | { is: "opening" | "decoding" }
  | { is: "open"; cropper: Cropper; file: Blob }
  | { is: "failed"; why: Problem | null };

/** Opens a photo; what this browser cannot show, such as HEIC, by way of the server. */
export function usePhoto(file: Blob, limits: ModelLimits, before: Cropping | null): Opening {
  const { api } = useApp();
  // The list of models is read anew whenever the page is back: equal limits are other objects then.
  const allowed = JSON.stringify(limits);
  const [state, setState] = useState<Opening>({ is: "opening" });

  useEffect(() => {
    let wanted = true;
    let opened: Photo | undefined;
    const set = (next: Opening) => wanted && setState(next);

    async function open(picture: Blob): Promise<void> {
      const photo = await Photo.open(picture);
      if (!wanted) return photo.dispose();
      opened = photo;
      set({ is: "open", cropper: new Cropper(photo, JSON.parse(allowed), before), file: picture });
    }

    async function openByServer(): Promise<void> {
      set({ is: "decoding" });
      try {
        await open(await api.decode(file));
      } catch (error) {
        set({ is: "failed", why: error instanceof Problem ? error : null });
      }
    }

    set({ is: "opening" });
    open(file).catch(openByServer);
    return () => {
      wanted = false;
      opened?.dispose();
    };
  }, [api, file, allowed]);

  return state;
}
