"""Jobs: listing, waiting, cancelling, losing sight of them."""

from collections.abc import Callable
from itertools import islice

import pytest
from PIL import Image

from darkroom_client import (
    CancelledEvent,
    Client,
    ConnectionFailedError,
    Effects,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobStatus,
    NoteEvent,
    NotFoundError,
    QueuedEvent,
    WaitTimeoutError,
)
from tests.sdk.lossy import LossyProxy
from tests.sdk.scripted import Reply, ScriptedServer, json_reply
from tests.serving import RunningServer

Lossy = Callable[..., LossyProxy]
Scripted = Callable[..., ScriptedServer]

QUEUED = {
    "id": "abc",
    "task": "txt2img",
    "status": "queued",
    "position": 0,
    "eta_seconds": None,
    "progress": {"step": 0, "steps": 2},
    "attempts": 0,
    "request": {"prompt": "a fox", "loras": [{"name": "film", "scale": 0.5}]},
    "images": [],
    "notes": [],
    "error": None,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "url": "/jobs/abc",
}
PROBLEM = {"type": "urn:darkroom:problem:oom", "title": "Out of memory", "status": 500}
FAILED = {**QUEUED, "status": "failed", "error": {**PROBLEM, "detail": "too large"}}


def stream(*parts: str) -> Reply:
    return Reply(200, "".join(parts).encode(), {"Content-Type": "text/event-stream"})


def event(number: int, kind: str, data: str = "") -> str:
    return f'id: {number}\nevent: {kind}\ndata: {{"job_id": "abc"{data}}}\n\n'


def test_jobs_come_newest_first_over_all_pages(idle_client: Client) -> None:
    made = [idle_client.txt2img(f"fox {number}") for number in range(5)]
    for job in made[:2]:
        job.cancel()
    seen = [job.id for job in islice(idle_client.jobs(page_size=2), 5)]
    assert seen == [job.id for job in reversed(made)]
    queued = [job.id for job in idle_client.jobs(JobStatus.QUEUED, page_size=1)]
    assert queued[:3] == seen[:3]
    assert not {job.id for job in made[:2]} & set(queued)
    for job in made[2:]:
        job.cancel()


