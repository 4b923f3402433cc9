"""`make load`: puts a running server, of one or several web processes, under the load of many.

People come at random moments (Poisson), ask for mixed jobs and wait for their pictures, however
many still wait. Listeners follow the events of jobs meanwhile. The jobs and moments come from a
seed. Each client is a device with a token of its own, revoked at the end; so this runs on the
server's machine, whose programs may make tokens.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx2

from benchmarks import load
from benchmarks.listeners import Followed, allow_files, follow
from benchmarks.servers import Server

TIMEOUT_S = 600.0
PERCENTS = (50, 95, 99)
FOLLOWED, FOLLOWED_STEPS = 4, 12  # jobs of the listeners


@dataclass
class Result:
    """What became of the requests.

    Attributes:
        seconds: from the moment that a person came to the picture, by task.
        errors: answers that are no picture, by status and problem, and broken connections.
        took_s: from the first person's coming to the last answer.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def pictures(self) -> int:
        return sum(len(each) for each in self.seconds.values())

    def lines(self) -> list[str]:
        """For people."""
        asked = self.pictures + self.errors.total()
        found = [
            f"{asked} requests in {self.took_s:.1f} s: {self.pictures} pictures "
            f"({self.pictures / self.took_s:.2f} a second), {self.errors.total()} errors"
        ]
        found += [f"  {count} × {error}" for error, count in self.errors.most_common()]
        everything = [second for each in self.seconds.values() for second in each]
        for task, seconds in (*sorted(self.seconds.items()), ("all", everything)):
            if seconds:
                parts = ", ".join(f"p{at} {load.percentile(seconds, at):.2f} s" for at in PERCENTS)
                found.append(f"  {task}: {len(seconds)} pictures, {parts}")
        return found


async def open_loop(
    clients: Sequence[httpx2.AsyncClient], jobs: Sequence[load.Job], moments: Sequence[float]
) -> Result:
    """Send each job at its moment, by the clients in turn, however many are still unanswered."""
    result, began = Result(), time.perf_counter()

    async def ask(client: httpx2.AsyncClient, job: load.Job, moment: float) -> None:
        await asyncio.sleep(began + moment - time.perf_counter())
        accept = {"accept": "image/png"}
        try:
            answer = await client.post(f"/{job.task}", json=job.body, headers=accept)
        except httpx2.TransportError as error:
            result.errors[type(error).__name__] += 1
            return
        if answer.status_code == 200 and answer.content.startswith(load.PNG_MAGIC):
            seconds = time.perf_counter() - began - moment
            result.seconds.setdefault(job.task, []).append(seconds)
        else:
            result.errors[f"{answer.status_code} {_problem(answer)}"] += 1

    async with asyncio.TaskGroup() as tasks:
        for number, (job, moment) in enumerate(zip(jobs, moments, strict=True)):
            tasks.create_task(ask(clients[number % len(clients)], job, moment))
    result.took_s = time.perf_counter() - began
    return result


def latencies(server: Server, jobs: Sequence[load.Job], moments: Sequence[float]) -> list[float]:
    """Seconds from each job's moment to its picture; a late start counts as waiting.

    Raises:
        RuntimeError: an answer is not a picture.
    """

    async def measured() -> Result:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(
            base_url=server.http.base_url, timeout=TIMEOUT_S, limits=limits
        ) as client:
            return await open_loop([client], jobs, moments)

    result = asyncio.run(measured())
    if result.errors:
        raise RuntimeError(f"answers that are no pictures: {dict(result.errors)}")
    return [second for each in result.seconds.values() for second in each]


def _problem(answer: httpx2.Response) -> str:
    """The name of the error, or the first words of an answer that is none of ours."""
    try:
        return str(answer.json()["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        return answer.text[:60]


async def run(
    urls: Sequence[str],
    *,
    rate_per_s: float,
    seconds: float,
    clients: int,
    listeners: int,
    seed: int,
) -> tuple[Result, Followed | None]:
    """Load one queue, whose web processes the URLs name.

    Args:
        rate_per_s: of people.
        seconds: in which they come; their answers may take longer.
        clients: devices, each of which uses one of the web processes.
        listeners: connections that follow jobs of the first client.
    """
    allow_files(listeners + len(urls) * clients)
    count = max(1, round(rate_per_s * seconds))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(httpx2.AsyncClient(base_url=urls[0], timeout=60))
        people = []
        for number in range(clients):
            made = await owner.post("/tokens", json={"name": f"load {seed}-{number}"})
            token = made.raise_for_status().json()
            stack.push_async_callback(owner.delete, f"/devices/{token['device']}/tokens")
            client = httpx2.AsyncClient(
                base_url=urls[number % len(urls)],
                timeout=TIMEOUT_S,
                limits=limits,
                headers={"authorization": f"Bearer {token['token']}"},
            )
            people.append(await stack.enter_async_context(client))
        following = None
        if listeners:
            ids = [
                await _submit(people[0], seed + each) for each in range(min(FOLLOWED, listeners))
            ]
            headers = {"Authorization": people[0].headers["authorization"]}
            opened = asyncio.Event()
            following = asyncio.create_task(
                follow(urls, ids, listeners, headers=headers, opened=opened)
            )
        result = await open_loop(
            people, load.mixed(count, seed), load.poisson(count, rate_per_s, seed)
        )
        return result, None if following is None else await following


async def _submit(client: httpx2.AsyncClient, seed: int) -> str:
    body = load.txt2img(FOLLOWED_STEPS, seed).body
    answer = await client.post("/txt2img", json=body, headers={"prefer": "respond-async"})
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


def main() -> None:
    parser = argparse.ArgumentParser(prog="load", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--url", action="append", help="of a web process; again for each (http://127.0.0.1:7860)"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="people a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="in which they come")
    parser.add_argument("--clients", type=int, default=8, help="devices")
    parser.add_argument("--listeners", type=int, default=0, help="event streams beside them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result, followed = asyncio.run(
        run(
            given.url or ["http://127.0.0.1:7860"],
            rate_per_s=given.rate,
            seconds=given.seconds,
            clients=given.clients,
            listeners=given.listeners,
            seed=given.seed,
        )
    )
    print("\n".join(result.lines()))
    if followed is not None:
        print(
            f"{followed.listeners} event streams: {len(followed.problems)} dropped, "
            f"{followed.wrong} with events missing or twice, {followed.events} events"
        )
    if result.errors or (followed and (followed.problems or followed.wrong)):
        sys.exit(1)


if __name__ == "__main__":
    main()
