import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { Bar, SelectionBar } from "./Bars";
import { DeleteSheet } from "./DeleteSheet";
import { Empty } from "./Empty";
import { Grid } from "./Grid";
import { moveFocus } from "./keys";
import { useDelete } from "./useDelete";

/** Deleting more than so many pictures at once is asked about. */
const FEW = 3;

/** All pictures, by day. */
export function Gallery({ onOpen }: { onOpen: (pictureId: string) => void }) {
  const { gallery, server } = useApp();
  /** Ids of the selected pictures; undefined while not selecting. */
  const [chosen, setChosen] = useState<ReadonlySet<string>>();
  const [asking, setAsking] = useState(false);
  const section = useRef<HTMLElement>(null);
  /** Where a range selected with Shift begins. */
  const anchor = useRef<string>(undefined);
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
    anchor.current = id;
    setChosen(next);
  }

  /** Selects all pictures from the last one that was picked to this one. */
  function extend(id: string) {
    const ids = pictures.map((each) => each.id);
    const ends = [ids.indexOf(anchor.current ?? id), ids.indexOf(id)].sort((a, b) => a - b);
    setChosen(new Set([...(chosen ?? []), ...ids.slice(ends[0], (ends[1] ?? 0) + 1)]));
  }

  /** Selects all pictures that there are, or none if all are selected. */
  async function toggleAll() {
    if (chosen?.size === pictures.length && gallery.complete.value) {
      setChosen(new Set());
      return;
    }
    const wasChoosing = chosen !== undefined;
    await gallery.all();
    // Selecting may have been left while the list was loaded.
    setChosen((now) =>
      wasChoosing && !now ? now : new Set(gallery.pictures.value.map(({ id }) => id)),
    );
  }

  function removeChosen() {
    remove([...(chosen ?? [])]);
    setChosen(undefined);
    setAsking(false);
  }

  function pick(id: string, event: MouseEvent) {
    if (event.shiftKey) extend(id);
    else if (chosen || event.ctrlKey || event.metaKey) toggle(id);
    else onOpen(id);
  }

  function onKeyDown(event: KeyboardEvent) {
    if (asking) return;
    if (event.key === "Escape" && chosen) setChosen(undefined);
    else if (event.key === "Delete" && chosen?.size) askOrRemove();
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) void toggleAll();
    else if (!moveFocus(section.current, event.key)) return;
    event.preventDefault();
  }

  const askOrRemove = () => ((chosen?.size ?? 0) > FEW ? setAsking(true) : removeChosen());

  return (
    <section class="gallery" aria-label={t("tab.gallery")} ref={section} onKeyDown={onKeyDown}>
      <Bar
        chosen={chosen}
        onSelect={() => setChosen(new Set())}
        onSelectAll={() => void toggleAll()}
        onLeave={() => setChosen(undefined)}
      />
      {pictures.length > 0 ? (
        <Grid pictures={pictures} chosen={chosen} onPick={pick} onHold={toggle} />
      ) : (
        <Empty />
      )}
      {chosen && <SelectionBar count={chosen.size} onDelete={askOrRemove} />}
      {chosen && asking && (
        <DeleteSheet count={chosen.size} onDelete={removeChosen} onClose={() => setAsking(false)} />
      )}
    </section>
  );
}
