import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { fileName } from "../../lib/file-name";
import type { Watched } from "../../lib/state/jobs";
import type { Job, Picture } from "../../lib/transport/types";
import { duration, t, titleOf } from "../../strings";
import { moreOf, sayProblem } from "../../strings/problems";
import { Icon, type IconName } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { canShare, useShare } from "../common/share";
import { Upscale } from "../common/Upscale";
import { Compare } from "../compare/Compare";
import { useApp } from "../context";
import { sourceOf } from "../picture";
import { Timeline } from "../timeline/Timeline";
import { Notes } from "./Developing";

/** The picture, the comparison with its start picture, or its replay. */
type Mode = "picture" | "compare" | "replay";

/** A job that has ended: its pictures, or why there are none. */
export function Result({ watched }: { watched: Watched }) {
  const { job } = watched;
  if (job.status === "succeeded") return <Pictures job={job} previews={watched.previews} />;
  return <NoPictures job={job} />;
}

function Pictures({ job, previews }: { job: Job; previews: Watched["previews"] }) {
  const { api, gallery, route } = useApp();
  const [at, setAt] = useState(0);
  const [mode, setMode] = useState<Mode>("picture");
  const images = job.images.filter(({ id }) => !gallery.isDeleted(id));
  const picture = images.find(({ index }) => index === at) ?? images[0];
  const preview = previews[picture?.index ?? 0];
  const source = sourceOf(job);
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
      {mode === "replay" && <Timeline picture={picture} />}
      {mode === "compare" && source && (
        <Compare before={api.imageUrl(source)} after={api.imageUrl(picture.id)} />
      )}
      <figure
        class="frame"
        hidden={mode !== "picture"}
        style={{ "--ratio": picture.width / picture.height }}
      >
        {preview && <img class="preview under" src={preview} alt="" />}
        <img
          key={picture.id}
          class="picture"
          src={api.imageUrl(picture.id)}
          width={picture.width}
          height={picture.height}
          alt={t("watch.picture", {
            count: picture.index + 1,
            total: job.images.length,
            prompt: titleOf(job.request),
          })}
        />
        <button
          type="button"
          class="frame-open"
          aria-label={t("watch.fullScreen")}
          title={t("watch.fullScreen")}
          onClick={() => route.go({ screen: "picture", id: picture.id })}
        />
      </figure>
      {images.length > 1 && (
        <div class="strip">
          {images.map((image) => (
            <button
              key={image.id}
              type="button"
              class="strip-button"
              aria-label={t("watch.show", { count: image.index + 1 })}
              aria-pressed={image === picture}
              onClick={() => {
                setAt(image.index);
                setMode("picture");
              }}
            >
              <img src={api.imageUrl(image.id, 128)} alt="" loading="lazy" />
            </button>
          ))}
        </div>
      )}
      <Facts job={job} picture={picture}>
        <span class="modes">
          {source && (
            <ModeButton its="compare" mode={mode} onMode={setMode} icon="compare">
              {t("viewer.compare")}
            </ModeButton>
          )}
          {/* Upscaling has no steps. */}
          {job.task !== "upscale" && (
            <>
              <ModeButton its="replay" mode={mode} onMode={setMode} icon="history">
                {t("viewer.replay")}
              </ModeButton>
              <button
                type="button"
                class="button bare replay"
                onClick={() => route.go({ screen: "inside", id: picture.id })}
              >
                <Icon name="eye" />
                {t("inside.title")}
              </button>
            </>
          )}
        </span>
      </Facts>
      <Actions job={job} picture={picture} />
      <Notes job={job} />
    </>
  );
}

function ModeButton(props: {
  its: Mode;
  mode: Mode;
  onMode: (mode: Mode) => void;
  icon: IconName;
  children: ComponentChildren;
}) {
  const { its, mode, onMode, icon, children } = props;
  return (
    <button
      type="button"
      class="button bare replay"
      aria-pressed={mode === its}
      onClick={() => onMode(mode === its ? "picture" : its)}
    >
      <Icon name={icon} />
      {mode === its ? t("watch.replay.back") : children}
    </button>
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
      {job.task !== "upscale" && <span>{t("watch.seed", { seed: picture.seed })}</span>}
      {began !== null && ended !== null && <span>{duration((ended - began) / 1000)}</span>}
      {children}
    </div>
  );
}

function Actions({ job, picture }: { job: Job; picture: Picture }) {
  const state = useApp();
  const [editing, setEditing] = useState(false);
  const name = fileName(job, picture);
  const share = useShare(picture.id, name);
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
        <Upscale picture={picture} class="button" />
        {job.task !== "upscale" && (
          <button
            type="button"
            class="button"
            onClick={() => state.remix(job.request, picture.seed)}
          >
            <Icon name="remix" />
            {t("viewer.remix")}
          </button>
        )}
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
        </Sheet>
      )}
    </div>
  );
}

/** Another picture from the same request; a picture is made larger in one way only. */
function Again({ job }: { job: Job }) {
  const state = useApp();
  if (job.task === "upscale") return null;
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
            {job.error && <p>{sayProblem(job.error)}</p>}
            {job.error && moreOf(job.error) && <p class="hint">{moreOf(job.error)}</p>}
            <p class="hint">{t("watch.failed.hint")}</p>
            {job.error?.request_id && (
              <p class="hint">{t("watch.request", { id: job.error.request_id })}</p>
            )}
          </>
        )}
      </div>
      <Notes job={job} />
      <div class="actions">
        <button type="button" class="button primary wide" onClick={() => void state.again(job)}>
          {t("common.retry")}
        </button>
        {job.task !== "upscale" && (
          <button type="button" class="button wide" onClick={() => state.remix(job.request)}>
            {t("watch.amend")}
          </button>
        )}
      </div>
    </>
  );
}
