import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";

interface DeleteSheetProps {
  count: number;
  onDelete: () => void;
  onClose: () => void;
}

/** Asks before many pictures are deleted. */
export function DeleteSheet({ count, onDelete, onClose }: DeleteSheetProps) {
  return (
    <Sheet title={t("gallery.delete.ask", { count })} onClose={onClose}>
      <p>{t("gallery.delete.hint")}</p>
      <button type="button" class="button danger wide" onClick={onDelete}>
        <Icon name="trash" />
        {t("gallery.delete.go", { count })}
      </button>
      <button type="button" class="button wide" onClick={onClose}>
        {t("common.cancel")}
      </button>
    </Sheet>
  );
}
