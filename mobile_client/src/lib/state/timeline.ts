/** The replay of a picture, from its stored previews. */

import type { Api } from "../transport/api";
import type { JobEvent } from "../transport/events";

export interface Frame {
  /** For `<img src>`. */
  readonly image: string;
  /** Denoising steps made so far; null if the log does not have them. */
  readonly step: number | null;
}

export interface Film {
  readonly frames: readonly Frame[];
  readonly steps: number;
}

/** Collects the previews of one of a job's pictures from its event log. */
export class FilmReader {
  private frames: Frame[] = [];
  private step: number | null = null;
  private steps = 0;
  private allSteps = 0;

  /** @param index of the picture among the job's. */
  constructor(private readonly index: number) {}

  read(event: JobEvent): void {
    if (event.type === "started") {
      // An interrupted job starts again; previews of the first try are not of this picture.
      this.frames = [];
      this.step = null;
    } else if (event.type === "progress") {
      this.step = event.step;
      this.allSteps = event.steps;
    } else if (event.type === "preview" && (event.index ?? 0) === this.index) {
      // Logs of older servers have the steps of all of the job's pictures together.
      this.frames.push({ image: event.image, step: event.step ?? this.step });
      this.steps = event.steps ?? 0;
    }
  }

  get film(): Film {
    return { frames: this.frames, steps: this.steps || this.allSteps };
  }
}

/**
 * Reads the replay of picture `index` of a job that has ended.
 * @returns a function that stops reading.
 */
export function readFilm(
  api: Api,
  jobId: string,
  index: number,
  onFilm: (film: Film) => void,
): () => void {
  const reader = new FilmReader(index);
  const finish = () => {
    watching.close();
    onFilm(reader.film);
  };
  const watching = api.watchJob(jobId, {
    onEvent: (event) => {
      reader.read(event);
      if (["succeeded", "failed", "cancelled"].includes(event.type)) finish();
    },
    onEnd: finish,
  });
  return () => watching.close();
}
