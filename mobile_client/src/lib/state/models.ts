/** Downloads of models to the server, and deleting models. For owners. */

import { type ReadonlySignal, signal } from "@preact/signals";
import type { Api } from "../transport/api";
import { isOver, type ModelKind, type Pull, type PullPlan } from "../transport/types";

const LOOK_MS = 1_000;
/** When nothing is being downloaded, another device may begin. */
const IDLE_MS = 10_000;

export class Models {
  private readonly known = signal<readonly Pull[]>([]);
  /** Those that have not ended well, newest first. */
  readonly pulls: ReadonlySignal<readonly Pull[]> = this.known;
  private running = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watchers = 0;

  constructor(
    private readonly api: Api,
    private readonly on: {
      /** A download has ended well: there is a new model. */
      onArrived: (pull: Pull) => void;
      onTrouble: (error: unknown) => void;
    },
  ) {}

  /** Looks at the downloads again and again. Returns what ends that. */
  watch(): () => void {
    this.watchers += 1;
    void this.look();
    return () => {
      this.watchers -= 1;
      clearTimeout(this.timer);
    };
  }

  /** What a download would be; throws the server's Problem if it refuses. */
  plan(source: string): Promise<PullPlan> {
    return this.api.planPull(source.trim());
  }

  async begin(source: string, name?: string): Promise<void> {
    const begun = await this.api.pull(source.trim(), name);
    this.running.add(begun.id);
    await this.look();
  }

  /** Cancels a download, or takes one that failed off the list. */
  async stop(pull: Pull): Promise<void> {
    this.running.delete(pull.id);
    await this.api.stopPull(pull.id);
    await this.look();
  }

  async remove(kind: ModelKind, name: string): Promise<void> {
    await this.api.deleteModel(kind, name);
  }

  private async look(): Promise<void> {
    clearTimeout(this.timer);
    try {
      const pulls = await this.api.pulls();
      for (const pull of pulls) {
        if (!isOver(pull.status)) this.running.add(pull.id);
        else if (this.running.delete(pull.id) && pull.status === "succeeded") {
          this.on.onArrived(pull);
        }
      }
      const shown = pulls.filter(({ status }) => status === "failed" || !isOver(status));
      if (JSON.stringify(shown) !== JSON.stringify(this.known.value)) this.known.value = shown;
    } catch (error) {
      this.on.onTrouble(error);
    }
    if (this.watchers === 0) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.look(), this.running.size > 0 ? LOOK_MS : IDLE_MS);
  }
}
