/** All state of the client, made once in `main.tsx` and in tests. */

import { t, titleOf } from "../../strings";
import { ExplanationStore } from "../inside/store";
import type { KeyValue, Preferences } from "../storage";
import type { Api } from "../transport/api";
import { Problem } from "../transport/http";
import type { Job, PictureRequest, Size, Task } from "../transport/types";
import { Catalog } from "./catalog";
import { Devices } from "./devices";
import { Draft } from "./draft";
import { GalleryState } from "./gallery";
import { Presets, PromptHistory } from "./history";
import type { Inside } from "./inside";
import { Jobs } from "./jobs";
import { Models } from "./models";
import { type Entry, Outbox } from "./outbox";
import type { Route, Router } from "./route";
import { Server } from "./server";
import { type Notifier, Settings } from "./settings";
import { Toasts } from "./toasts";

export interface Parts {
  api: Api;
  route: Router;
  preferences: Preferences;
  /** Stores the pictures of the draft. */
  pictures: KeyValue;
  /** Stores requests that wait to be sent. */
  unsent: KeyValue;
  /** Stores explanations of pictures. */
  explanations: KeyValue;
  notifier: Notifier;
  /** Deletes all data on this device and reloads the app. */
  erase: () => Promise<void>;
  /** Whether the page is hidden. */
  hidden: () => boolean;
}

const REMEMBERED = 50;

export class State {
  readonly api: Api;
  readonly route: Router;
  readonly toasts = new Toasts();
  readonly settings: Settings;
  readonly history: PromptHistory;
  readonly presets: Presets;
  readonly server: Server;
  readonly catalog: Catalog;
  readonly draft: Draft;
  readonly outbox: Outbox;
  readonly jobs: Jobs;
  readonly gallery: GalleryState;
  readonly explanations: ExplanationStore;
  readonly devices: Devices;
  readonly models: Models;
  /** Keys of accepted requests with the ids of their jobs; newest first. */
  private sent: readonly (readonly [string, string])[];

  private looks: Inside | undefined;
  /** Resolves when stored data has been read. */
  private restored: Promise<void> = Promise.resolve();

  constructor(private readonly parts: Parts) {
    const { api, route, preferences } = parts;
    this.sent = preferences.get<(readonly [string, string])[]>("sent", []);
    this.api = api;
    this.route = route;
    this.settings = new Settings(preferences, parts.notifier);
    this.history = new PromptHistory(preferences);
    this.presets = new Presets(preferences);
    this.server = new Server(api, preferences, () => void this.catchUp());
    this.catalog = new Catalog(api, preferences, (error) => this.server.report(error));
    this.draft = new Draft(this.catalog, preferences, parts.pictures);
    api.onAnswer = () => this.server.heard();
    const onTrouble = (error: unknown) => this.server.report(error);
    this.outbox = new Outbox(api, parts.unsent, {
      onAccepted: (key, job) => this.accepted(key, job),
      onRefused: (entry) => this.refused(entry),
      onTrouble,
    });
    this.jobs = new Jobs(api, preferences, {
      onOver: (job) => void this.over(job),
      onTrouble,
      onDoubt: () => void this.server.check(),
    });
    this.devices = new Devices(api);
    this.models = new Models(api, {
      onArrived: ({ name }) => {
        this.toasts.show({ text: t("models.arrived", { name }) });
        void this.catalog.load();
      },
      onTrouble,
    });
    this.explanations = new ExplanationStore(preferences, parts.explanations);
    const onDeleted = (ids: readonly string[]) => void this.explanations.forget(ids);
    this.gallery = new GalleryState(api, { me: this.server.me, onTrouble, onDeleted });
  }

  /** Reads stored data and checks whether the server can be reached. */
  async start(): Promise<void> {
    this.restored = this.restore();
    // The check runs meanwhile: on a first visit nothing is shown before it ends.
    await Promise.all([this.restored, this.server.check()]);
  }

  /** The page is visible again, or there is a network again. */
  async wake(): Promise<void> {
    const wasOpen = this.server.open;
    await this.server.check();
    // If the server had been unreachable, its return has already refreshed everything.
    if (wasOpen && this.server.open) await this.catchUp();
  }

  /** Sends the draft as a request. */
  async develop(): Promise<void> {
    const { task, request, files } = this.draft.request();
    const { prompt, negativePrompt } = this.draft.values.value;
    this.history.add({ prompt, negativePrompt });
    const key = await this.outbox.add(task, request, files, this.draft.start());
    this.draft.forgetSeed();
    this.route.go(this.screenOf(key));
  }

  /** Asks for a copy of a picture that is so many times larger. The server chooses the network. */
  async upscale(pictureId: string, scale: number): Promise<void> {
    const key = await this.outbox.add("upscale", { image: `image:${pictureId}`, scale }, {});
    this.route.go(this.screenOf(key));
  }

  /** Puts all settings of a picture into the form, with its seed for the next request. */
  remix(request: PictureRequest, seed?: number): void {
    const before = this.draft.start();
    this.draft.remix(seed === undefined ? request : { ...request, seed });
    this.route.go({ screen: "create" });
    if (before.values.prompt.trim() === "" && !before.source) return;
    this.offerUndo(t("create.replaced"), () => this.draft.putBack(before, true));
  }

  /** Does something to the start picture or its mask, and offers to undo it. */
  replaceStart(text: string, act: () => void): void {
    const before = this.draft.start();
    act();
    if (before.source) this.offerUndo(text, () => this.draft.putBack(before));
  }

