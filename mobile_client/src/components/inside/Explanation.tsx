import type { Kept } from "../../lib/inside/store";
import { number, t } from "../../strings";
import { Steps } from "./Steps";
import { samenessText } from "./said";
import { Words } from "./Words";

/** One picture's explanation. */
export function Explanation({ kept }: { kept: Kept }) {
  const { explained, sameness } = kept;
  const { prepare, denoise, decode } = explained.seconds;
  const seconds = [prepare, denoise, decode].map((value) => number(value, value < 1 ? 3 : 1));
  return (
    <div class="inside-body">
      {sameness && <p class="inside-same">{samenessText(sameness)}</p>}
      <Words kept={kept} />
      <div class="stack">
        <Steps steps={explained.steps} />
        <p class="hint">
          {t("inside.seconds", {
            prepare: seconds[0] ?? "",
            denoise: seconds[1] ?? "",
            decode: seconds[2] ?? "",
          })}
        </p>
      </div>
    </div>
  );
}
