import { useEffect, useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { WaitingScreen } from "./WaitingScreen";

/** The editors are not part of the first load. `main.tsx` loads them when the app is idle. */
export const loadEditors = () => import("./editors");

type Editors = Awaited<ReturnType<typeof loadEditors>>;

/** The crop or the mask editor, once its code is loaded. */
export function Editor({ screen }: { screen: "photo" | "mask" }) {
  const { route, server } = useApp();
  const [editors, setEditors] = useState<Editors>();
  const [failed, setFailed] = useState(false);
  const reach = server.reach.value;

  // Runs again when the server can be reached again.
  useEffect(() => {
    setFailed(false);
    loadEditors().then(setEditors, () => setFailed(true));
  }, [reach]);

  if (!editors) {
    const text = t(failed ? "error.offline" : "common.loading");
    const title = t(screen === "photo" ? "photo.title" : "mask.title");
    return <WaitingScreen title={title} text={text} onCancel={() => route.back()} />;
  }
  return screen === "photo" ? <editors.PhotoScreen /> : <editors.MaskScreen />;
}
