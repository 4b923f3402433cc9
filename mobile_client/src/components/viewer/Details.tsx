import { copy } from "../../lib/clipboard";
import type { Job, Picture } from "../../lib/transport/types";
import { type Key, language, number, t } from "../../strings";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { useApp } from "../context";

interface DetailsProps {
  job: Job;
  picture: Picture;
  onClose: () => void;
}

/** Everything that made the picture what it is. */
export function Details({ job, picture, onClose }: DetailsProps) {
  const { server } = useApp();
  const asked = job.request;
  const prompt = String(asked.prompt ?? "");
  const negative = String(asked.negative_prompt ?? "");
  const isOwner = server.me.value?.scope === "own";
  return (
    <Sheet title={t("viewer.details")} onClose={onClose}>
      <Words name="viewer.prompt" text={prompt || t("gallery.untitled")} copies={prompt} />
      {negative && <Words name="viewer.negative" text={negative} copies={negative} />}
      <dl class="viewer-facts">
        <Fact name="viewer.seed" value={String(picture.seed)} />
        <Fact name="viewer.size" value={`${picture.width} × ${picture.height}`} />
        <Fact name="viewer.model" value={asked.model} />
        <Fact name="viewer.steps" value={asked.num_inference_steps} />
        <Fact name="viewer.guidance" value={asked.guidance_scale} />
        <Fact name="viewer.scheduler" value={asked.scheduler} />
        <Fact name="viewer.strength" value={asked.strength} />
        <Fact name="viewer.loras" value={lorasOf(asked.loras)} />
        <Fact name="viewer.clipSkip" value={asked.clip_skip || null} />
        <Fact name="viewer.maskBlur" value={asked.mask_blur || null} />
        <Fact name="viewer.maskCrop" value={asked.padding_mask_crop} />
        <Fact name="viewer.made" value={moment(picture.created_at)} />
        <Fact name="viewer.took" value={took(job)} />
        {isOwner && <Fact name="viewer.client" value={job.client} />}
      </dl>
      {job.notes.map((note) => (
        <p key={note} class="hint">
          {note}
        </p>
      ))}
    </Sheet>
  );
}

function Words({ name, text, copies }: { name: Key; text: string; copies: string }) {
  const { toasts } = useApp();
  async function take() {
    toasts.show({ text: t((await copy(copies)) ? "viewer.copied" : "viewer.copyFailed") });
  }
  return (
    <div class="viewer-words">
      <div>
        <h3 class="label">{t(name)}</h3>
        <p>{text}</p>
      </div>
      {copies && (
        <button
          type="button"
          class="button icon"
          aria-label={`${t("viewer.copy")}: ${t(name)}`}
          onClick={() => void take()}
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

function moment(time: string): string {
  const options = { dateStyle: "medium", timeStyle: "short" } as const;
  return new Intl.DateTimeFormat(language.value, options).format(new Date(time));
}

function took({ started_at, finished_at }: Job): string {
  if (!started_at || !finished_at) return "";
  const seconds = (Date.parse(finished_at) - Date.parse(started_at)) / 1000;
  return t("time.seconds", { value: number(seconds, 1) });
}
