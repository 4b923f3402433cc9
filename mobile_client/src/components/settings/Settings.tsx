import { useState } from "preact/hooks";
import { LANGUAGES, type Language, language, t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { Abilities } from "./Abilities";
import { Devices } from "./Devices";
import { ModelsLink } from "./ModelsLink";

export function SettingsScreen() {
  return (
    <div class="settings-screen stack">
      <h1>{t("settings.title")}</h1>
      <ThisServer />
      <ModelsLink />
      <Devices />
      <OtherServers />
      <Preferences />
      <Abilities />
      <About />
    </div>
  );
}

function ThisServer() {
  const state = useApp();
  const { server, route } = state;
  const [sure, setSure] = useState(false);
  const reach = server.reach.value;
  const me = server.me.value;
  const lost = reach === "unpaired" || reach === "revoked";
  return (
    <section class="card stack">
      <h2 class="label">{t("settings.server")}</h2>
      <p class="server-line">
        <span class={`lamp ${reach}`} aria-hidden="true" />
        <strong>{location.host}</strong>
        <span class="hint">{t(`settings.server.${reach}`)}</span>
      </p>
      {me?.name && !lost && (
        <p class="hint">
          {t("settings.server.paired", { name: me.name })}
          {me.scope === "own" && ` ${t("settings.server.owner")}`}
        </p>
      )}
      <div class="row">
        {lost ? (
          <button
            type="button"
            class="button primary"
            onClick={() => route.go({ screen: "pair", code: "" })}
          >
            {t("pair.title")}
          </button>
        ) : (
          <button type="button" class="button" onClick={() => void server.check()}>
            {t("settings.server.check")}
          </button>
        )}
        {!sure && (
          <button type="button" class="button danger" onClick={() => setSure(true)}>
            {t("settings.forget")}
          </button>
        )}
      </div>
      {sure && (
        <div class="sure stack" role="alert">
          <p>{t("settings.forget.sure")}</p>
          <p class="hint">{t("settings.forget.hint")}</p>
          <div class="row">
            <button type="button" class="button danger" onClick={() => void state.forget()}>
              {t("settings.forget")}
            </button>
            <button type="button" class="button" onClick={() => setSure(false)}>
              {t("common.cancel")}
            </button>
          </div>
        </div>
      )}
    </section>
  );
}

function OtherServers() {
  const { settings } = useApp();
  const [address, setAddress] = useState("");
  const [wrong, setWrong] = useState(false);
  const others = settings.servers.value.filter((origin) => origin !== location.origin);
  const add = () => {
    const added = settings.addServer(address);
    setWrong(!added);
    if (added) setAddress("");
  };
  return (
    <section class="card stack">
      <h2 class="label">{t("settings.others")}</h2>
      {others.length === 0 && <p class="hint">{t("settings.others.empty")}</p>}
      <ul>
        {others.map((origin) => {
          const server = origin.replace(/^https?:\/\//, "");
          return (
            <li key={origin} class="server-row">
              <a class="server-link" href={origin}>
                {server}
              </a>
              <button
                type="button"
                class="button icon bare"
                aria-label={t("settings.others.forget", { server })}
                onClick={() => settings.forgetServer(origin)}
              >
                <Icon name="close" />
              </button>
            </li>
          );
        })}
      </ul>
      <form
        class="field"
        onSubmit={(event) => {
          event.preventDefault();
          add();
        }}
      >
        <label for="address">{t("settings.others.add")}</label>
        <div class="seed-row">
          <input
            id="address"
            class="input"
            inputmode="url"
            autocapitalize="off"
            autocomplete="off"
            spellcheck={false}
            placeholder={t("settings.others.placeholder")}
            value={address}
            aria-invalid={wrong ? "true" : undefined}
            onInput={(event) => setAddress(event.currentTarget.value)}
          />
          <button type="submit" class="button">
            {t("settings.others.go")}
          </button>
        </div>
        {wrong && <p class="problem">{t("settings.others.wrong")}</p>}
      </form>
    </section>
  );
}

function Preferences() {
  const { settings } = useApp();
  const [denied, setDenied] = useState(false);
  const { supported } = settings.notifier;
  return (
    <section class="card stack">
      <div class="field">
        <label for="language">{t("settings.language")}</label>
        <select
          id="language"
          class="input"
          value={language.value}
          onChange={(event) => void settings.setLanguage(event.currentTarget.value as Language)}
        >
          {Object.entries(LANGUAGES).map(([code, name]) => (
            <option key={code} value={code} lang={code}>
              {name}
            </option>
          ))}
        </select>
      </div>
      <label class="toggle">
        <span>
          {t("settings.notifications")}
          <span class="hint block">
            {t(
              supported
                ? "settings.notifications.limits"
                : window.isSecureContext
                  ? "settings.notifications.none"
                  : "settings.notifications.unsupported",
            )}
          </span>
          {denied && <span class="problem block">{t("settings.notifications.denied")}</span>}
        </span>
        <input
          type="checkbox"
          disabled={!supported}
          checked={settings.notifications.value}
          onChange={async (event) => {
            const box = event.currentTarget;
            const on = await settings.setNotifications(box.checked);
            setDenied(box.checked && !on);
            box.checked = on;
          }}
        />
      </label>
    </section>
  );
}

function About() {
  return (
    <section class="card stack">
      <h2 class="label">{t("settings.about")}</h2>
      <p>{t("settings.about.text")}</p>
      <p>
        <a class="server-link" href="/docs">
          {t("settings.about.api")}
        </a>
      </p>
      <p class="hint">{t("settings.version", { version: __VERSION__ })}</p>
    </section>
  );
}
