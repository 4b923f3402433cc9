import { useEffect } from "preact/hooks";
import { isOver } from "../../lib/transport/types";
import { t, titleOf } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { Developing } from "./Developing";
import { Result } from "./Result";
import { Unsent } from "./Unsent";

/** One request, from sending to the picture. `id`: of the job, or the key of an unsent request. */
export function Watch({ id }: { id: string }) {
  const state = useApp();
  const { jobs, outbox, route } = state;
  const entry = outbox.find(id);
  const unsent = entry !== undefined;
  useEffect(() => {
    if (unsent) return;
    const became = state.jobOf(id);
    if (became) {
      route.replace({ screen: "job", id: became });
      return;
    }
    void jobs.focus(id);
    return () => void jobs.focus(null);
  }, [id, unsent, state, jobs, route]);
  const watched = jobs.get(id);
  const title = titleOf(entry?.request ?? watched?.job.request ?? {});
  return (
    <div class="watch stack">
      <header class="watch-head">
        <button
          type="button"
          class="button icon bare"
          aria-label={t("common.back")}
          onClick={() => route.back()}
        >
          <Icon name="back" />
        </button>
        <h1 class="watch-prompt">{title || t("watch.title")}</h1>
      </header>
      <Body id={id} />
    </div>
  );
}

function Body({ id }: { id: string }) {
  const { jobs, outbox, route } = useApp();
  const entry = outbox.find(id);
  if (entry) return <Unsent entry={entry} />;
  if (jobs.missing.value.has(id)) {
    return (
      <div class="empty">
        <h2>{t("watch.missing")}</h2>
        <p>{t("watch.missing.hint")}</p>
        <button type="button" class="button" onClick={() => route.go({ screen: "create" })}>
          {t("tab.create")}
        </button>
      </div>
    );
  }
  const watched = jobs.get(id);
  if (!watched) return <div class="frame waiting" role="status" aria-label={t("common.loading")} />;
  return isOver(watched.job.status) ? (
    <Result watched={watched} />
  ) : (
    <Developing watched={watched} />
  );
}
