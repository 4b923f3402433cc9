"""The client for `async` programs: what the other one does, and others go on meanwhile."""

import asyncio
import importlib.util
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from PIL import Image

from darkroom_client import (
    AsyncClient,
    AsyncEffects,
    AsyncJob,
    ConnectionFailedError,
    ImageEvent,
    InvalidRequestError,
    JobCancelledError,
    JobStatus,
    QueuedEvent,
    RateLimitedError,
    SucceededEvent,
    WaitTimeoutError,
)
from tests.sdk.lossy import LossyProxy
from tests.sdk.scripted import Reply, ScriptedServer, json_reply, problem
from tests.serving import RunningServer

SDK = Path(__file__).parents[2] / "sdk"
HEALTH = json_reply({"status": "ok", "version": "1"})


async def at_once(_: float) -> None:
    """A pause that takes no time."""


def test_the_blocking_client_is_written_from_this_one(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("write_blocking", SDK / "write_blocking.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    writer.write(tmp_path)
    for module in tmp_path.glob("*.py"):
        committed = SDK / "darkroom_client" / "blocking" / module.name
        assert module.read_text() == committed.read_text(), "run: python sdk/write_blocking.py"


def test_a_picture_is_made_and_saved(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(server.url, timeout_s=120) as client:
            job = await client.txt2img("a red fox", num_inference_steps=2, seed=7)
            kinds = [type(event) async for event in job]
            assert (kinds[0], kinds[-1]) == (QueuedEvent, SucceededEvent)
            assert job.status is JobStatus.SUCCEEDED
            (image,) = job.images
            await image.save(tmp_path / "fox.webp")
            assert (await image.pil()).size == (image.width, image.height)
            changed = await client.img2img("a cat", image=image, num_inference_steps=2)
            assert changed.request["image"] == image.reference
            painted = await client.inpaint(
                "a cat", image=photo, mask_image=Image.new("L", (451, 300), 255), strength=0.5,
                num_inference_steps=2,
            )  # fmt: skip
            await asyncio.gather(changed.wait(120), painted.wait(120))
            return [found.id async for found in client.jobs(page_size=1) if found.id == job.id]

    assert len(asyncio.run(ask())) == 1
    with Image.open(tmp_path / "fox.webp") as picture:
        assert picture.format == "WEBP"


def test_many_are_followed_by_one_thread(server: RunningServer) -> None:
    async def first_image(client: AsyncClient, prompt: str) -> str:
        job = await client.txt2img(prompt, num_inference_steps=2)
        async with aclosing(job.events()) as events:
            async for event in events:
                if isinstance(event, ImageEvent):
                    return event.job_id
        raise AssertionError("the job ended without a picture")

    async def ask() -> list[str]:
        async with AsyncClient(server.url, timeout_s=120) as client:
            return await asyncio.gather(*(first_image(client, f"fox {n}") for n in range(5)))

    assert len(set(asyncio.run(ask()))) == 5


def test_waiting_ends_with_the_time_the_job_or_the_task(idle_server: RunningServer) -> None:
    async def ask() -> None:
        async with AsyncClient(idle_server.url) as client:
            job = await client.txt2img("a fox")
            with pytest.raises(WaitTimeoutError):
                await job.wait(timeout_s=0.3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await job.wait()
            assert (await job.refresh()).status is JobStatus.QUEUED
            waiting = asyncio.create_task(job.wait())
            await (await client.job(job.id)).cancel()
            with pytest.raises(JobCancelledError):
                await waiting

    asyncio.run(ask())


def test_a_busy_server_is_asked_again_when_it_says(scripted: Callable[..., ScriptedServer]) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def ask() -> None:
        effects = AsyncEffects(sleep=sleep)
        busy = problem(503, **{"Retry-After": "3"})
        async with AsyncClient(scripted(busy, HEALTH).url, effects=effects) as client:
            assert (await client.health()).version == "1"
        async with AsyncClient(scripted(problem(429)).url, effects=effects) as client:
            with pytest.raises(RateLimitedError):
                await client.txt2img("a fox")

    asyncio.run(ask())
    assert slept[0] == 3
    assert len(slept) == 3


def test_three_sendings_make_one_job(
    idle_server: RunningServer, lossy: Callable[..., LossyProxy]
) -> None:
    async def ask(url: str) -> AsyncJob:
        async with AsyncClient(url, effects=AsyncEffects(sleep=at_once)) as client:
            return await client.txt2img("a fox sent thrice")

    async def jobs() -> set[str]:
        async with AsyncClient(idle_server.url) as client:
            return {job.id async for job in client.jobs()}

    before = asyncio.run(jobs())
    made = {asyncio.run(ask(lossy(idle_server.url, 0, 0).url)).id for _ in range(2)}
    assert asyncio.run(jobs()) - before == made
    assert len(made) == 2


def test_events_go_on_where_the_connection_broke(
    server: RunningServer, lossy: Callable[..., LossyProxy]
) -> None:
    proxy = lossy(server.url, 2600, 1500, 100)

    async def ask() -> None:
        async with AsyncClient(server.url, timeout_s=120) as client:
            job = await client.txt2img("a fox", num_inference_steps=3)
            expected = [event async for event in job]
        async with AsyncClient(proxy.url, effects=AsyncEffects(sleep=at_once)) as shaky:
            assert [event async for event in await shaky.job(job.id)] == expected

    asyncio.run(ask())
    assert proxy.connections > 3


def test_errors_are_the_same(
    idle_server: RunningServer, scripted: Callable[..., ScriptedServer]
) -> None:
    async def ask() -> None:
        async with AsyncClient(idle_server.url) as client:
            with pytest.raises(InvalidRequestError) as caught:
                await client.txt2img("a fox", width=12)
            assert [error.pointer for error in caught.value.errors] == ["#/width"]
            with pytest.raises(FileNotFoundError):
                await client.img2img("a fox", image="nowhere.png")
        queued = json_reply({})
        async with AsyncClient(scripted(queued, Reply(422)).url) as client:
            with pytest.raises(Exception, match="not a Darkroom server"):
                await client.job("abc")
        effects = AsyncEffects(sleep=at_once)
        async with AsyncClient("http://127.0.0.1:9", effects=effects) as client:
            with pytest.raises(ConnectionFailedError):
                await client.health()

    asyncio.run(ask())