  private offerUndo(text: string, undo: () => void): void {
    this.toasts.show({ text, action: { label: t("common.undo"), run: undo } });
  }

  /** Sends the same request again with another seed. */
  async again(job: Job): Promise<void> {
    const { seed: _, ...request } = job.request as PictureRequest;
    const key = await this.outbox.add(job.task, request, {});
    const next = this.screenOf(key);
    // "Back" leads to the pictures that there are.
    if (job.status === "succeeded") this.route.go(next);
    else this.route.replace(next);
  }

  /** Looks into pictures, by a class that is not part of the first load. */
  inside(Loaded: typeof Inside): Inside {
    this.looks ??= new Loaded({
      api: this.api,
      preferences: this.parts.preferences,
      store: this.explanations,
      catalog: this.catalog,
      gallery: this.gallery,
      onTrouble: (error) => this.server.report(error),
    });
    return this.looks;
  }

  /** The job of a request key, for history entries that were made before the job had an id. */
  jobOf(key: string): string | null {
    return this.sent.find(([sent]) => sent === key)?.[1] ?? null;
  }

  private screenOf(key: string): Route {
    return { screen: "job", id: this.jobOf(key) ?? key };
  }

  /** Revokes this device's token and deletes its data; asks first if only the data can go. */
  async forget(): Promise<void> {
    const me = this.server.me.value;
    try {
      if (me) await this.api.leave(me);
    } catch (error) {
      const isGone = error instanceof Problem && [401, 404].includes(error.status);
      this.server.report(error);
      if (!isGone) {
        // The server may come back, and would know this device again by its cookie.
        this.toasts.show({
          text: t("settings.forget.offline"),
          action: { label: t("settings.forget.anyway"), run: () => void this.parts.erase() },
        });
        return;
      }
    }
    await this.parts.erase();
  }

  /** Makes a stored picture the start picture of the draft, or one more picture of its edit. */
  useAs(task: Extract<Task, "img2img" | "inpaint" | "edit">, picture: Size & { id: string }): void {
    const { id, width, height } = picture;
    const source = { picture: id, width, height };
    if (task === "edit") this.draft.addReference(source);
    else this.replaceStart(t("create.source.replaced"), () => this.draft.setSource(source));
    this.route.go({ screen: "create" });
    // Opened over the form, so that "done" and "back" lead to the form.
    if (task === "inpaint") this.route.go({ screen: "mask" });
  }

  private async restore(): Promise<void> {
    await Promise.all([this.settings.applyLanguage(), this.draft.restore(), this.outbox.restore()]);
    await this.takeShared();
  }

  private async catchUp(): Promise<void> {
    await this.restored;
    await Promise.all([this.outbox.flush(), this.jobs.resume(), this.catalog.load()]);
  }

  private accepted(key: string, job: Job): void {
    this.jobs.track(job);
    this.sent = [[key, job.id] as const, ...this.sent].slice(0, REMEMBERED);
    this.parts.preferences.set("sent", this.sent);
    const here = this.route.current.value;
    if (here.screen === "job" && here.id === key) this.route.replace({ screen: "job", id: job.id });
  }

  private refused(entry: Entry): void {
    const here = this.route.current.value;
    if (!(here.screen === "job" && here.id === entry.key)) {
      this.toasts.show({
        text: t("outbox.refused"),
        action: {
          label: t("common.view"),
          run: () => this.route.go({ screen: "job", id: entry.key }),
        },
      });
    }
  }

  /** Puts a refused request back into the form, with the server's errors at the fields. */
  amend(entry: Entry): void {
    void this.outbox.discard(entry.key);
    const before = this.draft.start();
    const { seed } = entry.request;
    const wasUsedUp = typeof seed === "number" && this.draft.values.value.seed === null;
    if (wasUsedUp) this.draft.set({ seed, seedOnce: true });
    const { request } = this.draft.request();
    if (JSON.stringify(request) !== JSON.stringify(entry.request)) {
      if (entry.start) this.draft.putBack(entry.start, true);
      else this.draft.remix({ ...entry.request });
      this.offerUndo(t("create.replaced"), () => this.draft.putBack(before, true));
    }
    this.draft.refuse(entry.refusal?.errors ?? [], entry.refusal?.detail ?? "");
    this.route.replace({ screen: "create" });
  }

  private async over(job: Job): Promise<void> {
    if (job.status !== "succeeded") return;
    const here = this.route.current.value;
    const watched = here.screen === "job" && here.id === job.id;
    const first = job.images[0];
    if (this.parts.hidden() && this.settings.notifications.value && first) {
      const icon = this.api.imageUrl(first.id, 256);
      const title = titleOf(job.request);
      await this.settings.notifier.show(t("notify.done"), title, icon, `#/job/${job.id}`);
    }
    // It is still there below a picture that was opened in it.
    if (["gallery", "picture", "inside"].includes(here.screen)) void this.gallery.refresh();
    if (!watched) {
      this.toasts.show({
        text: t("notify.done"),
        action: {
          label: t("common.view"),
          run: () => this.route.go({ screen: "job", id: job.id }),
        },
      });
    }
  }

  /** Takes a photo that another app shared (the share target). */
  private async takeShared(): Promise<void> {
    const shared = await this.parts.pictures.get<Blob>("shared");
    if (!shared) return;
    await this.parts.pictures.delete("shared");
    this.draft.pick(shared);
    this.route.replace({ screen: "photo" });
  }
}
