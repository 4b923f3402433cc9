import { MAX_COUNT } from "../../lib/state/draft";
import { t } from "../../strings";
import { useApp } from "../context";

export function Count() {
  const { draft } = useApp();
  const { count } = draft.values.value;
  const set = (value: number) => draft.set({ count: Math.min(MAX_COUNT, Math.max(1, value)) });
  return (
    <fieldset class="count">
      <legend class="visually-hidden">{t("create.count")}</legend>
      <button
        type="button"
        aria-label={t("create.count.less")}
        disabled={count === 1}
        onClick={() => set(count - 1)}
      >
        −
      </button>
      <output aria-label={t("create.count")}>{count}</output>
      <button
        type="button"
        aria-label={t("create.count.more")}
        disabled={count === MAX_COUNT}
        onClick={() => set(count + 1)}
      >
        +
      </button>
    </fieldset>
  );
}
