"""Somebody's web page, open in a browser on this machine, tries all it can on a trusting server."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.browser.chromium import document
from tests.effort import sampled
from tests.security.doors import jobs_in, new_code
from tests.serving import RunningServer

SCRIPT = """
const tried = {};
const note = (name, what) => { tried[name] = what; };
const later = (make) => new Promise((resolve) => {
  make(resolve);
  setTimeout(resolve, 4000, "nothing");
});

async function read(name, url, options) {
  try {
    const answer = await fetch(url, options);
    note(name, answer.type === "opaque" ? "opaque" : "READ " + (await answer.text()).slice(0, 80));
  } catch (error) { note(name, "blocked"); }
}

function load(name, tag, url) {
  return later((resolve) => {
    const element = document.createElement(tag);
    element.onload = () => resolve("LOADED");
    element.onerror = () => resolve("blocked");
    element.src = url;
    document.body.append(element);
  }).then((what) => note(name, what));
}

function send(name, url, fields, enctype) {
  return later((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = name;
    const form = Object.assign(document.createElement("form"),
      { method: "POST", action: url, target: name, enctype });
    for (const [key, value] of Object.entries(fields))
      form.append(Object.assign(document.createElement("input"), { name: key, value }));
    document.body.append(frame, form);
    frame.onload = () => {
      let seen = "nothing";
      try { seen = frame.contentDocument.body.innerText || "nothing"; } catch (error) {}
      resolve(seen);
    };
    form.submit();
  }).then((what) => note(name, what));
}

async function attack(base) {
  const json = { "content-type": "application/json" };
  const job = JSON.stringify({ prompt: "a spy" });
  const pair = JSON.stringify({ code: CODE, name: "spy" });
  for (const credentials of ["omit", "include"]) {
    const as = `${base} ${credentials}`;
    await read(`${as} me`, `${base}/me`, { credentials });
    await read(`${as} jobs`, `${base}/jobs`, { credentials });
    await read(`${as} jobs no-cors`, `${base}/jobs`, { credentials, mode: "no-cors" });
    await read(`${as} health`, `${base}/healthz`, { credentials });
    await read(`${as} delete`, `${base}/images/${PICTURE}`, { credentials, method: "DELETE" });
    for (const mode of ["cors", "no-cors"]) {
      const post = { credentials, mode, method: "POST" };
      await read(`${as} job ${mode}`, `${base}/txt2img`, { ...post, body: job });
      await read(`${as} pair ${mode}`, `${base}/pair`, { ...post, body: pair });
    }
    await read(`${as} job json`, `${base}/txt2img`,
      { credentials, method: "POST", headers: json, body: job });
    await read(`${as} pair json`, `${base}/pair`,
      { credentials, method: "POST", headers: json, body: pair });
  }
  navigator.sendBeacon(`${base}/txt2img`, new Blob([job], { type: "text/plain" }));
  await load(`${base} img`, "img", `${base}/images/${PICTURE}`);
  await load(`${base} script`, "script", `${base}/models`);
  await load(`${base} script file`, "script", `${base}/static/docs.js`);
  note(`${base} events`, await later((resolve) => {
    const events = new EventSource(`${base}/events?last_event_id=0`, { withCredentials: true });
    events.onopen = () => resolve("LOADED");
    events.onmessage = () => resolve("READ");
    events.onerror = () => resolve("blocked");
  }));
  await send(`${base} form`, `${base}/txt2img`, { prompt: "a spy" }, "multipart/form-data");
  await send(`${base} form json`, `${base}/txt2img`,
    { '{"prompt":"a spy","negative_prompt":"': '"}' }, "text/plain");
  await send(`${base} form pair`, `${base}/pair`, { code: CODE, name: "spy" },
    "application/x-www-form-urlencoded");
}

(async () => {
  await read("control", "/control");
  for (const base of SERVERS) await attack(base);
  const report = document.createElement("pre");
  report.id = "report";
  report.textContent = JSON.stringify(tried);
  document.body.append(report);
})();
"""


class Pages(BaseHTTPRequestHandler):
    """Serves the one page, and what the page may read."""

    page = b""

    def do_GET(self) -> None:
        control = self.path == "/control"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if control else "text/html")
        self.end_headers()
        self.wfile.write(b"mine" if control else self.page)

    def log_message(self, *_: Any) -> None:
        """Nothing: it is a test."""


@contextmanager
def serving(page: str) -> Iterator[int]:
    """Serve a page on a port of this machine."""
    handler = type("Page", (Pages,), {"page": page.encode()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def browse(url: str, profile: Path, *more: str) -> str:
    """The page's document, with no protection but the server's."""
    # Newer browsers ask before a page may reach this machine; older ones do not.
    features = "LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
    return document(url, profile, f"--disable-features={features}", *more)


@pytest.fixture
def picture(idle_server: RunningServer, photo: Path) -> str:
    """A picture of the owner's."""
    answer = idle_server.http.post(
        "/img2img",
        data={"prompt": "a pizza"},
        files={"image": photo.read_bytes()},
        headers={"prefer": "respond-async"},
    )
    source: str = answer.json()["request"]["image"]
    return source.removeprefix("image:")


@pytest.mark.parametrize("lives_at", sampled(["127.0.0.1", "localhost"]))
def test_a_page_from_elsewhere_does_and_reads_nothing(
    idle_server: RunningServer, picture: str, tmp_path: Path, lives_at: str
) -> None:
    port = httpx2.URL(idle_server.url).port
    servers = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    code = new_code(idle_server, scope="own")
    tokens = idle_server.http.get("/tokens").json()
    jobs = jobs_in(idle_server.data_dir)
    script = (
        f"const SERVERS = {json.dumps(servers)}, CODE = '{code}', PICTURE = '{picture}';{SCRIPT}"
    )

    with serving(f"<!doctype html><body><script>{script}</script>") as own_port:
        page = browse(f"http://{lives_at}:{own_port}/", tmp_path)

    (report,) = re.findall(r'<pre id="report">(.*?)</pre>', page, re.DOTALL)
    tried: dict[str, str] = json.loads(unescape(report))
    assert tried.pop("control") == "READ mine"  # the page could read what it may
    assert len(tried) == 2 * (2 * 11 + 7)
    read = {name: what for name, what in tried.items() if what not in ("blocked", "opaque")}
    assert set(read.values()) <= {"nothing"}, read
    assert jobs_in(idle_server.data_dir) == jobs
    assert idle_server.http.get(f"/images/{picture}").status_code == 200
    assert idle_server.http.get("/tokens").json() == tokens
    # The code was not even spent.
    paired = idle_server.http.post("/pair", json={"code": code, "name": "phone"})
    idle_server.http.cookies.clear()
    assert paired.status_code == 200


def test_a_strangers_name_for_this_machine_opens_nothing(
    idle_server: RunningServer, tmp_path: Path
) -> None:
    """DNS rebinding: the browser believes that it is at evil.example all along."""
    port = httpx2.URL(idle_server.url).port
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    page = browse(f"http://evil.example:{port}/jobs", tmp_path, rule)

    assert "urn:darkroom:problem:token" in page
    assert "next_cursor" not in page
