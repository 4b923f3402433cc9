import { useEffect } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { PhotoEditor } from "../photo/PhotoEditor";
import { WaitingScreen } from "./WaitingScreen";

/** The crop editor, opened on the photo that was picked. */
export function PhotoScreen() {
  const state = useApp();
  const { draft, route } = state;
  const photo = draft.photo.value;
  const model = draft.model.value;
  useEffect(() => {
    if (!photo) route.replace({ screen: "create" }); // the page was reloaded
  }, [photo, route]);
  const cancel = () => {
    draft.photo.value = null;
    route.back();
  };
  if (!photo) return null;
  // What the model takes decides how large the crop becomes.
  if (!model) {
    return <WaitingScreen title={t("photo.title")} text={t("create.nomodel")} onCancel={cancel} />;
  }
  return (
    <PhotoEditor
      file={photo}
      limits={model.limits}
      before={draft.cropping}
      onDone={(picture, size, crop, opened) => {
        const before = draft.mask.value ?? draft.strokes.value;
        const original = { photo: opened, crop };
        const place = () => draft.place({ picture, ...size, original });
        if (before) state.replaceStart(t("create.mask.removed"), place);
        else place();
        route.back();
      }}
      onCancel={cancel}
    />
  );
}
