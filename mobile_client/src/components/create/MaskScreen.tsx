import { useEffect } from "preact/hooks";
import { useApp } from "../context";
import { MaskEditor } from "../mask/MaskEditor";

/** The mask editor, opened on the start picture. */
export function MaskScreen() {
  const { api, draft, route } = useApp();
  const source = draft.source.value;
  useEffect(() => {
    if (!source) route.replace({ screen: "create" });
  }, [source, route]);
  if (!source) return null;
  const { picture, width, height } = source;
  return (
    <MaskEditor
      picture={picture instanceof Blob ? picture : api.imageUrl(picture)}
      size={{ width, height }}
      operations={draft.mask.value?.operations ?? []}
      onDone={(mask, preview, operations) => {
        draft.setMask({ picture: mask, preview, operations });
        route.back();
      }}
      onCancel={() => route.back()}
    />
  );
}
