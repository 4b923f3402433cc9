import { useState } from "preact/hooks";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** Settings saved under a name. */
export function Presets() {
  const { draft, presets, toasts } = useApp();
  const [naming, setNaming] = useState<string | null>(null);
  const entries = presets.entries.value;
  const save = () => {
    if (naming?.trim()) presets.save(naming.trim(), draft.values.value);
    setNaming(null);
  };
  const remove = (name: string) => {
    const gone = entries.find((preset) => preset.name === name);
    presets.remove(name);
    toasts.show({
      text: t("create.presets.removed", { name }),
      action: { label: t("common.undo"), run: () => gone && presets.put(gone) },
    });
  };
  return (
    <div class="field">
      <span class="label">{t("create.presets")}</span>
      <div class="chips">
        {entries.map(({ name, recipe }) => (
          <span key={name} class="preset">
            <button type="button" class="chip" onClick={() => draft.set(recipe)}>
              {name}
            </button>
            <button
              type="button"
              class="button icon bare"
              aria-label={t("create.presets.remove", { name })}
              onClick={() => remove(name)}
            >
              <Icon name="close" />
            </button>
          </span>
        ))}
        {naming === null && (
          <button type="button" class="chip" onClick={() => setNaming("")}>
            <Icon name="plus" />
            {t("create.presets.save")}
          </button>
        )}
      </div>
      {naming !== null && (
        <div class="seed-row">
          <input
            class="input"
            aria-label={t("create.presets.name")}
            placeholder={t("create.presets.name")}
            value={naming}
            maxLength={40}
            autofocus
            onInput={(event) => setNaming(event.currentTarget.value)}
            onKeyDown={(event) => event.key === "Enter" && save()}
          />
          <button type="button" class="button" onClick={save}>
            {t("common.save")}
          </button>
        </div>
      )}
    </div>
  );
}
