import { useEffect, useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { WaitingScreen } from "../create/WaitingScreen";

/** Looking inside is not part of the first load. `main.tsx` loads it when the app is idle. */
export const loadInside = () => import("./loaded");

type Loaded = Awaited<ReturnType<typeof loadInside>>;

/** How one picture was made, once the code that shows it is loaded. */
export function Inside({ pictureId }: { pictureId: string }) {
  const state = useApp();
  const [loaded, setLoaded] = useState<Loaded>();
  const [failed, setFailed] = useState(false);
  const reach = state.server.reach.value;
  const leave = () => state.route.back({ screen: "picture", id: pictureId });

  // Runs again when the server can be reached again.
  useEffect(() => {
    setFailed(false);
    loadInside().then(setLoaded, () => setFailed(true));
  }, [reach]);

  if (!loaded) {
    const text = t(failed ? "error.offline" : "common.loading");
    return <WaitingScreen title={t("inside.title")} text={text} onCancel={leave} />;
  }
  const inside = state.inside(loaded.Inside);
  return <loaded.InsideScreen inside={inside} pictureId={pictureId} onLeave={leave} />;
}
