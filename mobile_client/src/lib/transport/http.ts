/** All fetches, with time limits. Every failure is thrown as one of the errors below. */

import type { Coded, FieldError } from "./types";

export const TIMEOUT_MS = 15_000;
/** Photos upload slowly over a bad connection. */
export const UPLOAD_TIMEOUT_MS = 120_000;

/** The server asks a hub, which may be slow. */
export const PLAN_TIMEOUT_MS = 75_000;

/** No answer: no network, no server, or too late. */
export class Unreachable extends Error {
  override name = "Unreachable";
}

/** The answer is not from a Darkroom server, but from another program or a router's page. */
export class Foreign extends Error {
  override name = "Foreign";
}

/** The server refused: RFC 9457 problem details. */
export class Problem extends Error {
  override name = "Problem";

  constructor(
    readonly status: number,
    readonly type: string,
    readonly title: string,
    readonly detail: string,
    readonly errors: readonly FieldError[] = [],
    readonly requestId: string | null = null,
    /** Seconds to wait before asking again, where the server says. */
    readonly retryAfter: number | null = null,
    /** What the detail says, for those who translate it. */
    readonly code: string | null = null,
    readonly values: NonNullable<Coded["values"]> = {},
  ) {
    super(detail || title);
  }

  /** Whether the same request may succeed later. */
  get passing(): boolean {
    return this.status === 429 || this.status === 408 || this.status >= 500;
  }
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/**
 * Fetches, where nobody may be silent for longer than the limit. Returns successful answers with
 * their bodies, throws otherwise.
 */
export async function request(
  fetcher: Fetch,
  url: string,
  init: RequestInit = {},
  timeoutMs = TIMEOUT_MS,
): Promise<Response> {
  const response = await answer(fetcher, url, init, timeoutMs);
  if (response.ok) return response;
  throw await problemOf(response);
}

async function answer(
  fetcher: Fetch,
  url: string,
  init: RequestInit,
  timeoutMs: number,
): Promise<Response> {
  const abort = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), timeoutMs);
  };
  try {
    wait();
    const sent = { credentials: "same-origin", ...init, signal: abort.signal } as const;
    return await whole(await fetcher(url, sent), wait);
  } catch (cause) {
    throw new Unreachable(`no answer from ${url}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** An answer whose body has come; `onPart` is called whenever some of it comes. */
async function whole(response: Response, onPart: () => void): Promise<Response> {
  const reader = response.body?.getReader();
  if (!reader) return response;
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    onPart();
  }
  const { status, statusText, headers, url } = response;
  // A 204 may have no body, not even an empty one.
  const body = parts.length > 0 ? new Blob(parts) : null;
  const read = new Response(body, { status, statusText, headers });
  return Object.defineProperty(read, "url", { value: url });
}

/** The JSON body of a successful answer. */
export async function json<Body>(response: Response): Promise<Body> {
  if (!isJson(response)) throw new Foreign(`${response.url} did not answer in JSON`);
  try {
    return (await response.json()) as Body;
  } catch (cause) {
    throw new Unreachable("the answer broke off", { cause });
  }
}

function isJson(response: Response): boolean {
  return /[/+]json\b/.test(response.headers.get("content-type") ?? "");
}

interface Details {
  type?: string;
  title?: string;
  detail?: string;
  errors?: FieldError[];
  request_id?: string;
  code?: string;
  values?: NonNullable<Coded["values"]>;
}

async function problemOf(response: Response): Promise<Problem | Foreign> {
  if (!isJson(response)) {
    // A proxy answers in HTML while the server behind it is down.
    if (response.status >= 500) return plainProblem(response, {});
    return new Foreign(`${response.url} answered ${response.status} without saying why`);
  }
  const details = (await response.json().catch(() => ({}))) as Details;
  return plainProblem(response, details);
}

function plainProblem(response: Response, details: Details): Problem {
  return new Problem(
    response.status,
    details.type ?? "about:blank",
    details.title ?? response.statusText,
    details.detail ?? "",
    details.errors ?? [],
    details.request_id ?? response.headers.get("x-request-id"),
    seconds(response.headers.get("retry-after")),
    details.code ?? null,
    details.values ?? {},
  );
}

function seconds(header: string | null): number | null {
  const value = header === null ? Number.NaN : Number(header);
  return Number.isFinite(value) ? value : null;
}
