/** Models, schedulers, LoRAs and upscalers of the server. The last known ones are used until it answers. */

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import type { Preferences } from "../storage";
import type { Api } from "../transport/api";
import type {
  Lora,
  LoraInfo,
  ModelDefaults,
  ModelInfo,
  SchedulerInfo,
  Size,
  UpscalerInfo,
} from "../transport/types";

interface Known {
  models: ModelInfo[];
  schedulers: SchedulerInfo[];
  loras: LoraInfo[];
  upscalers: UpscalerInfo[];
}

/** What a list that an older version of this page stored may lack. */
const ADDED = { note: "", examples: [], sizes: [] } satisfies Partial<ModelInfo>;

/** How long to wait after each failure; the last one is repeated. */
const RETRY_MS = [2_000, 4_000, 8_000, 15_000];

const NOTHING: Known = { models: [], schedulers: [], loras: [], upscalers: [] };

/** How many times larger a picture can be asked for. */
const SCALES = [2, 4];

export class Catalog {
  private readonly known = signal<Known>(NOTHING);
  readonly models: ReadonlySignal<ModelInfo[]> = computed(() => this.known.value.models);
  readonly schedulers: ReadonlySignal<SchedulerInfo[]> = computed(
    () => this.known.value.schedulers,
  );

  readonly loras: ReadonlySignal<LoraInfo[]> = computed(() => this.known.value.loras);
  readonly upscalers: ReadonlySignal<UpscalerInfo[]> = computed(() => this.known.value.upscalers);

  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly api: Api,
    private readonly preferences: Preferences,
    private readonly onTrouble: (error: unknown) => void = () => {},
  ) {
    const stored = preferences.get("catalog", NOTHING);
    this.known.value = {
      ...NOTHING,
      ...stored,
      models: stored.models.map((m) => ({ ...ADDED, ...m })),
    };
  }

  /** Asks until the server answers, unless lists from before are known. */
  async load(): Promise<void> {
    clearTimeout(this.timer);
    try {
      await this.ask();
      this.tries = 0;
    } catch (error) {
      this.onTrouble(error);
      if (this.models.value.length > 0) return;
      const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)];
      this.tries += 1;
      this.timer = setTimeout(() => void this.load(), wait);
    }
  }

  private async ask(): Promise<void> {
    const [models, schedulers, loras, upscalers] = await Promise.all([
      this.api.models(),
      this.api.schedulers(),
      this.api.loras(),
      this.api.upscalers(),
    ]);
    const fresh = { models, schedulers, loras, upscalers };
    if (JSON.stringify(fresh) === JSON.stringify(this.known.value)) return; // spare a redraw
    this.known.value = fresh;
    this.preferences.set("catalog", fresh);
  }

  /** The model of this name; the server's default for null or an unknown name. */
  model(name: string | null): ModelInfo | null {
    const models = this.models.value;
    return (
      models.find((model) => model.name === name) ??
      models.find((model) => model.default) ??
      models[0] ??
      null
    );
  }

  /** The LoRAs that fit a model. */
  lorasFor(model: ModelInfo): LoraInfo[] {
    return this.known.value.loras.filter((lora) => lora.models.includes(model.name));
  }

  /** What a request takes that does not say: the first LoRA for few steps goes before the model. */
  defaults(model: ModelInfo, loras: readonly Lora[]): ModelDefaults {
    const chosen = loras
      .filter(({ scale = 1 }) => scale > 0)
      .map(({ name }) => this.known.value.loras.find((lora) => lora.name === name)?.defaults)
      .find((defaults) => defaults);
    const own = model.defaults;
    if (!chosen) return own;
    return {
      ...own,
      num_inference_steps: chosen.num_inference_steps ?? own.num_inference_steps,
      guidance_scale: chosen.guidance_scale ?? own.guidance_scale,
      scheduler: (!model.schedulers?.length && chosen.scheduler) || own.scheduler,
    };
  }

  /** How many times larger an upscaler of the server can make a picture; perhaps no times. */
  scalesFor({ width, height }: Size): number[] {
    const fitting = this.known.value.upscalers.filter(
      ({ max_pixels }) => width * height <= max_pixels,
    );
    return SCALES.filter((wanted) => fitting.some(({ scale }) => scale >= wanted));
  }
}
