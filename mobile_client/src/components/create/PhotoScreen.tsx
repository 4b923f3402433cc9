import { useEffect } from "preact/hooks";
import { useApp } from "../context";
import { PhotoEditor } from "../photo/PhotoEditor";

/** The crop editor, opened on the photo that was picked. */
export function PhotoScreen() {
  const { draft, route } = useApp();
  const photo = draft.photo.value;
  const model = draft.model.value;
  useEffect(() => {
    if (!photo) route.replace({ screen: "create" }); // the page was reloaded
  }, [photo, route]);
  if (!photo || !model) return null;
  return (
    <PhotoEditor
      file={photo}
      limits={model.limits}
      onDone={(picture, size) => {
        draft.place({ picture, ...size });
        route.back();
      }}
      onCancel={() => {
        draft.photo.value = null;
        route.back();
      }}
    />
  );
}
