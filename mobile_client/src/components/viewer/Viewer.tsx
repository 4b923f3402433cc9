import { useEffect, useRef, useState } from "preact/hooks";
import type { Job, Picture, PictureRequest, Task } from "../../lib/transport/types";
import { type Key, t, titleOf } from "../../strings";
import { Icon, type IconName } from "../common/Icon";
import { useLayer } from "../common/useLayer";
import { Compare } from "../compare/Compare";
import { useApp } from "../context";
import { useDelete } from "../gallery/useDelete";
import { sourceOf } from "../picture";
import { Timeline } from "../timeline/Timeline";
import { Actions } from "./Actions";
import { Details } from "./Details";
import { Stage } from "./Stage";
import { useJob } from "./useJob";

export interface ViewerProps {
  pictureId: string;
  onClose: () => void;
  onOpen: (pictureId: string) => void;
  onRemix: (task: Task, request: PictureRequest) => void;
  onUseAs: (
    task: "img2img" | "inpaint" | "edit",
    picture: { id: string; width: number; height: number },
  ) => void;
}

/** The picture itself, the comparison with its start picture, or its replay. */
type Mode = "picture" | "compare" | "timeline";

/** One picture, as large as the screen. */
export function Viewer(props: ViewerProps) {
  const { pictureId, onClose, onOpen } = props;
  const { gallery, api, explanations } = useApp();
  const layer = useLayer<HTMLElement>();
  const found = useJob(pictureId);
  const remove = useDelete();
  const zoom = useRef<(factor: number) => void>(undefined);
  const [quiet, setQuiet] = useState(false);
  const [mode, setMode] = useState<Mode>("picture");
  const [showsDetails, setShowsDetails] = useState(false);

  const job = found && "job" in found ? found.job : undefined;
  const picture = job?.images.find(({ id }) => id === pictureId);
  const listed = gallery.pictures.value.find(({ id }) => id === pictureId);
  const { newer, older } = listed ? gallery.beside(pictureId) : siblings(job, pictureId);
  const isGone = found !== undefined && !picture && !("missing" in found && !found.missing);
  const source = sourceOf(job);
  const title = listed?.prompt ?? titleOf(job?.request ?? {});

  // The arrow that was pressed goes at the end of the list, and the focus with it.
  useEffect(() => {
    if (document.activeElement === document.body) layer.current?.focus({ preventScroll: true });
  }, [pictureId, mode]);

  function open(id: string) {
    setMode("picture");
    setShowsDetails(false);
    onOpen(id);
  }

  /** Keys that work wherever the focus is; sliders and sheets use theirs first. */
  function onKeyDown(event: KeyboardEvent) {
    const { key } = event;
    if (showsDetails || (event.target as Element).closest("dialog")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key === "Escape") onClose();
    else if (key === "Delete" && (picture ?? listed)) removeIt();
    else if (mode !== "picture") return;
    else if (key === "ArrowLeft" && newer) open(newer);
    else if (key === "ArrowRight" && older) open(older);
    else if (key === "+" || key === "=") zoom.current?.(1.25);
    else if (key === "-") zoom.current?.(0.8);
    else return;
    event.preventDefault();
  }

  function removeIt() {
    remove([pictureId]);
    const next = older ?? newer;
    if (next) open(next);
    else onClose();
  }

  return (
    <section
      class={quiet ? "viewer quiet" : "viewer"}
      ref={layer}
      tabIndex={-1}
      role="dialog"
      aria-modal="true"
      aria-label={t("viewer.title")}
      onKeyDown={onKeyDown}
    >
      {isGone ? (
        <p class="viewer-message">{t("viewer.gone")}</p>
      ) : mode === "compare" && source && picture ? (
        <div class="viewer-mode">
          <Compare before={api.imageUrl(source)} after={api.imageUrl(picture.id)} />
        </div>
      ) : mode === "timeline" && picture ? (
        <div class="viewer-mode">
          <Timeline picture={picture} />
        </div>
      ) : (
        <Stage
          id={pictureId}
          size={picture ?? listed}
          prompt={title}
          newer={newer}
          older={older}
          onOpen={open}
          onLeave={onClose}
          onTap={() => setQuiet(!quiet)}
          zoom={zoom}
        />
      )}
      <header class="viewer-top">
        <button
          type="button"
          class="button bare icon"
          aria-label={t("common.back")}
          onClick={onClose}
        >
          <Icon name="back" />
        </button>
        <p class="viewer-prompt">{title}</p>
        <button
          type="button"
          class="button bare icon"
          aria-label={t("viewer.details")}
          disabled={!picture}
          onClick={() => setShowsDetails(true)}
        >
          <Icon name="info" />
        </button>
      </header>
      <footer class="viewer-bottom">
        {/* What is kept can be opened without the server. */}
        {!job && explanations.has(pictureId) && (
          <div class="viewer-modes">
            <LookInside pictureId={pictureId} />
          </div>
        )}
        {job && picture && (
          <>
            <Modes job={job} pictureId={pictureId} mode={mode} onMode={setMode} />
            <Actions
              job={job}
              picture={picture}
              onRemix={() => props.onRemix(job.task, requestOf(job, picture))}
              onUseAs={(task) => props.onUseAs(task, picture)}
              onDelete={removeIt}
            />
          </>
        )}
      </footer>
      {showsDetails && job && picture && (
        <Details job={job} picture={picture} onClose={() => setShowsDetails(false)} />
      )}
    </section>
  );
}

interface ModesProps {
  job: Job;
  pictureId: string;
  mode: Mode;
  onMode: (mode: Mode) => void;
}

function Modes({ job, pictureId, mode, onMode }: ModesProps) {
  const hasSource = sourceOf(job) !== undefined;
  const chip = (its: Mode, icon: IconName, name: Key) => (
    <button
      type="button"
      class="chip"
      aria-pressed={mode === its}
      onClick={() => onMode(mode === its ? "picture" : its)}
    >
      <Icon name={icon} />
      {t(name)}
    </button>
  );
  return (
    <div class="viewer-modes">
      {hasSource && chip("compare", "compare", "viewer.compare")}
      {/* Upscaling has no steps. */}
      {job.task !== "upscale" && (
        <>
          {chip("timeline", "history", "viewer.replay")}
          <LookInside pictureId={pictureId} />
        </>
      )}
    </div>
  );
}

function LookInside({ pictureId }: { pictureId: string }) {
  const { route } = useApp();
  return (
    <button
      type="button"
      class="chip"
      onClick={() => route.go({ screen: "inside", id: pictureId })}
    >
      <Icon name="eye" />
      {t("inside.title")}
    </button>
  );
}

/** The pictures of the same job on both sides, for one that the gallery has not loaded. */
function siblings(job: Job | undefined, id: string): { newer?: string; older?: string } {
  const images = job?.images ?? [];
  const at = images.findIndex((image) => image.id === id);
  const { [at - 1]: before, [at + 1]: after } = images;
  return { ...(before && { newer: before.id }), ...(after && { older: after.id }) };
}

/** All settings of one picture. Each picture of a job has its own seed. */
function requestOf(job: Job, picture: Picture): PictureRequest {
  return { ...(job.request as PictureRequest), seed: picture.seed };
}
