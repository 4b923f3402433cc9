/** All state of the client, made once in `main.tsx` and in tests. */

import { t } from "../../strings";
import type { KeyValue, Preferences } from "../storage";
import type { Api } from "../transport/api";
import type { Job, PictureRequest, Size, Task } from "../transport/types";
import { Catalog } from "./catalog";
import { Draft } from "./draft";
import { GalleryState } from "./gallery";
import { Presets, PromptHistory } from "./history";
import { Jobs } from "./jobs";
import { type Entry, Outbox } from "./outbox";
import type { Router } from "./route";
import { Server } from "./server";
import { type Notifier, Settings } from "./settings";
import { Toasts } from "./toasts";

export interface Parts {
  api: Api;
  route: Router;
  preferences: Preferences;
  /** For pictures of the draft. */
  pictures: KeyValue;
  /** For requests that wait to be sent. */
  unsent: KeyValue;
  notifier: Notifier;
  /** Clears everything kept on this device, and begins anew. */
  erase: () => Promise<void>;
  /** Whether nobody is looking at the page. */
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
  /** Keys of requests that were accepted, and the jobs that they became; newest first. */
  private sent: readonly (readonly [string, string])[];

  /** What the last visit left is there when this is fulfilled. */
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
    this.catalog = new Catalog(api, preferences);
    this.draft = new Draft(this.catalog, preferences, parts.pictures);
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
    this.gallery = new GalleryState(api, { me: this.server.me, onTrouble });
  }

  /** Takes up what the last visit left, and sees whether the server is there. */
  async start(): Promise<void> {
    this.restored = this.restore();
    // The server is asked meanwhile: on the first visit one sees nothing before it answers.
    await Promise.all([this.restored, this.server.check()]);
  }

  /** The page is looked at again, or there is a network again. */
  async wake(): Promise<void> {
    const wasOpen = this.server.open;
    await this.server.check();
    // Had it been away, its return has brought everything up to date already.
    if (wasOpen && this.server.open) await this.catchUp();
  }

  /** Asks for the picture in the draft. */
  async develop(): Promise<void> {
    const { task, request, files } = this.draft.request();
    const { prompt, negativePrompt } = this.draft.values.value;
    this.history.add({ prompt, negativePrompt });
    const key = await this.outbox.add(task, request, files);
    this.route.go({ screen: "job", id: this.jobOf(key) ?? key });
  }

  /** All settings of a picture back into the form, with the seed that made it. */
  remix(request: PictureRequest, seed?: number): void {
    this.draft.remix(seed === undefined ? request : { ...request, seed });
    this.route.go({ screen: "create" });
  }

  /** The same once more, from another seed. */
  async again(job: Job): Promise<void> {
    const { seed: _, ...request } = job.request as PictureRequest;
    const key = await this.outbox.add(job.task, request, {});
    this.route.replace({ screen: "job", id: this.jobOf(key) ?? key });
  }

  /** The job that a request became, for places in the browser's history from before that. */
  jobOf(key: string): string | null {
    return this.sent.find(([sent]) => sent === key)?.[1] ?? null;
  }

  /** Hands a picture's bytes to `how`, or says that it could not be had. */
  async takeOut(id: string, how: (picture: Blob) => Promise<void>): Promise<void> {
    try {
      await how(await this.api.image(id));
    } catch (error) {
      this.server.report(error);
      this.toasts.show({ text: t("error.offline") });
    }
  }

  /** Gives this device's token back, and clears what is kept here. */
  async forget(): Promise<void> {
    const me = this.server.me.value;
    if (me) await this.api.leave(me).catch((error: unknown) => this.server.report(error));
    await this.parts.erase();
  }

  /** A stored picture as the next one's beginning. */
  useAs(task: Extract<Task, "img2img" | "inpaint">, picture: Size & { id: string }): void {
    const { id, width, height } = picture;
    this.draft.setSource({ picture: id, width, height });
    this.route.go({ screen: "create" });
    // Over the form, so that "done" and "back" lead there and not to where the picture was.
    if (task === "inpaint") this.route.go({ screen: "mask" });
  }

  private async restore(): Promise<void> {
    await Promise.all([this.settings.applyLanguage(), this.draft.restore(), this.outbox.restore()]);
    await this.takeShared();
  }

  private async catchUp(): Promise<void> {
    await this.restored;
    await Promise.all([
      this.outbox.flush(),
      this.jobs.resume(),
      this.catalog.load().catch((error: unknown) => this.server.report(error)),
    ]);
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
          label: t("outbox.look"),
          run: () => this.route.go({ screen: "job", id: entry.key }),
        },
      });
    }
  }

  /** Back into the form with a request that the server refused, its words at the fields. */
  amend(entry: Entry): void {
    void this.outbox.discard(entry.key);
    const { request } = this.draft.request();
    if (JSON.stringify(request) !== JSON.stringify(entry.request)) {
      this.draft.remix({ ...entry.request });
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
      const prompt = String(job.request.prompt ?? "");
      const icon = this.api.imageUrl(first.id, 256);
      await this.settings.notifier.show(t("notify.done"), prompt, icon, `#/job/${job.id}`);
    }
    if (here.screen === "gallery") void this.gallery.refresh();
    if (!watched) {
      this.toasts.show({
        text: t("notify.done"),
        action: {
          label: t("notify.look"),
          run: () => this.route.go({ screen: "job", id: job.id }),
        },
      });
    }
  }

  /** A photograph that another app of the phone handed over (the share target). */
  private async takeShared(): Promise<void> {
    const shared = await this.parts.pictures.get<Blob>("shared");
    if (!shared) return;
    await this.parts.pictures.delete("shared");
    this.draft.photo.value = shared;
    this.route.replace({ screen: "photo" });
  }
}
