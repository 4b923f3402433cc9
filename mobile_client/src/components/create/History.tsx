import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { useApp } from "../context";

export function History({ onClose }: { onClose: () => void }) {
  const { draft, history } = useApp();
  const entries = history.entries.value;
  return (
    <Sheet title={t("create.history")} onClose={onClose}>
      {entries.length === 0 && <p class="empty">{t("create.history.empty")}</p>}
      <ul class="history">
        {entries.map((words) => (
          <li key={words.prompt} class="history-row">
            <button
              type="button"
              class="history-pick"
              onClick={() => {
                draft.set(words);
                onClose();
              }}
            >
              <span>{words.prompt}</span>
              {words.negativePrompt && <span class="hint">− {words.negativePrompt}</span>}
            </button>
            <button
              type="button"
              class="button icon bare"
              aria-label={t("create.history.remove", { prompt: words.prompt })}
              onClick={() => history.remove(words.prompt)}
            >
              <Icon name="close" />
            </button>
          </li>
        ))}
      </ul>
      {entries.length > 1 && (
        <button type="button" class="button danger" onClick={() => history.clear()}>
          {t("create.history.clear")}
        </button>
      )}
    </Sheet>
  );
}