def test_a_job_is_found_again(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    found = idle_client.job(job.id)
    assert found.request == job.request
    found.cancel()
    assert job.status is JobStatus.QUEUED
    assert job.refresh().status is JobStatus.CANCELLED


@pytest.mark.parametrize("job_id", ["nobody", "../models", "a/b", "ü?x=1"])
def test_an_unknown_job_is_not_found(idle_client: Client, job_id: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        idle_client.job(job_id)
    assert caught.value.request_id is not None


def test_a_job_that_waits_has_no_timeline_yet(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    with pytest.raises(NotFoundError, match="no previews yet; the job is queued"):
        job.timeline()
    job.cancel()


def test_waiting_for_a_cancelled_job_says_so(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    idle_client.job(job.id).cancel()
    assert isinstance(list(job)[-1], CancelledEvent)
    with pytest.raises(JobCancelledError):
        job.wait()


def test_waiting_ends_when_the_time_is_up(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    with pytest.raises(WaitTimeoutError, match="goes on") as caught:
        job.wait(timeout_s=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert job.refresh().status is JobStatus.QUEUED
    job.cancel()


def test_signs_of_life_do_not_prolong_the_wait(scripted: Scripted) -> None:
    seconds = iter(range(1_000_000))
    endless = Reply(headers={"Content-Type": "text/event-stream"}, endless=b": still here\n\n")
    server = scripted(json_reply(QUEUED, 202), endless)
    with (
        Client(server.url, effects=Effects(clock=lambda: next(seconds))) as client,
        pytest.raises(WaitTimeoutError),
    ):
        client.txt2img("a fox").wait(timeout_s=300)
    assert next(seconds) < 310
    assert len(server.received) > 2  # towards the end with ever less patience for silence


def test_who_stops_listening_leaves_the_job_alone(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    for first in job:
        assert isinstance(first, QueuedEvent)
        break
    assert job.refresh().status is JobStatus.QUEUED
    job.cancel()


def test_a_job_cancelled_while_it_is_followed_ends_the_loop(idle_client: Client) -> None:
    job = idle_client.txt2img("a fox")
    kinds = []
    for happened in job:
        kinds.append(type(happened))
        idle_client.job(job.id).cancel()
    assert kinds == [QueuedEvent, CancelledEvent]
    assert job.status is JobStatus.CANCELLED


def test_a_failed_job_tells_why(scripted: Scripted) -> None:
    server = scripted(json_reply(FAILED))
    with Client(server.url) as client:
        job = client.job("abc")
        with pytest.raises(JobFailedError, match="Out of memory: too large") as caught:
            job.wait()
    assert caught.value.problem == job.error
    assert caught.value.job.id == "abc"


def test_what_the_server_did_differently_is_told(scripted: Scripted) -> None:
    note = "memory was short: the VAE was tiled"
    server = scripted(
        json_reply(QUEUED),
        stream(event(1, "note", f', "note": "{note}"'), event(2, "succeeded")),
        json_reply({**QUEUED, "status": "succeeded", "notes": [note]}),
    )
    with Client(server.url) as client:
        job = client.job("abc")
        assert job.notes == ()
        assert [told.note for told in job if isinstance(told, NoteEvent)] == [note]
    assert job.notes == (note,)


def test_an_answer_lost_on_the_way_makes_no_second_job(
    idle_server: RunningServer, lossy: Lossy
) -> None:
    slept: list[float] = []
    proxy = lossy(idle_server.url, 0, 40)
    with (
        Client(idle_server.url) as direct,
        Client(proxy.url, effects=Effects(sleep=slept.append)) as client,
    ):
        before = {job.id for job in direct.jobs()}
        job = client.txt2img("a fox")
        assert {job.id for job in direct.jobs()} - before == {job.id}
        job.cancel()
    assert proxy.connections == 3
    assert len(slept) == 2


def test_an_upload_whose_answer_is_lost_makes_no_second_job(
    idle_server: RunningServer, lossy: Lossy
) -> None:
    proxy = lossy(idle_server.url, 0)
    with (
        Client(idle_server.url) as direct,
        Client(proxy.url, effects=Effects(sleep=lambda _: None)) as client,
    ):
        before = {job.id for job in direct.jobs()}
        job = client.img2img("a fox", image=Image.new("RGB", (64, 64)), num_images=2)
        assert {job.id for job in direct.jobs()} - before == {job.id}
        assert job.request["num_images"] == 2
        job.cancel()
    assert proxy.connections == 2


def test_events_go_on_where_the_connection_broke(
    client: Client, server: RunningServer, lossy: Lossy
) -> None:
    whole = client.txt2img("a fox", num_inference_steps=3)
    expected = list(whole)
    proxy = lossy(server.url, 2600, 1500, 100)
    with Client(proxy.url, effects=Effects(sleep=lambda _: None)) as shaky:
        assert list(shaky.job(whole.id)) == expected
    assert proxy.connections > 3


def test_a_stream_is_taken_up_after_its_last_whole_event(scripted: Scripted) -> None:
    half = event(8, "started", ', "attempt": 1')[:20]
    server = scripted(
        json_reply(QUEUED),
        stream("retry: 1000\n\n", event(7, "queued", ', "position": 0, "eta_seconds": 1'), half),
        stream(": hello\n\n", event(8, "started", ', "attempt": 1'), event(9, "invented")),
        stream(event(10, "failed", ', "problem": ' + str(PROBLEM).replace("'", '"'))),
        json_reply(FAILED),
    )
    slept: list[float] = []
    with Client(server.url, effects=Effects(sleep=slept.append)) as client:
        events = list(client.job("abc"))
    assert [happened.id for happened in events] == [7, 8, 10]
    asked = [request.headers.get("Last-Event-ID") for request in server.received]
    assert asked == [None, None, "7", "8", None]
    assert len(slept) == 2


def test_a_busy_server_is_asked_for_events_again(scripted: Scripted) -> None:
    busy = Reply(503, b"", {"Retry-After": "4"})
    server = scripted(json_reply(QUEUED), busy, stream(event(1, "cancelled")), json_reply(QUEUED))
    slept: list[float] = []
    with Client(server.url, effects=Effects(sleep=slept.append)) as client:
        assert len(list(client.job("abc"))) == 1
    assert slept == [4]


def test_a_server_that_stays_away_is_given_up(scripted: Scripted) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    server = scripted(json_reply(QUEUED), stream())
    effects = Effects(clock=lambda: now[0], sleep=sleep)
    with (
        Client(server.url, effects=effects, reattach_for_s=30) as client,
        pytest.raises(ConnectionFailedError, match="too early"),
    ):
        client.job("abc").wait()
    assert 30 < now[0] < 40


def test_a_refusal_of_events_is_final(scripted: Scripted) -> None:
    server = scripted(json_reply(QUEUED), Reply(422))
    with Client(server.url) as client, pytest.raises(InvalidRequestError):
        client.job("abc").wait()


def test_news_of_the_queue_come_without_moving_the_cursor(scripted: Scripted) -> None:
    first = event(7, "queued", ', "position": 2, "eta_seconds": null')
    news = event(0, "queued", ', "position": 1, "eta_seconds": 3.5').removeprefix("id: 0\n")
    server = scripted(
        json_reply(QUEUED),
        stream(first, news),
        stream(event(8, "cancelled")),
        json_reply({**QUEUED, "status": "cancelled"}),
    )
    with Client(server.url, effects=Effects(sleep=lambda _: None)) as client:
        *waiting, _ = client.job("abc")
    heard = [(told.id, told.position) for told in waiting if isinstance(told, QueuedEvent)]
    assert heard == [(7, 2), (None, 1)]
    assert server.received[2].headers["Last-Event-ID"] == "7"
