import { useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { useApp } from "./components/context";
import { Create } from "./components/create/Create";
import { Editor } from "./components/create/Editor";
import { Gallery } from "./components/gallery/Gallery";
import { Inside } from "./components/inside/Inside";
import { ModelsScreen } from "./components/models/Models";
import { Pair } from "./components/pair/Pair";
import { SettingsScreen } from "./components/settings/Settings";
import { Banner } from "./components/shell/Banner";
import { TabBar } from "./components/shell/TabBar";
import { Toaster } from "./components/shell/Toaster";
import { Viewer } from "./components/viewer/Viewer";
import { Watch } from "./components/watch/Watch";
import type { Route } from "./lib/state/route";
import { language, t } from "./strings";

/** Screens that cover the others; keys and screen readers cannot reach those meanwhile. */
const LAYERS: readonly Route["screen"][] = ["photo", "mask", "picture", "inside"];

export function App() {
  const { value: chosen } = language;
  useEffect(() => {
    document.documentElement.lang = chosen;
  }, [chosen]);
  const covered = LAYERS.includes(useApp().route.current.value.screen);
  return (
    <div class="shell">
      <div class="under" inert={covered}>
        <Screen />
        <TabBar />
      </div>
      <Layer />
      <Toaster />
    </div>
  );
}

function Screen() {
  const { route, server } = useApp();
  const here = useBelow(route.current.value);
  const locked = useComputed(() => ["unpaired", "revoked"].includes(server.reach.value)).value;
  // On the first visit it is not known yet whether to show the form or the pairing page.
  if (server.reach.value === "checking" && !server.me.value) {
    return (
      <main class="screen" aria-busy="true">
        <p class="empty">{t("settings.server.checking")}</p>
      </main>
    );
  }
  if (here.screen === "settings") {
    return (
      <main class="screen">
        <SettingsScreen />
      </main>
    );
  }
  if (here.screen === "pair" || locked) {
    return (
      <main class="screen">
        <Pair code={here.screen === "pair" ? here.code : ""} />
      </main>
    );
  }
  switch (here.screen) {
    case "gallery":
      return (
        <main class="screen bleed">
          <Banner />
          <Gallery onOpen={(id) => route.go({ screen: "picture", id })} />
        </main>
      );
    case "models":
      return (
        <main class="screen">
          <Banner />
          <ModelsScreen />
        </main>
      );
    case "job":
      return (
        <main class="screen" key={here.id}>
          <Banner />
          <Watch id={here.id} />
        </main>
      );
    default:
      return (
        <main class="screen create-screen">
          <Banner />
          <Create />
        </main>
      );
  }
}

/** The screen under one that covers the others. It stays as it was left. */
function useBelow(here: Route): Route {
  const below = useRef<Route>(undefined);
  if (!LAYERS.includes(here.screen)) below.current = here;
  const shows = here.screen === "picture" || here.screen === "inside";
  return below.current ?? { screen: shows ? "gallery" : "create" };
}

/** Screens that cover the full page; "back" closes them. */
function Layer() {
  const state = useApp();
  const here = state.route.current.value;
  switch (here.screen) {
    case "photo":
    case "mask":
      return <Editor screen={here.screen} />;
    case "picture":
      return (
        <Viewer
          pictureId={here.id}
          onClose={() => state.route.back({ screen: "gallery" })}
          onOpen={(id) => state.route.replace({ screen: "picture", id })}
          onRemix={(_, request) => state.remix(request)}
          onUseAs={(task, picture) => state.useAs(task, picture)}
        />
      );
    case "inside":
      return <Inside key={here.id} pictureId={here.id} />;
    default:
      return null;
  }
}
