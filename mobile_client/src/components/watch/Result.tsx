import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { fileName } from "../../lib/file-name";
import type { Watched } from "../../lib/state/jobs";
import type { Job, Picture } from "../../lib/transport/types";
import { duration, t } from "../../strings";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { canShare, sharePicture } from "../common/share";
import { useApp } from "../context";
import { Timeline } from "../timeline/Timeline";
import { Notes } from "./Developing";

/** A job that has ended: its pictures, or why there are none. */
export function Result({ watched }: { watched: Watched }) {
  const { job } = watched;
  if (job.status === "succeeded") return <Pictures job={job} preview={watched.preview} />;
  return <NoPictures job={job} />;
}

function Pictures({ job, preview }: { job: Job; preview: string | null }) {
  const { api } = useApp();
  const [at, setAt] = useState(0);
  const [replaying, setReplaying] = useState(false);
  const picture = job.images[at] ?? job.images[0];
  const prompt = String(job.request.prompt ?? "");
  if (!picture) {
    return (
      <>
        <p class="empty">{t("watch.nopictures")}</p>
        <Again job={job} />
      </>
    );
  }
  return (
    <>
      {replaying && <Timeline jobId={job.id} />}
      <figure
        class="frame"
        hidden={replaying}
        style={{ "--ratio": picture.width / picture.height }}
      >
        {preview && at === 0 && <img class="preview under" src={preview} alt="" />}
        <img
          key={picture.id}
          class="picture"
          src={api.imageUrl(picture.id)}
          width={picture.width}
          height={picture.height}
          alt={t("watch.picture", { count: at + 1, total: job.images.length, prompt })}
        />
      </figure>
      {job.images.length > 1 && (
        <div class="strip">
          {job.images.map((image, index) => (
            <button
              key={image.id}
              type="button"
              class="strip-button"
              aria-label={t("watch.show", { count: index + 1 })}
              aria-pressed={index === at}
              onClick={() => setAt(index)}
            >
              <img src={api.imageUrl(image.id, 128)} alt="" loading="lazy" />
            </button>
          ))}
        </div>
      )}
      <Facts job={job} picture={picture}>
        <button
          type="button"
          class="button bare replay"
          aria-pressed={replaying}
          onClick={() => setReplaying(!replaying)}
        >
          <Icon name="history" />
          {t(replaying ? "watch.replay.back" : "viewer.replay")}
        </button>
      </Facts>
      <Actions job={job} picture={picture} />
      <Notes notes={job.notes} />
    </>
  );
}

interface FactsProps {
  job: Job;
  picture: Picture;
  children: ComponentChildren;
}

function Facts({ job, picture, children }: FactsProps) {
  const began = job.started_at ? Date.parse(job.started_at) : null;
  const ended = job.finished_at ? Date.parse(job.finished_at) : null;
  return (
    <div class="hint facts">
      <span>{t("create.shape.exact", { width: picture.width, height: picture.height })}</span>
      <span>{t("watch.seed", { seed: picture.seed })}</span>
      {began !== null && ended !== null && <span>{duration((ended - began) / 1000)}</span>}
      {children}
    </div>
  );
}

function Actions({ job, picture }: { job: Job; picture: Picture }) {
  const state = useApp();
  const [editing, setEditing] = useState(false);
  const name = fileName(job, picture);
  const share = () => state.takeOut(picture.id, (bytes) => sharePicture(bytes, name));
  return (
    <div class="actions">
      <Again job={job} />
      <div class="action-row">
        <a class="button" href={state.api.imageUrl(picture.id)} download={name}>
          <Icon name="save" />
          {t("common.save")}
        </a>
        {canShare() && (
          <button type="button" class="button" onClick={() => void share()}>
            <Icon name="share" />
            {t("common.share")}
          </button>
        )}
        <button type="button" class="button" onClick={() => setEditing(true)}>
          <Icon name="brush" />
          {t("viewer.edit")}
        </button>
        <button type="button" class="button" onClick={() => state.remix(job.request, picture.seed)}>
          <Icon name="remix" />
          {t("viewer.remix")}
        </button>
      </div>
      {editing && (
        <Sheet title={t("viewer.edit.title")} onClose={() => setEditing(false)}>
          <button type="button" class="button wide" onClick={() => state.useAs("img2img", picture)}>
            <Icon name="photo" />
            {t("viewer.edit.start")}
          </button>
          <button type="button" class="button wide" onClick={() => state.useAs("inpaint", picture)}>
            <Icon name="brush" />
            {t("create.mask.paint")}
          </button>
          <button
            type="button"
            class="button wide"
            onClick={() => state.route.go({ screen: "picture", id: picture.id })}
          >
            <Icon name="gallery" />
            {t("watch.open")}
          </button>
        </Sheet>
      )}
    </div>
  );
}

function Again({ job }: { job: Job }) {
  const state = useApp();
  return (
    <button type="button" class="button primary wide" onClick={() => void state.again(job)}>
      {t("watch.again")}
    </button>
  );
}

/** A job that failed or was cancelled: the reason, and buttons to try again. */
function NoPictures({ job }: { job: Job }) {
  const state = useApp();
  const failed = job.status === "failed";
  return (
    <>
      <div class={failed ? "card stack failed" : "card stack"} role="status">
        <h2>{t(failed ? "watch.failed" : "watch.cancelled")}</h2>
        {failed && (
          <>
            <p>{job.error?.detail ?? job.error?.title}</p>
            <p class="hint">{t("watch.failed.hint")}</p>
            {job.error?.request_id && (
              <p class="hint">{t("watch.request", { id: job.error.request_id })}</p>
            )}
          </>
        )}
      </div>
      <Notes notes={job.notes} />
      <div class="actions">
        <button type="button" class="button primary wide" onClick={() => void state.again(job)}>
          {t("common.retry")}
        </button>
        <button type="button" class="button wide" onClick={() => state.remix(job.request)}>
          {t("watch.amend")}
        </button>
      </div>
    </>
  );
}
