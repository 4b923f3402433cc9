import { useId } from "preact/hooks";

interface Props {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  /** What the value means, shown and read out instead of the bare number. */
  text: string;
  problem?: string | undefined;
  onChange: (value: number) => void;
}

export function Slider({ label, value, min, max, step, text, problem, onChange }: Props) {
  const id = useId();
  return (
    <div class="field">
      <div class="row spread">
        <label class="label" for={id}>
          {label}
        </label>
        <output class="slider-value" for={id}>
          {text}
        </output>
      </div>
      <input
        id={id}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        aria-valuetext={text}
        aria-invalid={problem ? "true" : undefined}
        aria-describedby={problem ? `${id}-problem` : undefined}
        onInput={(event) => onChange(event.currentTarget.valueAsNumber)}
      />
      {problem && (
        <p class="problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
    </div>
  );
}
