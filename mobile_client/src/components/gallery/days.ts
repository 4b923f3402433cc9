import { region, t } from "../../strings";
import { dayOf } from "./rows";

const DAY_MS = 86_400_000;

/** The name of a day, such as "Yesterday". */
export function dayName(time: string, now = new Date()): string {
  const day = dayOf(time);
  if (day === dayOf(now.toISOString())) return t("gallery.today");
  if (day === dayOf(new Date(now.getTime() - DAY_MS).toISOString())) return t("gallery.yesterday");
  const date = new Date(time);
  const isThisYear = date.getFullYear() === now.getFullYear();
  return new Intl.DateTimeFormat(region(), {
    weekday: "long",
    day: "numeric",
    month: "long",
    ...(isThisYear ? {} : { year: "numeric" }),
  }).format(date);
}
