import { useEffect, useState } from "preact/hooks";
import { Problem, Unreachable } from "../../lib/transport/http";
import { duration, t } from "../../strings";
import { sayProblem } from "../../strings/problems";
import { useApp } from "../context";

/** Exchanges a pairing code for this device's own token. */
export function Pair({ code: scanned }: { code: string }) {
  const state = useApp();
  const { server, settings } = state;
  const [code, setCode] = useState(scanned);
  const [name, setName] = useState(settings.deviceName || deviceName());
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);

  useEffect(() => setCode(scanned), [scanned]);

  const pair = async () => {
    if (code.replace(/[\s-]/g, "").length < 8) return setProblem(t("pair.missing"));
    setBusy(true);
    setProblem(null);
    settings.deviceName = name;
    try {
      await server.pair(code, name || deviceName());
      state.toasts.show({ text: t("pair.done", { server: location.host }) });
      state.route.replace({ screen: "create" });
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <div class="pair stack">
      <div class="pair-lamp" aria-hidden="true" />
      <h1>{t("pair.title")}</h1>
      {server.reach.value === "revoked" && <p class="problem">{t("reach.revoked")}</p>}
      <p class="hint">{t("pair.intro")}</p>
      <p class="hint">{t("pair.again")}</p>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void pair();
        }}
      >
        <div class="field">
          <label for="code">{t("pair.code")}</label>
          <input
            id="code"
            class="input code"
            value={code}
            placeholder="XXXX-XXXX"
            autocomplete="one-time-code"
            autocapitalize="characters"
            spellcheck={false}
            maxLength={20}
            aria-invalid={problem ? "true" : undefined}
            aria-describedby={problem ? "pair-problem" : undefined}
            onInput={(event) => setCode(event.currentTarget.value)}
          />
          {problem && (
            <p class="problem" id="pair-problem" role="alert">
              {problem}
            </p>
          )}
        </div>
        <div class="field">
          <label for="device">{t("pair.name")}</label>
          <input
            id="device"
            class="input"
            value={name}
            maxLength={60}
            autocomplete="off"
            onInput={(event) => setName(event.currentTarget.value)}
          />
          <p class="hint">{t("pair.name.hint")}</p>
        </div>
        <button type="submit" class="button primary wide" disabled={busy}>
          {t(busy ? "pair.going" : "pair.go")}
        </button>
      </form>
    </div>
  );
}

const DEVICES = ["iPhone", "iPad", "Android", "Macintosh", "Windows", "Linux"] as const;

/** A default name from the user agent, so that most people need not type one. */
function deviceName(): string {
  const found = DEVICES.find((device) => navigator.userAgent.includes(device));
  return found ? found.replace("Macintosh", "Mac") : t("pair.name.default");
}

function explain(error: unknown): string {
  if (error instanceof Unreachable) return t("pair.offline");
  if (!(error instanceof Problem)) return t("reach.foreign");
  if (error.status === 429) return t("pair.toomany", { time: duration(error.retryAfter ?? 60) });
  return sayProblem(error);
}
