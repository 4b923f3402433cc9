import { useEffect } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { MaskEditor } from "../mask/MaskEditor";

/** The mask editor, opened on the start picture. */
export function MaskScreen() {
  const { api, draft, route, toasts } = useApp();
  const source = draft.source.value;
  const mask = draft.mask.value;
  useEffect(() => {
    if (!source) route.replace({ screen: "create" });
  }, [source, route]);
  // However the editor is left, nothing that was painted is lost.
  useEffect(
    () => () => {
      if (draft.strokes.value) toasts.show({ text: t("mask.kept") });
    },
    [draft, toasts],
  );
  if (!source) return null;
  return (
    <MaskEditor
      picture={source.picture instanceof Blob ? source.picture : api.imageUrl(source.picture)}
      operations={draft.strokes.value ?? mask?.operations ?? []}
      base={typeof mask?.base === "string" ? api.imageUrl(mask.base) : mask?.base}
      onChange={(operations) => {
        const same = mask ? operations === mask.operations : operations.length === 0;
        if (!same || draft.strokes.peek()) draft.setStrokes(same ? null : operations);
      }}
      onDone={(picture, preview, operations) => {
        const { base } = mask ?? {};
        draft.setMask({ picture, preview, operations, ...(base !== undefined && { base }) });
        route.back();
      }}
      onCancel={() => route.back()}
    />
  );
}
