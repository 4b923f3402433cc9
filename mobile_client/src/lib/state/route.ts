/** Where the user is, kept in the address's fragment so that back and reload work. */

import { type ReadonlySignal, signal } from "@preact/signals";

export type Route =
  | { screen: "create" }
  /** Trimming the photograph, and painting the mask, are places of their own: back leaves them. */
  | { screen: "photo" }
  | { screen: "mask" }
  | { screen: "job"; id: string }
  | { screen: "gallery" }
  | { screen: "picture"; id: string }
  | { screen: "settings" }
  | { screen: "pair"; code: string };

export function parseRoute(hash: string): Route {
  const pairing = /^#pair=(.+)$/.exec(hash);
  if (pairing) return { screen: "pair", code: decode(pairing[1]) };
  const [, screen, id] = /^#\/([a-z]+)(?:\/([^/]+))?$/.exec(hash) ?? [];
  switch (screen) {
    case "photo":
    case "mask":
    case "gallery":
    case "settings":
      return { screen };
    case "job":
    case "picture":
      return id ? { screen, id: decode(id) } : { screen: "gallery" };
    case "pair":
      return { screen, code: "" };
    default:
      return { screen: "create" };
  }
}

export function formatRoute(route: Route): string {
  if ("id" in route) return `#/${route.screen}/${encodeURIComponent(route.id)}`;
  return `#/${route.screen}`;
}

function decode(part: string | undefined): string {
  try {
    return decodeURIComponent(part ?? "");
  } catch {
    return ""; // a fragment that somebody mangled
  }
}

/** The parts of `window` that a router needs. */
export interface Place {
  location: { hash: string };
  history: Pick<History, "replaceState" | "back" | "length">;
  addEventListener(type: "hashchange", listener: () => void): void;
}

export class Router {
  private readonly route = signal<Route>({ screen: "create" });
  readonly current: ReadonlySignal<Route> = this.route;
  /** Screens opened from within the app; with none, "back" has nowhere of ours to go. */
  private depth = 0;

  constructor(private readonly place: Place = window) {
    this.route.value = parseRoute(place.location.hash);
    place.addEventListener("hashchange", () => {
      this.route.value = parseRoute(place.location.hash);
    });
  }

  go(route: Route): void {
    this.depth += 1;
    this.place.location.hash = formatRoute(route);
    this.route.value = route;
  }

  /** Without a place in the browser's history: "back" skips it. */
  replace(route: Route): void {
    this.place.history.replaceState(null, "", formatRoute(route));
    this.route.value = route;
  }

  back(otherwise: Route = { screen: "create" }): void {
    if (this.depth === 0) {
      this.replace(otherwise);
      return;
    }
    this.depth -= 1;
    this.place.history.back();
  }
}
