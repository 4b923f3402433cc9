import { useId, useState } from "preact/hooks";
import type { Explained } from "../../lib/transport/types";
import { type Key, number, t } from "../../strings";

type Step = Explained["steps"][number];

/** The steps that are shown: the guess, the noise found, and the latents of one of them. */
export function Steps({ steps }: { steps: readonly Step[] }) {
  const last = steps.length - 1;
  const [at, setAt] = useState(last);
  const id = useId();
  const step = steps[at];
  if (!step) return null;
  const which = t("timeline.step", { step: step.index + 1, steps: (steps[last]?.index ?? 0) + 1 });
  const amounts = t("inside.amounts", {
    signal: number(step.signal, 3),
    noise: number(step.noise, 3),
  });
  return (
    <section class="inside-steps" aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>{t("inside.steps")}</h2>
      <div class="inside-three">
        <StepPicture name="inside.guess" image={step.guess} which={which} />
        <StepPicture name="inside.noise" image={step.predicted_noise} which={which} />
        <StepPicture name="inside.latents" image={step.latents} which={which} />
      </div>
      <input
        type="range"
        min={0}
        max={last}
        value={at}
        aria-label={t("inside.steps")}
        aria-valuetext={`${which}, ${amounts}`}
        aria-describedby={`${id}-hint`}
        onInput={(event) => setAt(event.currentTarget.valueAsNumber)}
      />
      <p class="inside-step row spread">
        <output>{which}</output>
        <span class="hint">{amounts}</span>
      </p>
      <p class="hint" id={`${id}-hint`}>
        {t(step.guess ? "inside.steps.hint" : "inside.steps.none")}
      </p>
    </section>
  );
}

function StepPicture(props: { name: Key; image: string | null; which: string }) {
  const { name, image, which } = props;
  return (
    <figure>
      {image ? <img src={image} alt={`${t(name)}, ${which}`} /> : <div class="inside-no" />}
      <figcaption>{t(name)}</figcaption>
    </figure>
  );
}
