import { useEffect, useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { Bar, SelectionBar } from "./Bars";
import { Empty } from "./Empty";
import { Grid } from "./Grid";
import { useDelete } from "./useDelete";

/** All pictures, by day. */
export function Gallery({ onOpen }: { onOpen: (pictureId: string) => void }) {
  const { gallery, server } = useApp();
  /** Ids of the selected pictures; undefined while not selecting. */
  const [chosen, setChosen] = useState<ReadonlySet<string>>();
  const remove = useDelete();
  const pictures = gallery.pictures.value;
  const isReachable = server.reach.value === "ok" || server.reach.value === "starting";

  // Runs again when the server can be reached again.
  useEffect(() => {
    void gallery.refresh();
  }, [gallery, isReachable]);

  useEffect(() => {
    const onVisible = () => document.visibilityState === "visible" && void gallery.refresh();
    const onLeave = () => gallery.flush();
    document.addEventListener("visibilitychange", onVisible);
    window.addEventListener("pagehide", onLeave);
    return () => {
      document.removeEventListener("visibilitychange", onVisible);
      window.removeEventListener("pagehide", onLeave);
    };
  }, [gallery]);

  function toggle(id: string) {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  }

  function removeChosen() {
    remove([...(chosen ?? [])]);
    setChosen(undefined);
  }

  return (
    <section class="gallery" aria-label={t("tab.gallery")}>
      <Bar
        chosen={chosen}
        onSelect={() => setChosen(new Set())}
        onSelectAll={() => setChosen(new Set(pictures.map(({ id }) => id)))}
        onLeave={() => setChosen(undefined)}
      />
      {pictures.length > 0 ? (
        <Grid
          pictures={pictures}
          chosen={chosen}
          onPick={(id) => (chosen ? toggle(id) : onOpen(id))}
          onHold={(id) => (chosen ? toggle(id) : setChosen(new Set([id])))}
        />
      ) : (
        <Empty />
      )}
      {chosen && <SelectionBar count={chosen.size} onDelete={removeChosen} />}
    </section>
  );
}
