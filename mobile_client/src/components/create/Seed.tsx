import { MAX_SEED } from "../../lib/state/draft";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { useComplaints } from "./complaints";

const randomSeed = () => Math.floor(Math.random() * (MAX_SEED + 1));

/** A fixed seed, or a random one for every job. */
export function Seed() {
  const { draft } = useApp();
  const { seed } = draft.values.value;
  const problem = useComplaints().seed;
  const locked = seed !== null;
  return (
    <div class="field">
      <label for="seed">{t("create.seed")}</label>
      <div class="seed-row">
        <input
          id="seed"
          class="input"
          inputmode="numeric"
          autocomplete="off"
          value={Number.isNaN(seed) ? "" : (seed ?? "")}
          placeholder={t("create.seed.random")}
          aria-invalid={problem ? "true" : undefined}
          aria-describedby={problem ? "seed-problem" : undefined}
          onInput={(event) => {
            const text = event.currentTarget.value.trim();
            draft.set({ seed: text === "" ? null : Number(text), seedOnce: false });
          }}
        />
        <button
          type="button"
          class="button icon"
          aria-label={t("create.seed.roll")}
          onClick={() => draft.set({ seed: randomSeed(), seedOnce: false })}
        >
          <Icon name="dice" />
        </button>
        <button
          type="button"
          class="chip lock"
          aria-label={t("create.seed.lock")}
          aria-pressed={locked}
          onClick={() => draft.set({ seed: locked ? null : randomSeed(), seedOnce: false })}
        >
          <Icon name="lock" />
        </button>
      </div>
      {problem && (
        <p class="problem" id="seed-problem">
          {problem}
        </p>
      )}
    </div>
  );
}
