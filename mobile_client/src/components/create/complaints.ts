import type { Complaint, Field } from "../../lib/state/draft";
import { t } from "../../strings";
import { sayCoded } from "../../strings/problems";
import { useApp } from "../context";

/** Error messages by field. */
export function useComplaints(): Partial<Record<Field, string>> {
  const found = useApp().draft.complaints.value;
  return Object.fromEntries(
    Object.entries(found).map(([field, complaint]) => [field, say(complaint)]),
  );
}

function say(complaint: Complaint): string {
  return "text" in complaint
    ? t("complaint.server", { detail: sayCoded(complaint.text, complaint) })
    : t(`complaint.${complaint.key}`);
}
