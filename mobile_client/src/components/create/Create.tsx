import { useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { Advanced } from "./Advanced";
import { Count } from "./Count";
import { useComplaints } from "./complaints";
import { MaskOptions } from "./MaskOptions";
import { ModelNote } from "./ModelNote";
import { Prompt } from "./Prompt";
import { SeedLock } from "./SeedLock";
import { Shape } from "./Shape";
import { Source } from "./Source";
import { Strength } from "./Strength";
import { Tray } from "./Tray";
import { usePictureInput } from "./usePictureInput";

/** The form for a new picture, and the Develop button. */
export function Create() {
  const { draft } = useApp();
  const dragging = usePictureInput();
  const task = draft.task.value;
  return (
    <>
      <form
        class="create stack"
        onSubmit={(event) => event.preventDefault()}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) clickGo();
        }}
      >
        <h1 class="visually-hidden">{t("create.title")}</h1>
        <Tray />
        <Prompt />
        <ModelNote />
        <Source />
        {task === "txt2img" && <Shape />}
        {(task === "img2img" || task === "inpaint") && draft.takes("strength") && <Strength />}
        {task === "inpaint" && <MaskOptions />}
        <SeedLock />
        <Advanced />
      </form>
      <Go />
      {dragging && <div class="drop">{t("create.drop")}</div>}
    </>
  );
}

/** Presses Develop, for Ctrl+Enter while writing. */
function clickGo(): void {
  document.querySelector<HTMLElement>(".go-button")?.click();
}

function Go() {
  const state = useApp();
  const { draft, server } = state;
  const complaints = useComplaints();
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const model = draft.model.value;
  const count = draft.values.value.count;
  const found = draft.complaints.value;
  // Errors from the server are shown at once, missing fields only after a first try.
  const showsProblem = tried || Object.values(found).some((each) => "text" in each);
  const refused = Object.entries(found).some(
    ([field, each]) => field !== "other" && each && "text" in each,
  );
  // What the server said stands at its field; here it would be said twice.
  const blocked = refused ? t("create.refused") : Object.values(complaints)[0];
  const develop = async () => {
    setTried(true);
    if (!draft.ready.value) {
      const field = complaints.prompt ? "#prompt" : "[aria-invalid=true]";
      document.querySelector<HTMLElement>(field)?.focus();
      return;
    }
    setBusy(true);
    try {
      await state.develop();
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="go">
      {model
        ? showsProblem &&
          blocked && (
            <p class="problem" role="alert">
              {blocked}
            </p>
          )
        : server.open && (
            <p class="hint" role="status">
              {t("create.nomodel")}
            </p>
          )}
      <div class="go-row">
        <Count />
        <button
          type="button"
          class="button primary go-button"
          aria-disabled={!draft.ready.value}
          disabled={busy}
          onClick={() => void develop()}
        >
          {t(draft.task.value === "edit" ? "create.go.edit" : "create.go", { count })}
        </button>
      </div>
    </div>
  );
}
