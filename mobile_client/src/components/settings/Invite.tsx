import { useState } from "preact/hooks";
import type { Device, Invitation } from "../../lib/transport/types";
import { t } from "../../strings";
import { useApp } from "../context";

/** Makes a pairing code: for a new device, or to let a known one in again. For owners. */
export function Invite({ device }: { device?: Device }) {
  const { server, toasts } = useApp();
  const [invitation, setInvitation] = useState<Invitation | null>(null);
  const ask = () =>
    server.invite(device?.id).then(setInvitation, () => toasts.show({ text: t("error.offline") }));
  if (!invitation) {
    return (
      <button type="button" class="button" onClick={() => void ask()}>
        {t(device ? "devices.code" : "settings.invite")}
      </button>
    );
  }
  return (
    <div class="invitation" role="status">
      <img class="qr" src={invitation.qr} alt={t("settings.invite.qr")} />
      <p class="code">{invitation.code}</p>
      <p>{invitation.url}</p>
      <p class="hint">
        {device ? t("devices.code.how", { name: device.name }) : t("settings.invite.how")}
      </p>
    </div>
  );
}
