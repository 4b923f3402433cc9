import { useEffect, useState } from "preact/hooks";
import { Problem } from "../../lib/transport/http";
import type { Device } from "../../lib/transport/types";
import { moment, t } from "../../strings";
import { sayProblem } from "../../strings/problems";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { useApp } from "../context";
import { Invite } from "./Invite";

/** All devices, and a code for another one. For owners. */
export function Devices() {
  const { devices, server } = useApp();
  const [opened, setOpened] = useState<string | null>(null);
  const me = server.me.value;
  const isOwner = me?.scope === "own" && server.reach.value === "ok";
  const list = devices.list.value;
  const device = list.find(({ id }) => id === opened);
  useEffect(() => {
    if (isOwner) devices.load().catch((error: unknown) => server.report(error));
  }, [isOwner, devices, server]);
  if (!isOwner) return null;
  return (
    <section class="card stack">
      <h2 class="label">{t("devices.title")}</h2>
      <ul class="devices">
        {list.map((each) => (
          <li key={each.id}>
            <button type="button" class="device" onClick={() => setOpened(each.id)}>
              <span class="grow">
                {each.name}
                <span class="hint block">{about(each, me?.device ?? null)}</span>
              </span>
              <Icon name="next" />
            </button>
          </li>
        ))}
      </ul>
      <Invite />
      {device && <DeviceSheet key={device.id} device={device} onClose={() => setOpened(null)} />}
    </section>
  );
}

/** What there is to know of a device, in one line. */
function about(device: Device, own: string | null): string {
  return [
    device.id === own && t("devices.this"),
    device.scope === "own" && t("devices.owner"),
    device.tokens.length === 0 && t("devices.out"),
    t("devices.jobs", { count: device.jobs }),
    device.used_at && t("devices.used", { time: moment(device.used_at) }),
  ]
    .filter(Boolean)
    .join(" · ");
}

/** What an owner can do with one device. */
function DeviceSheet({ device, onClose }: { device: Device; onClose: () => void }) {
  const { devices, gallery, route, server } = useApp();
  const [name, setName] = useState(device.name);
  const [sure, setSure] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const isThis = server.me.value?.device === device.id;

  const attempt = async (act: () => Promise<void>) => {
    setProblem(null);
    try {
      await act();
      return true;
    } catch (error) {
      server.report(error);
      setProblem(error instanceof Problem ? sayProblem(error) : t("error.offline"));
      return false;
    }
  };

  async function rename() {
    if (!(await attempt(() => devices.rename(device.id, name)))) return;
    if (isThis) await server.check();
    onClose();
  }

  async function revoke() {
    if (await attempt(() => devices.revoke(device.id))) onClose();
  }

  function showPictures() {
    void gallery.show({ id: device.client_id, name: device.name });
    route.go({ screen: "gallery" });
  }

  return (
    <Sheet title={device.name} onClose={onClose}>
      <form
        class="field"
        onSubmit={(event) => {
          event.preventDefault();
          void rename();
        }}
      >
        <label for="device-name">{t("devices.name")}</label>
        <div class="seed-row">
          <input
            id="device-name"
            class="input"
            value={name}
            maxLength={60}
            autocomplete="off"
            aria-invalid={problem ? "true" : undefined}
            onInput={(event) => setName(event.currentTarget.value)}
          />
          <button type="submit" class="button" disabled={!name.trim() || name === device.name}>
            {t("devices.rename")}
          </button>
        </div>
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
      </form>
      <button type="button" class="button" onClick={showPictures}>
        <Icon name="gallery" />
        {t("devices.pictures")}
      </button>
      <Invite device={device} />
      {device.tokens.length > 0 && !isThis && !sure && (
        <button type="button" class="button danger" onClick={() => setSure(true)}>
          {t("devices.revoke")}
        </button>
      )}
      {sure && (
        <div class="sure stack" role="alert">
          <p>{t("devices.revoke.sure", { name: device.name })}</p>
          <div class="row">
            <button type="button" class="button danger" onClick={() => void revoke()}>
              {t("devices.revoke")}
            </button>
            <button type="button" class="button" onClick={() => setSure(false)}>
              {t("common.cancel")}
            </button>
          </div>
        </div>
      )}
    </Sheet>
  );
}
