"""Two web processes on one queue: whichever is asked, the answer is the same."""

import threading
from collections.abc import Iterator

import httpx2
import pytest

from tests.serving import RunningServer, parse_events, running
from tests.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def webs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, RunningServer]]:
    """A server, and another web process on its data folder."""
    folder = tmp_path_factory.mktemp("webs")
    environment = {"DARKROOM_ENGINE__DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with (
        running(folder, **environment) as first,
        running(folder, process="web", **environment) as second,
    ):
        yield first, second


@pytest.fixture(params=["there and here", "here and there"])
def pair(
    request: pytest.FixtureRequest, webs: tuple[RunningServer, RunningServer]
) -> tuple[RunningServer, RunningServer]:
    return webs if request.param == "there and here" else webs[::-1]


def test_a_job_of_one_is_watched_and_seen_from_the_other(
    pair: tuple[RunningServer, RunningServer],
) -> None:
    one, other = pair
    job = one.submit(num_inference_steps=6)["id"]

    kinds = [event["event"] for event in other.events(job)]

    assert kinds[0] == "queued"
    assert kinds[-1] == "succeeded"
    made = other.http.get(f"/jobs/{job}").json()
    assert made == one.http.get(f"/jobs/{job}").json()
    address = made["images"][0]["url"]
    assert other.http.get(address).content == one.http.get(address).content


def test_a_job_is_cancelled_through_either(pair: tuple[RunningServer, RunningServer]) -> None:
    one, other = pair
    job = one.submit(num_inference_steps=150, num_images=4)["id"]
    ended = []

    def watch() -> None:
        with one.http.stream("GET", f"/jobs/{job}/events") as answer:
            ended.extend(event["event"] for event in parse_events(answer.iter_lines()))

    watching = threading.Thread(target=watch)
    watching.start()
    eventually(lambda: other.http.get(f"/jobs/{job}").json()["status"] == "running")
    assert other.http.delete(f"/jobs/{job}").status_code == 200
    watching.join(60)

    assert ended[-1] == "cancelled"
    assert one.http.get(f"/jobs/{job}").json()["status"] == "cancelled"


def test_a_key_makes_one_job_through_both(webs: tuple[RunningServer, RunningServer]) -> None:
    answers: list[httpx2.Response] = []

    def ask(web: RunningServer) -> None:
        headers = {"idempotency-key": "one", "prefer": "respond-async"}
        body = {"prompt": "a cat", "seed": 1, "num_inference_steps": 2}
        answers.append(web.http.post("/txt2img", json=body, headers=headers))

    asking = [threading.Thread(target=ask, args=(web,)) for web in webs for _ in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    for web in webs:
        other = web.http.post(
            "/txt2img", json={"prompt": "a dog"}, headers={"idempotency-key": "one"}
        )
        assert other.status_code == 422


def test_who_works_and_what_they_have_is_told_by_both(
    webs: tuple[RunningServer, RunningServer],
) -> None:
    for web in webs:
        (worker,) = web.http.get("/workers").json()["workers"]
        assert worker["alive"]
        assert worker["ready"]
        assert "tintype" in worker["models"]
        assert worker["torch"]
        models = web.http.get("/models").json()["models"]
        assert {tuple(model["workers"]) for model in models} == {(worker["name"],)}


def test_a_worker_drains_and_resumes_through_either(
    pair: tuple[RunningServer, RunningServer],
) -> None:
    one, other = pair
    (worker,) = one.http.get("/workers").json()["workers"]
    address = f"/workers/{worker['name']}"
    assert one.http.post(f"{address}/drain").json()["draining"]
    job = other.submit()["id"]

    assert other.http.get(f"/jobs/{job}").json()["status"] == "queued"
    assert not other.http.post(f"{address}/resume").json()["draining"]
    assert one.finished(job)["worker"] == worker["name"]
    assert one.http.post("/workers/nobody/drain").status_code == 404
