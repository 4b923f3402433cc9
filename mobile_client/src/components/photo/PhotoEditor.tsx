import { useEffect, useRef, useState } from "preact/hooks";
import type { Cropper, Cropping, Ratio } from "../../lib/canvas/cropper";
import type { ModelLimits, Size } from "../../lib/transport/types";
import { t } from "../../strings";
import { moreOf, sayProblem } from "../../strings/problems";
import { EditorFrame } from "../common/EditorFrame";
import { Icon } from "../common/Icon";
import { useLeft } from "../common/useLeft";
import { listen } from "./pointers";
import { usePhoto } from "./usePhoto";

export interface PhotoEditorProps {
  file: Blob;
  limits: ModelLimits;
  /** How the photo was cropped before, to go on from there. */
  before: Cropping | null;
  /**
   * @param picture JPEG or PNG of a size that the model takes.
   * @param photo that it was cropped from, in a format that this browser shows.
   */
  onDone: (picture: Blob, size: Size, cropping: Cropping, photo: Blob) => void;
  onCancel: () => void;
}

/** Crops and rotates a photo, and makes it small enough to send. */
export function PhotoEditor({ file, limits, before, onDone, onCancel }: PhotoEditorProps) {
  const photo = usePhoto(file, limits, before);
  const cropper = photo.is === "open" ? photo.cropper : undefined;
  const [busy, setBusy] = useState(false);
  const [outOfMemory, setOutOfMemory] = useState(false);
  const isLeft = useLeft();

  async function finish(chosen: Cropper, from: Blob) {
    setBusy(true);
    const { crop } = chosen;
    try {
      const picture = await chosen.photo.crop(crop);
      if (!isLeft()) onDone(picture, crop.size, chosen.cropping, from);
    } catch {
      setOutOfMemory(true); // the browser refused the memory
    } finally {
      setBusy(false);
    }
  }

  return (
    <EditorFrame
      kind="photo"
      title={t("photo.title")}
      onCancel={onCancel}
      tool={
        <button
          type="button"
          class="button bare icon"
          disabled={!cropper}
          onClick={() => cropper?.turn()}
          aria-label={t("photo.turn")}
        >
          <Icon name="turn" />
        </button>
      }
    >
      {photo.is === "failed" || outOfMemory ? (
        <div class="photo-message" role="alert">
          <p class="problem">{t(outOfMemory ? "photo.tooLarge" : "photo.unreadable")}</p>
          {photo.is === "failed" && (
            <p class="hint">
              {photo.why ? (moreOf(photo.why) ?? sayProblem(photo.why)) : t("photo.heic")}
            </p>
          )}
          <button type="button" class="button" onClick={onCancel}>
            {t("photo.another")}
          </button>
        </div>
      ) : cropper ? (
        <Frame cropper={cropper} />
      ) : (
        <p class="photo-message" role="status">
          {t(photo.is === "decoding" ? "photo.decoding" : "photo.opening")}
        </p>
      )}
      {photo.is === "open" && cropper && !outOfMemory && (
        <footer class="photo-tools">
          <Ratios cropper={cropper} />
          <div class="photo-row">
            <Result cropper={cropper} />
            <button
              type="button"
              class="button primary"
              disabled={busy}
              onClick={() => finish(cropper, photo.file)}
            >
              {t("photo.use")}
            </button>
          </div>
        </footer>
      )}
    </EditorFrame>
  );
}

function Frame({ cropper }: { cropper: Cropper }) {
  const sheet = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);

  useEffect(() => {
    const surface = canvas.current;
    const place = sheet.current;
    if (!surface || !place) return;
    const ends = [cropper.attach(surface), listen(place, cropper)];
    return () => {
      for (const end of ends) end();
    };
  }, [cropper]);

  return (
    <div
      class="photo-sheet"
      ref={sheet}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: keys work here, as the help says
      tabIndex={0}
      role="application"
      aria-label={t("photo.frame")}
      aria-describedby="photo-help"
    >
      <canvas ref={canvas} />
      <p id="photo-help" class="visually-hidden">
        {t("photo.help")}
      </p>
    </div>
  );
}

const SHAPES: readonly (readonly [number, number])[] = [
  [1, 1],
  [4, 3],
  [3, 4],
  [3, 2],
  [2, 3],
  [16, 9],
  [9, 16],
];

function Ratios({ cropper }: { cropper: Cropper }) {
  const choices: { ratio: Ratio; name: string }[] = [
    { ratio: "own", name: t("photo.own") },
    ...SHAPES.map(([width, height]) => ({ ratio: width / height, name: `${width}:${height}` })),
  ];
  const chosen = cropper.ratio.value;
  return (
    <fieldset class="photo-ratios">
      <legend class="visually-hidden">{t("create.shape")}</legend>
      {choices.map(({ ratio, name }) => (
        <button
          key={name}
          type="button"
          class="chip"
          aria-pressed={isSame(chosen, ratio)}
          onClick={() => cropper.shape(ratio)}
        >
          {name}
        </button>
      ))}
    </fieldset>
  );
}

function isSame(a: Ratio, b: Ratio): boolean {
  return a === b || (a !== "own" && b !== "own" && Math.abs(a - b) < 0.001);
}

/** A component of its own, because it changes while the photo is moved. */
function Result({ cropper }: { cropper: Cropper }) {
  const { width, height } = cropper.result.value;
  return (
    <p class="hint photo-result" aria-live="polite">
      {t("photo.result", { width, height })}
      {cropper.tooLong.value && <span class="block">{t("photo.tooLong")}</span>}
      {cropper.enlarged.value && <span class="block">{t("photo.enlarged")}</span>}
    </p>
  );
}
