import { useEffect, useRef, useState } from "preact/hooks";
import type { Source as StartPicture } from "../../lib/state/draft";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { useComplaints } from "./complaints";
import { useTakePicture } from "./usePictureInput";

/** Not every system counts HEIC among the pictures. */
const PICTURES = "image/*,.heic,.heif";

/** Tasks that start from a picture. */
const STARTS = ["img2img", "inpaint", "edit"] as const;

/** The start picture and its mask, or the buttons to choose one. */
export function Source() {
  const { draft } = useApp();
  const model = draft.model.value;
  const source = draft.source.value;
  if (source) return <Chosen source={source} />;
  if (model && !STARTS.some((task) => model.tasks.includes(task))) return null;
  return <Pick />;
}

function Pick() {
  const take = useTakePicture();
  const camera = useRef<HTMLInputElement>(null);
  const library = useRef<HTMLInputElement>(null);
  const picked = (event: { currentTarget: HTMLInputElement }) => {
    take(event.currentTarget.files?.[0]);
    event.currentTarget.value = ""; // so that the same one can be picked again
  };
  return (
    <fieldset class="pick">
      <legend class="label">{t("create.start")}</legend>
      <div class="pick-row">
        <button type="button" class="button" onClick={() => camera.current?.click()}>
          <Icon name="camera" />
          {t("create.camera")}
        </button>
        <button type="button" class="button" onClick={() => library.current?.click()}>
          <Icon name="photo" />
          {t("create.library")}
        </button>
      </div>
      <input
        ref={camera}
        hidden
        type="file"
        accept="image/*"
        capture="environment"
        data-testid="camera"
        onChange={picked}
      />
      <input
        ref={library}
        hidden
        type="file"
        accept={PICTURES}
        data-testid="library"
        onChange={picked}
      />
    </fieldset>
  );
}

function Chosen({ source }: { source: StartPicture }) {
  const state = useApp();
  const { api, draft, route } = state;
  const mask = draft.mask.value;
  const strokes = draft.strokes.value;
  const complaints = useComplaints();
  const url = usePictureUrl(source.picture, 512);
  const storedMask = typeof mask?.picture === "string" ? mask.picture : null;
  const canPaint = draft.model.value?.tasks.includes("inpaint") ?? true;
  const problem = complaints.image ?? complaints.mask;
  const crop = () => {
    draft.pickAgain(source);
    route.go({ screen: "photo" });
  };
  return (
    <section class="source" aria-label={t("create.source")}>
      <div class="source-picture" style={{ "--ratio": source.width / source.height }}>
        {url && (
          <img src={url} alt={t("create.source")} width={source.width} height={source.height} />
        )}
        {mask?.preview && <img src={mask.preview} alt="" />}
        {storedMask && (
          <span
            class="source-mask"
            style={{ maskImage: `url("${api.imageUrl(storedMask, 512)}")` }}
          />
        )}
        <button
          type="button"
          class="button icon source-remove"
          aria-label={t("create.source.remove")}
          onClick={() => state.replaceStart(t("create.source.removed"), () => draft.removeSource())}
        >
          <Icon name="close" />
        </button>
      </div>
      <div class="source-tools">
        {canPaint && (
          <button type="button" class="button" onClick={() => route.go({ screen: "mask" })}>
            <Icon name="brush" />
            {t(
              strokes ? "create.mask.continue" : mask ? "create.mask.change" : "create.mask.paint",
            )}
          </button>
        )}
        {(mask || strokes) && (
          <button
            type="button"
            class="button"
            onClick={() => state.replaceStart(t("create.mask.removed"), () => draft.setMask(null))}
          >
            <Icon name="close" />
            {t("create.mask.remove")}
          </button>
        )}
        {source.picture instanceof Blob && !mask && (
          <button type="button" class="button" onClick={crop}>
            <Icon name="crop" />
            {t("create.source.crop")}
          </button>
        )}
      </div>
      {draft.task.value === "edit" && <References />}
      {problem && <p class="problem">{problem}</p>}
    </section>
  );
}

/** The other pictures of an edit, and the button to add one while the model takes more. */
function References() {
  const { draft } = useApp();
  const take = useTakePicture(true);
  const library = useRef<HTMLInputElement>(null);
  return (
    <>
      <p class="hint">{t("create.edit.hint")}</p>
      <div class="references">
        {draft.references.value.map((reference, index) => (
          <Reference key={reference} reference={reference} number={index + 2} />
        ))}
      </div>
      {draft.roomForReference.value && (
        <div class="source-tools">
          <button type="button" class="button" onClick={() => library.current?.click()}>
            <Icon name="photo" />
            {t("create.reference.add")}
          </button>
        </div>
      )}
      <input
        ref={library}
        hidden
        type="file"
        accept={PICTURES}
        data-testid="reference"
        onChange={(event) => {
          take(event.currentTarget.files?.[0]);
          event.currentTarget.value = "";
        }}
      />
    </>
  );
}

function Reference({ reference, number }: { reference: StartPicture; number: number }) {
  const { draft } = useApp();
  const url = usePictureUrl(reference.picture, 256);
  return (
    <div class="reference">
      {url && <img src={url} alt={t("create.reference", { number })} />}
      <button
        type="button"
        class="button icon source-remove"
        aria-label={t("create.reference.remove", { number })}
        onClick={() => draft.removeReference(reference)}
      >
        <Icon name="close" />
      </button>
    </div>
  );
}

/** An address for `<img src>`, of bytes or of a stored picture. */
export function usePictureUrl(picture: Blob | string | null, width?: number): string | null {
  const { api } = useApp();
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    if (!(picture instanceof Blob)) {
      setUrl(picture === null ? null : api.imageUrl(picture, width));
      return;
    }
    const made = URL.createObjectURL(picture);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [api, picture, width]);
  return url;
}
