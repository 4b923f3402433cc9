import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/create.css";
import "./styles/watch.css";
import "./styles/pair.css";
import "./styles/settings.css";
import "./styles/models.css";
import "./styles/gallery.css";
import "./styles/mask.css";
import "./styles/photo.css";
import "./styles/viewer.css";
import "./styles/inside.css";
import { render } from "preact";
import { App } from "./app";
import { StateContext } from "./components/context";
import { loadEditors } from "./components/create/Editor";
import { loadInside } from "./components/inside/Inside";
import { BrowserNotifier } from "./lib/notifier";
import { State } from "./lib/state";
import { Router } from "./lib/state/route";
import { BrowserKeyValue, BrowserPreferences } from "./lib/storage";
import { HttpApi } from "./lib/transport/api";

const state = new State({
  api: new HttpApi(),
  route: new Router(),
  preferences: new BrowserPreferences(),
  pictures: new BrowserKeyValue("draft"),
  unsent: new BrowserKeyValue("outbox"),
  explanations: new BrowserKeyValue("explained"),
  notifier: new BrowserNotifier(),
  erase: async () => {
    localStorage.clear();
    // What the service worker keeps; caches are there over HTTPS alone.
    if ("caches" in window) await caches.delete("thumbnails");
    const databases = (await indexedDB.databases?.()) ?? [];
    for (const { name } of databases) if (name) indexedDB.deleteDatabase(name);
    location.replace("/");
  },
  hidden: () => document.hidden,
});

// Phones freeze hidden pages and their connections, and send an event when they resume.
const wake = () => void state.wake();
window.addEventListener("online", wake);
window.addEventListener("pageshow", (event) => event.persisted && wake());
document.addEventListener("visibilitychange", () => !document.hidden && wake());

const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app");
render(
  <StateContext.Provider value={state}>
    <App />
  </StateContext.Provider>,
  root,
);
// The rest is loaded once the first screen is there: it opens without a server then.
void state.start().finally(() => {
  loadEditors().catch(() => undefined);
  loadInside().then(
    ({ Inside }) => state.inside(Inside).resume(),
    () => undefined,
  );
});

if (import.meta.env.PROD && window.isSecureContext) {
  // Opens the app without a network. Service workers need HTTPS or localhost.
  void navigator.serviceWorker?.register("/sw.js").catch(() => undefined);
}
