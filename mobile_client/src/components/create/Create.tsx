import { useState } from "preact/hooks";
import { t } from "../../strings";
import { useApp } from "../context";
import { Count } from "./Count";
import { useComplaints } from "./complaints";
import { MaskOptions } from "./MaskOptions";
import { Prompt } from "./Prompt";
import { Settings } from "./Settings";
import { Shape } from "./Shape";
import { Source } from "./Source";
import { Strength } from "./Strength";
import { Tray } from "./Tray";
import { usePictureIntake } from "./usePictureIntake";

/** Everything that says what picture to make, and the button that asks for it. */
export function Create() {
  const { draft } = useApp();
  const dragging = usePictureIntake();
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
        <Source />
        {task === "txt2img" ? <Shape /> : <Strength />}
        {task === "inpaint" && <MaskOptions />}
        <Settings />
      </form>
      <Go />
      {dragging && <div class="drop">{t("create.drop")}</div>}
    </>
  );
}

/** Also from the keyboard, in the middle of writing. */
function clickGo(): void {
  document.querySelector<HTMLElement>(".go-button")?.click();
}

function Go() {
  const state = useApp();
  const { draft } = state;
  const complaints = useComplaints();
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const model = draft.model.value;
  const count = draft.values.value.count;
  // What the server said is shown at once, what is merely not filled in yet after a first try.
  const told = tried || Object.values(draft.complaints.value).some((each) => "text" in each);
  const blocked = model ? Object.values(complaints)[0] : t("create.nomodel");
  const develop = async () => {
    setTried(true);
    if (!draft.ready.value) {
      document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
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
      {(told || !model) && blocked && (
        <p class="problem" role="alert">
          {blocked}
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
          {t("create.go", { count })}
        </button>
      </div>
    </div>
  );
}
