import { useEffect, useState } from "preact/hooks";
import { Problem } from "../../lib/transport/http";
import type { Job } from "../../lib/transport/types";
import { useApp } from "../context";

export type Found = { job: Job } | { missing: boolean } | undefined;

/** The job that made a picture. `missing` is false if the server could not be reached. */
export function useJob(pictureId: string): Found {
  const { gallery, server } = useApp();
  const [found, setFound] = useState<{ id: string; found: Found }>();
  const reach = server.reach.value;

  // Runs again when the server can be reached again.
  useEffect(() => {
    let wanted = true;
    gallery.jobOf(pictureId).then(
      (job) => wanted && setFound({ id: pictureId, found: { job } }),
      (error) => {
        const missing = error instanceof Problem && error.status === 404;
        if (!missing) server.report(error); // so that `reach` changes when it can be reached again
        if (wanted) setFound({ id: pictureId, found: { missing } });
      },
    );
    return () => {
      wanted = false;
    };
  }, [gallery, server, pictureId, reach]);

  return found?.id === pictureId ? found.found : undefined;
}
