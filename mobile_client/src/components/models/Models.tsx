import { useEffect } from "preact/hooks";
import type { ModelKind } from "../../lib/transport/types";
import { bytes, t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";
import { Listed, type Shown } from "./Listed";
import { PullForm } from "./PullForm";
import { Pulls } from "./Pulls";

const KINDS: readonly ModelKind[] = ["models", "loras", "upscalers"];

/** What the server can draw with. Owners download and delete here. */
export function ModelsScreen() {
  const { catalog, models, route, server } = useApp();
  const isOwner = server.me.value?.scope === "own" && server.open;
  useEffect(() => void catalog.load(), [catalog]);
  useEffect(() => (isOwner ? models.watch() : undefined), [isOwner, models]);
  const lists = { models: useModels(), loras: useLoras(), upscalers: useUpscalers() };
  return (
    <div class="models-screen stack">
      <header class="row">
        <button
          type="button"
          class="button icon bare"
          aria-label={t("common.back")}
          onClick={() => route.back({ screen: "settings" })}
        >
          <Icon name="back" />
        </button>
        <h1>{t("models.title")}</h1>
      </header>
      {isOwner && <PullForm />}
      {isOwner && <Pulls />}
      {lists.models.length === 0 && <p class="empty">{t("models.offline")}</p>}
      {KINDS.map((kind) => (
        <Listed key={kind} kind={kind} shown={lists[kind]} isOwner={isOwner} />
      ))}
    </div>
  );
}

function useModels(): Shown[] {
  return useApp().catalog.models.value.map((model) => ({
    name: model.name,
    title: model.title || model.name,
    picture: model.thumbnail_url ?? null,
    about: [
      model.family,
      model.size_bytes ? bytes(model.size_bytes) : null,
      model.fits === true && t("models.fits"),
      model.fits === false && t("models.slow"),
      model.resident && t("models.resident"),
      model.default && t("models.default"),
    ],
    problem: model.broken ? t("models.broken", { reason: model.broken }) : null,
    facts: [
      ["models.family", model.family],
      ["models.disk", model.size_bytes ? bytes(model.size_bytes) : ""],
      ["models.memory", model.memory_bytes ? bytes(model.memory_bytes) : ""],
      ["models.licence", model.licence],
      ["models.words", model.trigger_words.join(", ")],
    ],
    description: model.description,
    deletable: model.deletable ?? false,
  }));
}

function useLoras(): Shown[] {
  return useApp().catalog.loras.value.map((lora) => ({
    name: lora.name,
    title: lora.title || lora.name,
    picture: lora.thumbnail_url ?? null,
    about: [lora.family, lora.trigger_words.join(", ")],
    problem: null,
    facts: [
      ["models.family", lora.family],
      ["models.words", lora.trigger_words.join(", ")],
    ],
    description: lora.description,
    deletable: true,
  }));
}

function useUpscalers(): Shown[] {
  return useApp().catalog.upscalers.value.map(({ name, architecture, scale }) => ({
    name,
    title: name,
    picture: null,
    about: [architecture, `×${scale}`],
    problem: null,
    facts: [["models.family", architecture]],
    description: "",
    deletable: true,
  }));
}
