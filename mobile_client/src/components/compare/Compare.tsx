import { useState } from "preact/hooks";
import { t } from "../../strings";

interface CompareProps {
  /** Addresses of two pictures with the same aspect ratio. */
  before: string;
  after: string;
}

/** Two pictures over each other, with a movable line between them. */
export function Compare({ before, after }: CompareProps) {
  const [at, setAt] = useState(50);
  return (
    <div class="compare" style={{ "--at": `${at}%` }}>
      <img class="compare-before" src={before} alt={t("compare.before")} draggable={false} />
      <img class="compare-after" src={after} alt={t("compare.after")} draggable={false} />
      <span class="compare-label left" aria-hidden="true">
        {t("compare.before")}
      </span>
      <span class="compare-label right" aria-hidden="true">
        {t("compare.after")}
      </span>
      <span class="compare-line" aria-hidden="true" />
      <input
        type="range"
        min={0}
        max={100}
        value={at}
        aria-label={t("compare.label")}
        aria-valuetext={t("compare.value", { percent: at })}
        onInput={(event) => setAt(event.currentTarget.valueAsNumber)}
      />
    </div>
  );
}
