import { useEffect, useState } from "preact/hooks";
import { Problem } from "../../lib/transport/http";
import type { Job } from "../../lib/transport/types";
import { useApp } from "../context";

export type Found = { job: Job } | { missing: boolean } | undefined;

/** The job that made a picture; `missing` tells a picture that is gone from a server that is. */
export function useJob(pictureId: string): Found {
  const { gallery, server } = useApp();
  const [found, setFound] = useState<{ id: string; found: Found }>();
  const reach = server.reach.value;

  // Asks again when the server is back.
  useEffect(() => {
    let wanted = true;
    gallery.jobOf(pictureId).then(
      (job) => wanted && setFound({ id: pictureId, found: { job } }),
      (error) => {
        const missing = error instanceof Problem && error.status === 404;
        if (wanted) setFound({ id: pictureId, found: { missing } });
      },
    );
    return () => {
      wanted = false;
    };
  }, [gallery, pictureId, reach]);

  return found?.id === pictureId ? found.found : undefined;
}
