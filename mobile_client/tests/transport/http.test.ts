import { expect, test, vi } from "vitest";
import { HttpApi } from "../../src/lib/transport/api";
import { type EventHandlers, parseEvent, watchEvents } from "../../src/lib/transport/events";
import { Foreign, Problem, request, Unreachable } from "../../src/lib/transport/http";
import { job } from "../fakes";

const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
  new Response(body === null ? null : JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", ...headers },
  });

/** An API over answers, and what it asked. */
function apiOf(...answers: Response[]): { api: HttpApi; asked: [string, RequestInit][] } {
  const asked: [string, RequestInit][] = [];
  const api = new HttpApi("", async (url, init) => {
    asked.push([url, init]);
    const next = answers.shift();
    if (!next) throw new TypeError("Failed to fetch");
    return next;
  });
  return { api, asked };
}

test("a problem comes with all that the server said", async () => {
  const body = {
    type: "urn:darkroom:problem:validation",
    title: "The request is not valid",
    status: 422,
    detail: "width: too wide",
    errors: [{ pointer: "#/width", detail: "too wide" }],
    request_id: "abc",
  };
  const type = { "content-type": "application/problem+json", "retry-after": "7" };
  const { api } = apiOf(answer(422, body, type));

  const error = await api.models().catch((caught: unknown) => caught);

  expect(error).toBeInstanceOf(Problem);
  expect(error).toMatchObject({
    status: 422,
    type: body.type,
    detail: body.detail,
    errors: body.errors,
    requestId: "abc",
    retryAfter: 7,
    passing: false,
  });
});

test.each([429, 500, 503, 507])("%i may pass", async (status) => {
  const { api } = apiOf(answer(status, {}));
  await expect(api.models()).rejects.toMatchObject({ status, passing: true });
});

test("nobody there is unreachable", async () => {
  await expect(apiOf().api.models()).rejects.toBeInstanceOf(Unreachable);
});

