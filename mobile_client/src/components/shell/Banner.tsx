import { type Key, t } from "../../strings";
import { useApp } from "../context";

const HINTS: Partial<Record<string, Key>> = {
  unreachable: "reach.unreachable.hint",
  foreign: "reach.foreign.hint",
};

/** Shows a problem with the server, or nothing. */
export function Banner() {
  const { server } = useApp();
  const reach = server.reach.value;
  if (reach !== "unreachable" && reach !== "foreign" && reach !== "starting") return null;
  const hint = HINTS[reach];
  return (
    <div class={`banner ${reach}`} role="status">
      <p>
        <strong>{t(`reach.${reach}`)}</strong> {hint && t(hint)}
      </p>
      {reach !== "starting" && (
        <button type="button" class="button" onClick={() => void server.check()}>
          {t("common.retry")}
        </button>
      )}
    </div>
  );
}
