import { useEffect, useRef } from "preact/hooks";
import type { Look, Looking } from "../../lib/state/inside";
import type { Job } from "../../lib/transport/types";
import { t } from "../../strings";
import { moreOf } from "../../strings/problems";
import { useApp } from "../context";
import { statusText } from "../watch/status";
import { troubleText } from "./said";

interface Props {
  looking: Looking;
  look: Look;
  pictureId: string;
}

/** What stands in the place of an explanation that is not there, or not yet. */
export function Message({ looking, look, pictureId }: Props) {
  const { api } = useApp();
  const again = () => void looking.again();
  const isLost = look.status === "trouble" && look.trouble.kind !== "problem";
  return (
    <div class="inside-message stack">
      {!isLost && <img src={api.imageUrl(pictureId)} alt="" />}
      <Text look={look} />
      {look.status === "absent" && (
        <FocusedButton class="button primary wide" onUse={again} text={t("inside.again")} />
      )}
      {look.status === "making" && look.job && (
        <button type="button" class="button wide" onClick={() => void looking.cancel()}>
          {t("common.cancel")}
        </button>
      )}
      {look.status === "trouble" && ["offline", "problem"].includes(look.trouble.kind) && (
        <button type="button" class="button wide" onClick={() => void looking.open()}>
          {t("common.retry")}
        </button>
      )}
    </div>
  );
}

function Text({ look }: { look: Look }) {
  switch (look.status) {
    case "absent":
      return <p>{t("inside.absent")}</p>;
    case "making":
      return <Progress job={look.job} />;
    case "trouble": {
      const more = look.trouble.kind === "problem" ? moreOf(look.trouble.problem) : null;
      return (
        <div role="alert">
          <p>{troubleText(look.trouble)}</p>
          {more && <p class="hint">{more}</p>}
        </div>
      );
    }
    default:
      return <p>{t("common.loading")}</p>;
  }
}

function Progress({ job }: { job: Job | null }) {
  const { step, steps } = job?.progress ?? { step: 0, steps: 0 };
  return (
    <div class="stack">
      <progress class="bar" value={step} max={steps || 1} aria-label={t("watch.progress")} />
      <p>
        {t("inside.making")} {job ? statusText(job) : t("watch.sending")}
      </p>
    </div>
  );
}

/** The focus is on it at once, for keys and screen readers: there is one thing to do. */
function FocusedButton(props: { class: string; text: string; onUse: () => void }) {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => button.current?.focus(), []);
  return (
    <button type="button" class={props.class} ref={button} onClick={props.onUse}>
      {props.text}
    </button>
  );
}
