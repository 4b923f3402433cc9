import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** Shows on the form that the next picture has a fixed seed, and how long it stays. */
export function SeedLock() {
  const { draft } = useApp();
  const { seed, seedOnce } = draft.values.value;
  if (seed === null || Number.isNaN(seed)) return null;
  return (
    <section class="seed-lock" aria-label={t("create.seed")}>
      <Icon name="lock" />
      <p>
        {t("watch.seed", { seed })}
        <span class="hint block">{t(seedOnce ? "create.seed.once" : "create.seed.always")}</span>
      </p>
      {seedOnce && (
        <button type="button" class="chip" onClick={() => draft.set({ seedOnce: false })}>
          {t("create.seed.lock")}
        </button>
      )}
      <button
        type="button"
        class="button icon bare"
        aria-label={t("create.seed.unlock")}
        onClick={() => draft.set({ seed: null, seedOnce: false })}
      >
        <Icon name="close" />
      </button>
    </section>
  );
}
