/** The current screen, kept in the address's fragment so that back and reload work. */

import { type ReadonlySignal, signal } from "@preact/signals";

export type Route =
  | { screen: "create" }
  /** The crop and mask editors are screens of their own, so that back closes them. */
  | { screen: "photo" }
  | { screen: "mask" }
  | { screen: "job"; id: string }
  | { screen: "gallery" }
  | { screen: "picture"; id: string }
  | { screen: "inside"; id: string }
  | { screen: "settings" }
  | { screen: "models" }
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
    case "models":
      return { screen };
    case "job":
    case "picture":
    case "inside":
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
    return ""; // an invalid fragment
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
  /** Screens opened from within the app; without one, "back" would leave the app. */
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

  /** Replaces the current history entry, so that "back" skips it. */
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
