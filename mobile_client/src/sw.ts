/**
 * Opens the app without a network, takes photos shared by other apps, and opens the picture of a
 * notification. Answers of the server are not cached, except for a bounded number of thumbnails,
 * which never change.
 */

declare const self: ServiceWorkerGlobalScope;

export {}; // a module, so that the declaration above is this file's own

/** Files of the shell; the build fills them in. */
const SHELL = "__SHELL__" as unknown as readonly string[];
const SHELL_CACHE = "shell-__BUILD__";
const PICTURES_CACHE = "thumbnails";
const MOST_PICTURES = 400;
const PAGE_MS = 3_000;

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(SHELL_CACHE)
      .then((cache) => cache.addAll(SHELL.map((url) => new Request(url, { cache: "reload" })))),
  );
  void self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil(dropOldShells().then(() => self.clients.claim()));
});

async function dropOldShells(): Promise<void> {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("shell-") && name !== SHELL_CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== self.location.origin) return;
  if (request.method === "POST" && url.pathname === "/share") {
    event.respondWith(takeShared(request));
  } else if (request.method !== "GET") {
    return;
  } else if (request.mode === "navigate" && url.pathname === "/") {
    event.respondWith(page(request));
  } else if (SHELL.includes(url.pathname)) {
    event.respondWith(fromCache(request));
  } else if (url.pathname.startsWith("/images/") && url.searchParams.has("w")) {
    event.respondWith(thumbnail(request));
  }
});

/**
 * The newest page if there is a network, so that an update shows at once. Without a server the
 * cached app shows that; networks elsewhere may be silent for minutes.
 */
async function page(request: Request): Promise<Response> {
  const kept = await caches.match("/");
  const fetched = fetch(request).then(
    (response) => (response.ok ? response : undefined),
    () => undefined,
  );
  const late = new Promise<undefined>((resolve) => {
    if (kept) setTimeout(resolve, PAGE_MS);
  });
  return (await Promise.race([fetched, late])) ?? kept ?? Response.error();
}

async function fromCache(request: Request): Promise<Response> {
  return (await caches.match(request)) ?? fetch(request);
}

async function thumbnail(request: Request): Promise<Response> {
  const cache = await caches.open(PICTURES_CACHE);
  const kept = await cache.match(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) {
    // A full disk keeps nothing, and the picture is shown all the same.
    await cache
      .put(request, response.clone())
      .then(() => trim(cache))
      .catch(() => undefined);
  }
  return response;
}

/** Deletes the oldest entries; caches list them in order of insertion. */
async function trim(cache: Cache): Promise<void> {
  const keys = await cache.keys();
  await Promise.all(
    keys.slice(0, Math.max(0, keys.length - MOST_PICTURES)).map((key) => cache.delete(key)),
  );
}

/** Stores a shared photo where the app looks for it when it opens. */
async function takeShared(request: Request): Promise<Response> {
  const file = (await request.formData()).get("picture");
  if (file instanceof Blob) await keep("shared", file);
  return Response.redirect("/", 303);
}

/** Into the database that `BrowserKeyValue("draft")` reads. */
function keep(key: string, value: Blob): Promise<void> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("darkroom-draft");
    opening.onupgradeneeded = () => opening.result.createObjectStore("values");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const write = opening.result.transaction("values", "readwrite");
      write.objectStore("values").put(value, key);
      write.oncomplete = () => {
        opening.result.close();
        resolve();
      };
      write.onerror = () => reject(write.error);
    };
  });
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const { url } = event.notification.data as { url: string };
  event.waitUntil(open(url));
});

async function open(hash: string): Promise<void> {
  const [client] = await self.clients.matchAll({ type: "window" });
  if (client) {
    await client.focus();
    await client.navigate(`/${hash}`);
  } else {
    await self.clients.openWindow(`/${hash}`);
  }
}
