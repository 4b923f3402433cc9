import { expect, it } from "vitest";
import { type Film, FilmReader, readFilm } from "../../src/lib/state/timeline";
import type { Api } from "../../src/lib/transport/api";
import type { EventHandlers, JobEvent } from "../../src/lib/transport/events";

const event = (fields: object) => ({ id: 1, job_id: "j", ...fields }) as JobEvent;
const progress = (step: number) => event({ type: "progress", step, steps: 4, eta_seconds: null });
const preview = (image: string, more: object = {}) => event({ type: "preview", image, ...more });

it("keeps the previews of one picture, each with the step that it shows", () => {
  const reader = new FilmReader(1);
  for (const each of [
    event({ type: "started" }),
    preview("other", { index: 0, step: 1, steps: 4 }),
    preview("a", { index: 1, step: 1, steps: 4 }),
    event({ type: "progress", step: 4, steps: 8, eta_seconds: null }),
    preview("b", { index: 1, step: 2, steps: 4 }),
  ]) {
    reader.read(each);
  }
  expect(reader.film).toEqual({
    frames: [
      { image: "a", step: 1 },
      { image: "b", step: 2 },
    ],
    steps: 4,
  });
});

it("reads logs of older servers, which have previews of the first picture only", () => {
  const reader = new FilmReader(0);
  for (const each of [event({ type: "started" }), preview("a"), progress(2), preview("b")]) {
    reader.read(each);
  }
  expect(reader.film).toEqual({
    frames: [
      { image: "a", step: null },
      { image: "b", step: 2 },
    ],
    steps: 4,
  });
});

it("forgets a try that was interrupted", () => {
  const reader = new FilmReader(0);
  const tries = [event({ type: "started" }), preview("first"), event({ type: "started" })];
  for (const each of [...tries, preview("second")]) reader.read(each);
  expect(reader.film.frames.map(({ image }) => image)).toEqual(["second"]);
});

it.each(["terminal event", "end of the stream"])("is there at the %s", (what) => {
  const films: Film[] = [];
  let handlers: EventHandlers | undefined;
  let closed = false;
  const api = {
    watchJob: (_: string, given: EventHandlers) => {
      handlers = given;
      return {
        close: () => {
          closed = true;
        },
      };
    },
  } as unknown as Api;
  readFilm(api, "j", 0, (film) => films.push(film));
  handlers?.onEvent(preview("a"));
  if (what === "terminal event") handlers?.onEvent(event({ type: "succeeded" }));
  else handlers?.onEnd?.();
  expect(films).toHaveLength(1);
  expect(closed).toBe(true);
});
