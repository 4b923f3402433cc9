"""The server from its start: how soon it is there, and what it takes up."""

from benchmarks import load, servers
from benchmarks.figure import Figure, at_most
from benchmarks.servers import MIB
from benchmarks.suite import Effort, Suite

HOW = """\
`darkroom serve` is started with an empty data folder and polled from the start. Memory is measured
after the first picture, for the process and its children; shared pages are counted once (PSS)."""


def measure(effort: Effort) -> list[Figure]:
    healthy, ready, web, worker = [], [], [], []
    for _ in range(effort.starts):
        with servers.darkroom() as server:
            healthy.append(server.until("/healthz"))
            ready.append(server.until("/readyz"))
            load.develop(server.http, load.txt2img(steps=4))
            web.append(servers.memory(server.child("web")))
            worker.append(servers.memory(server.child("worker")))
    return [
        Figure("web answers `/healthz` after start", tuple(healthy), "s", at_most(2)),
        Figure("model loaded after start (`/readyz`)", tuple(ready), "s", at_most(15)),
        Figure("memory of web", tuple(web), "MiB", at_most(round(150e6 / MIB))),
        Figure("memory of the worker, one picture made", tuple(worker), "MiB"),
    ]


SUITE = Suite("startup", "Starting", HOW, measure)
