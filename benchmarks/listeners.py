"""Very many clients that follow jobs' events, in one thread: little more than a socket each."""

import asyncio
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

OPENING = 200  # connections that are opened at a time


@dataclass
class Listener:
    """One client that follows one job.

    Attributes:
        ids: of the events that it got, in order.
        kinds: of those.
        problem: why it ended before the job did.
    """

    url: str
    job_id: str
    ids: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    ended_at: float | None = None
    problem: str | None = None

    async def follow(self, opened: asyncio.Semaphore, headers: Mapping[str, str]) -> None:
        """Listen until the job ends. `opened` bounds how many connect at once."""
        at = urlsplit(self.url)
        try:
            async with opened:
                reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=2**16)
                lines = [f"GET /jobs/{self.job_id}/events HTTP/1.1", f"Host: {at.netloc}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                status = await reader.readline()
                if b" 200 " not in status:
                    raise OSError(status.decode().strip())
                while await reader.readline() != b"\r\n":
                    pass
                first = await reader.readline()
            await self._read(first, reader)
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            self.problem = str(error) or type(error).__name__

    async def _read(self, line: bytes, reader: asyncio.StreamReader) -> None:
        number = None
        while line:
            if line.startswith(b"id: "):
                number = int(line[4:])
            elif line.startswith(b"event: ") and number is not None:
                self.ids.append(number)
                self.kinds.append(line[7:].strip().decode())
            elif line == b"\n":
                number = None
                if self.kinds and self.kinds[-1] in ("succeeded", "failed", "cancelled"):
                    self.ended_at = time.perf_counter()
                    return
            line = await reader.readline()
        self.problem = "the stream ended before the job"


@dataclass(frozen=True)
class Followed:
    """What became of many listeners.

    Attributes:
        open_s: until all were connected and had their first line.
        problems: of those that were dropped, or refused.
        wrong: how many got other events than the log has, or in another order.
        events: that were delivered in all.
        spread_s: of each job, from its first listener's end to its last one's.
    """

    listeners: int
    open_s: float
    problems: tuple[str, ...]
    wrong: int
    events: int
    spread_s: tuple[float, ...]


async def follow(
    urls: Sequence[str],
    job_ids: Sequence[str],
    count: int,
    *,
    headers: Mapping[str, str] | None = None,
    opened: asyncio.Event,
) -> Followed:
    """Have `count` listeners follow jobs over web processes, until all jobs have ended.

    Args:
        urls: of web processes, which get the same number of listeners each.
        job_ids: the jobs, which get the same number of listeners each.
        headers: of each request.
        opened: is set when all are connected, so that the caller can let the jobs begin.
    """
    listeners = [
        Listener(urls[number % len(urls)], job_ids[number // len(urls) % len(job_ids)])
        for number in range(count)
    ]
    gate, began = asyncio.Semaphore(OPENING), time.perf_counter()
    tasks = [asyncio.create_task(each.follow(gate, headers or {})) for each in listeners]
    while not all(task.done() or each.ids for task, each in zip(tasks, listeners, strict=True)):
        await asyncio.sleep(0.05)
    open_s = time.perf_counter() - began
    opened.set()
    await asyncio.gather(*tasks)
    stories = {}
    for job_id in job_ids:  # as the log has them when all is over
        reference = Listener(urls[0], job_id)
        await reference.follow(gate, headers or {})
        stories[job_id] = reference.ids
    ends: dict[str, list[float]] = {job_id: [] for job_id in job_ids}
    for each in listeners:
        if each.ended_at is not None:
            ends[each.job_id].append(each.ended_at)
    return Followed(
        listeners=count,
        open_s=open_s,
        problems=tuple(each.problem for each in listeners if each.problem is not None),
        wrong=sum(each.ids != stories[each.job_id] for each in listeners if each.problem is None),
        events=sum(len(each.ids) for each in listeners),
        spread_s=tuple(max(times) - min(times) for times in ends.values() if times),
    )


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files, which those that it starts inherit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 1000
    if needed > most:
        raise RuntimeError(f"{needed} open files are needed, and {most} allowed: see ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
