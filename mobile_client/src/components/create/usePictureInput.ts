import { useEffect, useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";

/** Formats that not all systems have a type for. The server may read them if the browser cannot. */
const NAMED = /\.(heic|heif|hif|avif|jxl|webp|tiff?)$/i;

function isPicture(file: Blob): boolean {
  if (file.type.startsWith("image/")) return true;
  return file.type === "" && file instanceof File && NAMED.test(file.name);
}

/**
 * Returns a function that takes a picked file and opens the crop editor. With `adding` the picture
 * comes beside the start picture.
 */
export function useTakePicture(adding = false): (file: Blob | null | undefined) => void {
  const { draft, route, toasts } = useApp();
  return (file) => {
    // What is pasted into an open editor does not take the place of its picture.
    if (!file || route.current.value.screen !== "create") return;
    if (!isPicture(file)) {
      toasts.show({ text: t("create.notpicture") });
      return;
    }
    draft.pick(file, adding);
    route.go({ screen: "photo" });
  };
}

/** Takes pasted and dropped pictures. Returns whether one is being dragged over the page. */
export function usePictureInput(): boolean {
  const take = useTakePicture();
  const [dragging, setDragging] = useState(false);
  useEffect(() => {
    const pictures = (items: DataTransfer | null) => [...(items?.files ?? [])].find(isPicture);
    const paste = (event: ClipboardEvent) => take(pictures(event.clipboardData));
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setDragging(true);
    };
    const leave = (event: DragEvent) => event.relatedTarget === null && setDragging(false);
    const drop = (event: DragEvent) => {
      event.preventDefault();
      setDragging(false);
      take(pictures(event.dataTransfer));
    };
    document.addEventListener("paste", paste);
    document.addEventListener("dragover", over);
    document.addEventListener("dragleave", leave);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("paste", paste);
      document.removeEventListener("dragover", over);
      document.removeEventListener("dragleave", leave);
      document.removeEventListener("drop", drop);
    };
  }, []);
  return dragging;
}
