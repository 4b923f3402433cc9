import { useEffect, useState } from "preact/hooks";
import { Cropper, type Cropping } from "../../lib/canvas/cropper";
import { Photo } from "../../lib/canvas/photo";
import type { ModelLimits } from "../../lib/transport/types";

/** A cropper for a photo, once it is open. */
export function usePhoto(
  file: Blob,
  limits: ModelLimits,
  before: Cropping | null,
): { cropper: Cropper | undefined; failed: boolean } {
  const [cropper, setCropper] = useState<Cropper>();
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    let wanted = true;
    let opened: Photo | undefined;
    setCropper(undefined);
    setFailed(false);
    Photo.open(file).then(
      (photo) => {
        if (!wanted) return photo.dispose();
        opened = photo;
        setCropper(new Cropper(photo, limits, before));
      },
      () => wanted && setFailed(true),
    );
    return () => {
      wanted = false;
      opened?.dispose();
    };
  }, [file, limits]);

  return { cropper, failed };
}
