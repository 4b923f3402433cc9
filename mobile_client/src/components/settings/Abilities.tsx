import { useState } from "preact/hooks";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { canShare } from "../common/share";
import { useApp } from "../context";

/** What this browser can do on this page, and how to get the rest. */
export function Abilities() {
  const { settings } = useApp();
  const [asking, setAsking] = useState(false);
  const secure = window.isSecureContext;
  const abilities = [
    [t("abilities.share"), canShare()],
    [t("abilities.notify"), settings.notifier.supported],
    [t("abilities.offline"), secure && "serviceWorker" in navigator],
    [t("abilities.install"), secure],
  ] as const;
  return (
    <section class="card stack">
      <h2 class="label">{t("abilities.title")}</h2>
      <ul class="abilities">
        {abilities.map(([name, has]) => (
          <li key={name} class={has ? "row" : "row hint"}>
            <Icon name={has ? "check" : "close"} />
            <span class="grow">{name}</span>
            <span>{t(has ? "common.yes" : "common.no")}</span>
          </li>
        ))}
      </ul>
      {!secure && (
        <>
          <p class="hint">{t("abilities.http")}</p>
          <button type="button" class="button" onClick={() => setAsking(true)}>
            {t("https.title")}
          </button>
        </>
      )}
      {asking && <Https onClose={() => setAsking(false)} />}
    </section>
  );
}

/** How to turn on HTTPS with the server's own certificate authority, step by step. */
function Https({ onClose }: { onClose: () => void }) {
  const address = `https://${location.host}/ca`;
  return (
    <Sheet title={t("https.title")} onClose={onClose}>
      <ol class="steps stack">
        <li>
          {t("https.config")}
          <pre class="steps-code">{"tls:\n  mode: local_ca"}</pre>
        </li>
        <li>
          {t("https.open")} <a href={address}>{address}</a>
        </li>
        <li>
          {t("https.install")}
          <span class="hint block">{t("https.install.ios")}</span>
          <span class="hint block">{t("https.install.android")}</span>
        </li>
        <li>{t("https.pair")}</li>
      </ol>
      <p class="hint">{t("https.proxy")}</p>
    </Sheet>
  );
}
