import { useState } from "preact/hooks";
import type { ModelKind } from "../../lib/transport/types";
import { type Key, t } from "../../strings";
import { sayReason } from "../../strings/problems";
import { Icon } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { useApp } from "../context";

/** A model, LoRA or upscaler, as it is shown. */
export interface Shown {
  name: string;
  title: string;
  picture: string | null;
  about: readonly (string | false | null)[];
  problem: string | null;
  facts: readonly (readonly [Key, string])[];
  description: string;
  deletable: boolean;
}

/** All of one kind; each opens what is known of it. */
export function Listed(props: { kind: ModelKind; shown: readonly Shown[]; isOwner: boolean }) {
  const { kind, shown, isOwner } = props;
  const [opened, setOpened] = useState<string | null>(null);
  const one = shown.find(({ name }) => name === opened);
  if (shown.length === 0) return null;
  return (
    <section class="card stack">
      <h2 class="label">{t(`models.kind.${kind}`)}</h2>
      <ul>
        {shown.map((each) => (
          <li key={each.name}>
            <button type="button" class="device model-row" onClick={() => setOpened(each.name)}>
              <Thumbnail url={each.picture} />
              <span class="grow">
                {each.title}
                <span class="hint block">{each.about.filter(Boolean).join(" · ")}</span>
                {each.problem && <span class="problem block">{each.problem}</span>}
              </span>
              <Icon name="next" />
            </button>
          </li>
        ))}
      </ul>
      {one && (
        <Details
          key={one.name}
          kind={kind}
          one={one}
          isOwner={isOwner}
          onClose={() => setOpened(null)}
        />
      )}
    </section>
  );
}

function Thumbnail({ url }: { url: string | null }) {
  return (
    <span class="model-thumbnail" aria-hidden="true">
      {url ? <img src={url} alt="" loading="lazy" decoding="async" /> : <Icon name="photo" />}
    </span>
  );
}

function Details(props: { kind: ModelKind; one: Shown; isOwner: boolean; onClose: () => void }) {
  const { kind, one, isOwner, onClose } = props;
  const { catalog, models, server, toasts } = useApp();
  const [sure, setSure] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);

  async function remove() {
    setProblem(null);
    try {
      await models.remove(kind, one.name);
      toasts.show({ text: t("models.deleted", { name: one.title }) });
      onClose();
      await catalog.load();
    } catch (error) {
      server.report(error);
      setProblem(sayReason(error));
    }
  }

  return (
    <Sheet title={one.title} onClose={onClose}>
      {one.picture && <img class="model-picture-large" src={one.picture} alt="" />}
      {one.title !== one.name && <p class="hint">{one.name}</p>}
      {one.description && <p>{one.description}</p>}
      <dl class="model-facts">
        {one.facts
          .filter(([, value]) => value)
          .map(([key, value]) => (
            <div key={key}>
              <dt>{t(key)}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
      {isOwner && !one.deletable && <p class="hint">{t("models.stays")}</p>}
      {isOwner && one.deletable && !sure && (
        <button type="button" class="button danger" onClick={() => setSure(true)}>
          <Icon name="trash" />
          {t("models.delete")}
        </button>
      )}
      {sure && (
        <div class="sure stack" role="alert">
          <p>{t("models.delete.sure", { name: one.title })}</p>
          <div class="row">
            <button type="button" class="button danger" onClick={() => void remove()}>
              {t("common.delete")}
            </button>
            <button type="button" class="button" onClick={() => setSure(false)}>
              {t("common.cancel")}
            </button>
          </div>
        </div>
      )}
      {problem && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
    </Sheet>
  );
}
