/** Event streams over `EventSource`, resumed after a broken connection. */

import type { Coded, FieldError, Picture } from "./types";

interface Base {
  /** Absent for events that are not in the log, such as a new position in the queue. */
  id: number | null;
  job_id: string;
}

export type JobEvent = Base &
  (
    | { type: "queued"; position: number | null; eta_seconds: number | null }
    | { type: "started"; attempt: number }
    | { type: "progress"; step: number; steps: number; eta_seconds: number | null }
    | { type: "preview"; image: string; index?: number; step?: number; steps?: number }
    | ({ type: "note"; note: string } & Coded)
    | { type: "image"; image: Picture }
    | { type: "succeeded" }
    | { type: "failed"; problem: { title: string; detail: string; errors?: FieldError[] } }
    | { type: "cancelled" }
  );

export type JobEventType = JobEvent["type"];

const TYPES: readonly JobEventType[] = [
  "queued",
  "started",
  "progress",
  "preview",
  "note",
  "image",
  "succeeded",
  "failed",
  "cancelled",
];

export interface EventHandlers {
  onEvent(event: JobEvent): void;
  /** The stream is open (again). */
  onOpen?(): void;
  /** The browser is reconnecting. */
  onInterrupted?(): void;
  /** The stream ended for good: the job is over, or the server refused. Ask for the job to know. */
  onEnd?(): void;
}

export interface Watching {
  close(): void;
}

/** Opens event streams; `open` is passed in so that tests need no browser. */
export function watchEvents(
  url: string,
  handlers: EventHandlers,
  lastEventId: number | null = null,
  open: (url: string) => EventSource = (address) => new EventSource(address),
): Watching {
  // EventSource cannot set headers on its first request; the server takes the id in the query too.
  const source = open(lastEventId === null ? url : `${url}?last_event_id=${lastEventId}`);
  source.onopen = () => handlers.onOpen?.();
  source.onerror = () => {
    if (source.readyState === 2 /* CLOSED */) handlers.onEnd?.();
    else handlers.onInterrupted?.();
  };
  for (const type of TYPES) {
    source.addEventListener(type, (message) => {
      const event = parseEvent(type, message as MessageEvent<string>);
      if (event) handlers.onEvent(event);
    });
  }
  return { close: () => source.close() };
}

export function parseEvent(
  type: JobEventType,
  message: Pick<MessageEvent<string>, "data" | "lastEventId">,
): JobEvent | null {
  try {
    const id = message.lastEventId === "" ? null : Number(message.lastEventId);
    return { ...JSON.parse(message.data), id, type } as JobEvent;
  } catch {
    return null; // cut off by a broken connection; the stream resumes after it
  }
}
