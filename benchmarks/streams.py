"""Ten thousand clients' event streams over two web processes of one queue."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks import load, postgres, servers
from benchmarks.figure import Figure, at_most
from benchmarks.listeners import Followed, allow_files, follow
from benchmarks.servers import Server
from benchmarks.suite import QUICK, Effort, Suite

LISTENERS, QUICK_LISTENERS = 10_000, 200
JOBS, QUICK_JOBS = 50, 4
WEBS = 2
STEPS = 10

HOW = f"""\
Two `darkroom web` of one queue, on PostgreSQL where it is installed and else in one folder, and
{JOBS} jobs of {STEPS} steps. {LISTENERS:,} clients open `GET /jobs/ID/events`, half at
each, while no worker runs. Then one starts and does the jobs. Every client must get every event of
its job that the log has, in its order; the clients are sockets in one thread of the benchmark's
process, on the same machine. Memory is PSS of both web processes, before the streams are opened and
when all are; `spread` is the time from a job's end at the first of its listeners to the last."""


def measure(effort: Effort) -> list[Figure]:
    quick = effort == QUICK
    count, jobs = (QUICK_LISTENERS, QUICK_JOBS) if quick else (LISTENERS, JOBS)
    allow_files(count)
    with tempfile.TemporaryDirectory(prefix="darkroom-streams-") as folder, ExitStack() as stack:
        settings = {
            "DARKROOM_DATA_DIR": f"{folder}/data",
            "DARKROOM_WEB__MAX_CONNECTIONS": str(count),
            "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "10000000",
            "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": str(jobs),
        }
        if postgres.is_installed():
            place = stack.enter_context(postgres.running(synced=True)).migrated()
            settings["DARKROOM_STORAGE__DATABASE_URL"] = place.render_as_string(False)

        def start(process: str) -> Server:
            command = ["darkroom", process]
            return stack.enter_context(servers.started(command, settings, "/healthz"))

        webs = []
        for _ in range(WEBS):  # one after the other: the first makes the data folder
            webs.append(start("web"))
            webs[-1].until("/healthz")
        ids = [_submit(webs[number % WEBS], number) for number in range(jobs)]
        before = _memory(webs)
        found, after = asyncio.run(_follow(webs, lambda: start("worker"), ids, count))
    name = f"{count:,} streams over {WEBS} web processes"
    return [
        Figure(f"{name}: dropped", (float(len(found.problems)),), "", at_most(0)),
        Figure(f"{name}: with events missing or twice", (float(found.wrong),), "", at_most(0)),
        Figure(f"{name}: events delivered", (float(found.events),), ""),
        Figure(f"{name}: opening them all", (found.open_s,), "s"),
        Figure(f"{name}: memory of web before", (before,), "MiB"),
        Figure(f"{name}: memory of web with them", (after,), "MiB"),
        Figure(f"{name}: memory of a stream", ((after - before) * 1024 / count,), "KiB"),
        Figure(f"{name}: spread of a job's end", found.spread_s, "s"),
    ]


def _submit(web: Server, seed: int) -> str:
    """A new job's id."""
    body = load.txt2img(STEPS, seed).body
    answer = web.http.post("/txt2img", json=body, headers={"prefer": "respond-async"})
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


async def _follow(
    webs: Sequence[Server], start_worker: Callable[[], object], job_ids: Sequence[str], count: int
) -> tuple[Followed, float]:
    """What the listeners got, and the memory of web when all of them were connected."""
    opened = asyncio.Event()
    urls = [str(web.http.base_url) for web in webs]
    following = asyncio.create_task(follow(urls, job_ids, count, opened=opened))
    await opened.wait()
    memory = _memory(webs)
    await asyncio.to_thread(start_worker)
    return await following, memory


def _memory(webs: Sequence[Server]) -> float:
    return sum(servers.memory(web.process) for web in webs)


SUITE = Suite("streams", "Many event streams", HOW, measure)
