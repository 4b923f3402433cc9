import { useCallback } from "preact/hooks";
import { UNDO_MS } from "../../lib/state/gallery";
import { t } from "../../strings";
import { useApp } from "../context";

/** Deletes pictures and shows a message with an Undo button. */
export function useDelete(): (ids: readonly string[]) => void {
  const { gallery, toasts } = useApp();
  return useCallback(
    (ids) => {
      if (ids.length === 0) return;
      const removal = gallery.remove(ids, ({ count, inUse }) =>
        toasts.show({ text: t(inUse ? "gallery.keptInUse" : "gallery.kept", { count }) }),
      );
      toasts.show(
        {
          text: t("gallery.deleted", { count: ids.length }),
          action: { label: t("common.undo"), run: () => removal.undo() },
        },
        UNDO_MS,
      );
    },
    [gallery, toasts],
  );
}