test("an answer that stops in the middle is given up; one that is only slow is not", async () => {
  vi.useFakeTimers();
  let more: (text: string) => void = () => {};
  let end: () => void = () => {};
  const fetcher = async (_url: string, { signal }: RequestInit) => {
    const body = new ReadableStream({
      start(controller) {
        more = (text) => controller.enqueue(new TextEncoder().encode(text));
        end = () => controller.close();
        signal?.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
    });
    return new Response(body, { headers: { "content-type": "application/json" } });
  };

  const slow = request(fetcher, "/models", {}, 1_000);
  for (const part of ['{"a"', ":", "1}"]) {
    await vi.advanceTimersByTimeAsync(900);
    more(part);
  }
  end();
  expect(await (await slow).json()).toEqual({ a: 1 });

  const stalled = request(fetcher, "/models", {}, 1_000).catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(10);
  more('{"a"');
  await vi.advanceTimersByTimeAsync(1_100);
  expect(await stalled).toBeInstanceOf(Unreachable);
  vi.useRealTimers();
});

test("a page where JSON should be is another program's", async () => {
  const html = () => new Response("<html>", { headers: { "content-type": "text/html" } });
  await expect(apiOf(html()).api.models()).rejects.toBeInstanceOf(Foreign);
  const missing = new Response("<html>", { status: 404, headers: { "content-type": "text/html" } });
  await expect(apiOf(missing).api.models()).rejects.toBeInstanceOf(Foreign);
});

test("a server that never answers is given up", async () => {
  vi.useFakeTimers();
  const never = (_: string, init: RequestInit) =>
    new Promise<Response>((_resolve, reject) => {
      init.signal?.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    });
  const waiting = expect(request(never, "/models", {}, 100)).rejects.toBeInstanceOf(Unreachable);
  await vi.advanceTimersByTimeAsync(100);
  await waiting;
  vi.useRealTimers();
});

test("a request without pictures goes as JSON, to be answered at once", async () => {
  const { api, asked } = apiOf(answer(202, job("a")));
  await api.submit("txt2img", { prompt: "a fox" }, {}, "key-1");

  const [url, init] = asked[0] ?? [];
  expect(url).toBe("/txt2img");
  expect(init?.headers).toMatchObject({
    prefer: "respond-async",
    "idempotency-key": "key-1",
    "content-type": "application/json",
  });
  expect(JSON.parse(String(init?.body))).toEqual({ prompt: "a fox" });
});

test("pictures go in a form, with lists as JSON", async () => {
  const { api, asked } = apiOf(answer(202, job("a")));
  const image = new Blob(["x"], { type: "image/png" });
  const loras = [{ name: "ink", scale: 1 }];
  await api.submit("img2img", { prompt: "a fox", strength: 0.5, loras }, { image }, "key-1");

  const form = asked[0]?.[1].body as FormData;
  expect(form.get("prompt")).toBe("a fox");
  expect(form.get("strength")).toBe("0.5");
  expect(form.get("loras")).toBe(JSON.stringify(loras));
  expect(form.get("image")).toBeInstanceOf(Blob);
});

test("the pictures of an edit are numbered in a form", async () => {
  const { api, asked } = apiOf(answer(202, job("a")));
  const references = [new Blob(["x"], { type: "image/png" }), "image:job-1-0"];
  await api.submit("edit", { prompt: "a hat" }, { references }, "key-1");

  const form = asked[0]?.[1].body as FormData;
  expect([...form.keys()]).toEqual(["prompt", "references[0]", "references[1]"]);
  expect(form.get("references[0]")).toBeInstanceOf(Blob);
  expect(form.get("references[1]")).toBe("image:job-1-0");
});

test("a worker that is loading is not ready, and no error", async () => {
  const body = { type: "urn:darkroom:problem:not-ready", title: "Not ready", status: 503 };
  expect(await apiOf(answer(503, body)).api.ready()).toBe(false);
  expect(await apiOf(answer(200, { status: "ready" })).api.ready()).toBe(true);
});

test("deleting what is gone already is done", async () => {
  await expect(apiOf(answer(404, {})).api.deleteImage("x")).resolves.toBeUndefined();
  await expect(apiOf(answer(409, {})).api.deleteImage("x")).rejects.toBeInstanceOf(Problem);
});

test("an answer without a body is one, also where the browser gives it an empty stream", async () => {
  const deleted = new Response(null, { status: 204 });
  Object.defineProperty(deleted, "body", { value: new Blob([]).stream() }); // as Chromium does
  const { api } = apiOf(deleted);

  await expect(api.deleteImage("a-0")).resolves.toBeUndefined();
});

test("names are escaped in addresses", () => {
  const { api } = apiOf();
  expect(api.imageUrl("a/b", 256)).toBe("/images/a%2Fb?w=256");
  expect(api.timelineUrl("a b")).toBe("/jobs/a%20b/timeline");
});

test("an event carries its id, its type and its data", () => {
  const message = { data: '{"job_id":"a","step":3,"steps":20}', lastEventId: "12" };
  expect(parseEvent("progress", message)).toEqual({
    id: 12,
    type: "progress",
    job_id: "a",
    step: 3,
    steps: 20,
  });
  expect(parseEvent("queued", { data: '{"job_id":"a"}', lastEventId: "" })?.id).toBeNull();
  expect(parseEvent("progress", { data: '{"job', lastEventId: "1" })).toBeNull();
});

test("a stream goes on after the last event, and says when it ends for good", () => {
  const listeners = new Map<string, (event: unknown) => void>();
  const source = {
    readyState: 0,
    onopen: null as (() => void) | null,
    onerror: null as (() => void) | null,
    addEventListener: (type: string, listener: (event: unknown) => void) =>
      listeners.set(type, listener),
    close: vi.fn(),
  };
  const urls: string[] = [];
  const handlers = { onEvent: vi.fn(), onEnd: vi.fn(), onInterrupted: vi.fn(), onOpen: vi.fn() };
  const watching = watchEvents("/jobs/a/events", handlers satisfies EventHandlers, 41, (url) => {
    urls.push(url);
    return source as unknown as EventSource;
  });

  expect(urls).toEqual(["/jobs/a/events?last_event_id=41"]);
  source.onopen?.();
  listeners.get("started")?.({ data: '{"job_id":"a","attempt":1}', lastEventId: "42" });
  source.onerror?.();
  source.readyState = 2;
  source.onerror?.();
  watching.close();

  expect(handlers.onOpen).toHaveBeenCalledOnce();
  expect(handlers.onEvent).toHaveBeenCalledWith(expect.objectContaining({ id: 42 }));
  expect(handlers.onInterrupted).toHaveBeenCalledOnce();
  expect(handlers.onEnd).toHaveBeenCalledOnce();
  expect(source.close).toHaveBeenCalledOnce();
});
