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

/** Collects a job's previews from its event log. */
export class FilmReader {
  private frames: Frame[] = [];
  private step: number | null = null;
  private steps = 0;

  read(event: JobEvent): void {
    if (event.type === "started") {
      // An interrupted job starts again; previews of the first try are not of this picture.
      this.frames = [];
      this.step = null;
    } else if (event.type === "progress") {
      this.step = event.step;
      this.steps = Math.max(this.steps, event.steps);
    } else if (event.type === "preview") {
      this.frames.push({ image: event.image, step: this.step });
    }
  }

  get film(): Film {
    return { frames: this.frames, steps: this.steps };
  }
}

/** Reads the replay of a job that has ended. @returns a function that stops reading. */
export function readFilm(api: Api, jobId: string, onFilm: (film: Film) => void): () => void {
  const reader = new FilmReader();
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
