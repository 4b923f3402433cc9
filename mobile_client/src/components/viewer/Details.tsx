import { copy } from "../../lib/clipboard";
import { NUMBERS, numbersOf } from "../../lib/state/numbers";
import type { Job, Picture } from "../../lib/transport/types";
import { type Key, moment, number, t, titleOf } from "../../strings";
import { sayNotes } from "../../strings/problems";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { useApp } from "../context";

interface DetailsProps {
  job: Job;
  picture: Picture;
  onClose: () => void;
}

/** Every setting that the picture was made with. */
export function Details({ job, picture, onClose }: DetailsProps) {
  const { server } = useApp();
  const request = job.request;
  const prompt = String(request.prompt ?? "");
  const title = titleOf(request) || t("gallery.untitled");
  const negative = String(request.negative_prompt ?? "");
  const isOwner = server.me.value?.scope === "own";
  return (
    <Sheet title={t("viewer.details")} onClose={onClose}>
      <CopyableText name="create.prompt" text={title} copied={prompt} />
      {negative && <CopyableText name="create.negative" text={negative} copied={negative} />}
      <dl class="viewer-facts">
        <Fact name="create.seed" value={job.task === "upscale" ? null : String(picture.seed)} />
        <Fact name="viewer.size" value={`${picture.width} × ${picture.height}`} />
        <Fact name="create.model" value={request.model} />
        <Fact name="upscale.upscaler" value={request.upscaler} />
        <Fact name="create.steps" value={request.num_inference_steps} />
        <Fact name="create.guidance" value={request.guidance_scale} />
        {NUMBERS.map(({ name }) => (
          <Fact key={name} name={`create.${name}`} value={numbersOf(request)[name]} />
        ))}
        <Fact name="create.scheduler" value={request.scheduler} />
        <Fact name="create.strength" value={request.strength} />
        <Fact name="create.loras" value={lorasOf(request.loras)} />
        <Fact name="create.clipskip" value={request.clip_skip || null} />
        <Fact name="create.mask.blur" value={request.mask_blur || null} />
        <Fact name="create.mask.context" value={request.padding_mask_crop} />
        <Fact name="viewer.created" value={moment(picture.created_at)} />
        <Fact name="viewer.duration" value={durationOf(job)} />
        <Fact name="viewer.worker" value={madeOn(picture)} />
        {isOwner && <Fact name="viewer.client" value={job.client} />}
      </dl>
      {sayNotes(job).map((note) => (
        <p key={note} class="hint">
          {note}
        </p>
      ))}
    </Sheet>
  );
}

function CopyableText({ name, text, copied }: { name: Key; text: string; copied: string }) {
  const { toasts } = useApp();
  async function copyIt() {
    toasts.show({ text: t((await copy(copied)) ? "viewer.copied" : "viewer.copyFailed") });
  }
  return (
    <div class="viewer-words">
      <div>
        <h3 class="label">{t(name)}</h3>
        <p>{text}</p>
      </div>
      {copied && (
        <button
          type="button"
          class="button icon"
          aria-label={`${t("viewer.copy")}: ${t(name)}`}
          onClick={() => void copyIt()}
        >
          <Icon name="copy" />
        </button>
      )}
    </div>
  );
}

function Fact({ name, value }: { name: Key; value: unknown }) {
  if (value === null || value === undefined || value === "") return null;
  const shown = typeof value === "number" ? number(value) : String(value);
  return (
    <div>
      <dt>{t(name)}</dt>
      <dd>{shown}</dd>
    </div>
  );
}

function lorasOf(loras: unknown): string {
  if (!Array.isArray(loras)) return "";
  return loras.map(({ name, scale }) => `${name} × ${number(scale)}`).join(", ");
}

/** The worker that made a picture, and what it runs on. */
function madeOn({ worker, device }: Picture): string {
  return worker && device ? `${worker} (${device})` : (worker ?? "");
}

function durationOf({ started_at, finished_at }: Job): string {
  if (!started_at || !finished_at) return "";
  const seconds = (Date.parse(finished_at) - Date.parse(started_at)) / 1000;
  return t("time.seconds", { value: number(seconds, 1) });
}
