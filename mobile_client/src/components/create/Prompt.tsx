import { useRef, useState } from "preact/hooks";
import { surprise } from "../../lib/state/surprises";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { useComplaints } from "./complaints";
import { History } from "./History";

export function Prompt() {
  const { draft } = useApp();
  const { prompt, negativePrompt } = draft.values.value;
  const complaint = useComplaints().prompt;
  const [history, setHistory] = useState(false);
  const [negative, setNegative] = useState(false);
  const [touched, setTouched] = useState(false);
  const box = useRef<HTMLTextAreaElement>(null);
  const wrong = complaint && (touched || prompt) ? complaint : undefined;
  return (
    <>
      <div class="field">
        <label class="visually-hidden" for="prompt">
          {t("create.prompt")}
        </label>
        <div class="prompt-box">
          <textarea
            id="prompt"
            ref={box}
            class="prompt"
            rows={3}
            value={prompt}
            placeholder={t("create.prompt.placeholder")}
            autocapitalize="off"
            enterkeyhint="enter"
            aria-invalid={wrong ? "true" : undefined}
            aria-describedby={wrong ? "prompt-problem" : undefined}
            onBlur={() => setTouched(prompt !== "")}
            onInput={(event) => draft.set({ prompt: event.currentTarget.value })}
          />
          <div class="prompt-tools">
            <button
              type="button"
              class="button bare prompt-tool"
              onClick={() => draft.set({ prompt: surprise(prompt, draft.model.value?.examples) })}
            >
              <Icon name="dice" />
              {t("create.surprise")}
            </button>
            <span class="grow" />
            {prompt && (
              <button
                type="button"
                class="button icon bare"
                aria-label={t("create.prompt.clear")}
                onClick={() => {
                  draft.set({ prompt: "" });
                  box.current?.focus();
                }}
              >
                <Icon name="close" />
              </button>
            )}
            <button
              type="button"
              class="button icon bare"
              aria-label={t("create.history")}
              onClick={() => setHistory(true)}
            >
              <Icon name="history" />
            </button>
          </div>
        </div>
        {wrong && (
          <p class="problem" id="prompt-problem">
            {wrong}
          </p>
        )}
      </div>
      {!draft.takes("negative_prompt") ? null : negative || negativePrompt ? (
        <div class="field">
          <label for="negative">{t("create.negative")}</label>
          <textarea
            id="negative"
            class="input negative"
            rows={1}
            value={negativePrompt}
            placeholder={t("create.negative.placeholder")}
            autocapitalize="off"
            onInput={(event) => draft.set({ negativePrompt: event.currentTarget.value })}
          />
        </div>
      ) : (
        <button
          type="button"
          class="button bare add-negative"
          onClick={() => {
            setNegative(true);
            requestAnimationFrame(() => document.getElementById("negative")?.focus());
          }}
        >
          <Icon name="plus" />
          {t("create.negative")}
        </button>
      )}
      {history && <History onClose={() => setHistory(false)} />}
    </>
  );
}
