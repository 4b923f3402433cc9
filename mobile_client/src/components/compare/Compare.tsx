import { useState } from "preact/hooks";
import { t } from "../../strings";

interface CompareProps {
  /** Addresses of pictures of the same shape. */
  before: string;
  after: string;
}

/** Two pictures over each other, and a line between them that one moves. */
export function Compare({ before, after }: CompareProps) {
  const [at, setAt] = useState(50);
  return (
    <div class="compare" style={{ "--at": `${at}%` }}>
      <img class="compare-before" src={before} alt={t("compare.before")} draggable={false} />
      <img class="compare-after" src={after} alt={t("compare.after")} draggable={false} />
      <span class="compare-word left" aria-hidden="true">
        {t("compare.before")}
      </span>
      <span class="compare-word right" aria-hidden="true">
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
