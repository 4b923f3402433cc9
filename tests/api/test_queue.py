"""A full queue and urgent jobs, as a caller meets them."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from darkroom.api.http import urgency
from tests.serving import RunningServer, running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue has room for two jobs of a client, and has them."""
    with running(
        tmp_path_factory.mktemp("full"), process="web", DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT="2"
    ) as server:
        for _ in range(2):
            server.submit()
        yield server


def stored(server: RunningServer) -> int:
    return sum(path.is_file() for path in (server.data_dir / "images").rglob("*"))


def test_a_full_queue_says_so_and_when_to_come_again(full: RunningServer) -> None:
    answer = full.txt2img()

    assert answer.status_code == 429
    assert answer.json()["type"] == "urn:darkroom:problem:queue-full"
    assert answer.json()["detail"] == (
        "2 of your jobs wait or run, and one client may not have more; ask again in 5 s"
    )
    assert answer.headers["retry-after"] == "5"
    assert len(full.http.get("/jobs").json()["jobs"]) == 2


def test_nothing_is_spent_on_a_picture_that_will_be_refused(
    full: RunningServer, photo: Path
) -> None:
    for data in (photo.read_bytes(), b"no picture, which nobody finds out"):
        answer = full.http.post("/img2img", data={"prompt": "a pizza"}, files={"image": data})
        assert answer.status_code == 429
    assert stored(full) == 0


def test_a_repeat_of_an_accepted_request_is_answered_though_the_queue_is_full(
    tmp_path: Path,
) -> None:
    with running(tmp_path, process="web", DARKROOM_QUEUE__MAX_PENDING="1") as server:

        def ask(key: str) -> httpx2.Response:
            headers = {"prefer": "respond-async", "idempotency-key": key}
            return server.http.post("/txt2img", json={"prompt": "a fox"}, headers=headers)

        first = ask("one")

        assert (ask("two").status_code, ask("one").json()["id"]) == (429, first.json()["id"])


def test_priority_orders_ones_own_jobs(idle_server: RunningServer) -> None:
    def ask(priority: str) -> str:
        headers = {"prefer": "respond-async", "priority": priority}
        job = idle_server.http.post("/txt2img", json={"prompt": "a fox"}, headers=headers).json()
        url: str = job["url"]
        return url

    jobs = [ask(""), ask("u=0"), ask("u=7, i")]
    usual, urgent, patient = (idle_server.http.get(job).json()["position"] for job in jobs)

    assert urgent < usual < patient
    for job in jobs:
        idle_server.http.delete(job)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", 3),
        ("u=0", 0),
        ("u=7", 7),
        ("i", 3),
        ("i, u=5", 5),
        ("  u=1 ,\ti=?0 ", 1),
        ('u=1;why=now, x=(1 2);y, z=:aGk=:, s="a, u=6", d=1.5', 1),
        ("u=1, u=6", 6),
        ("u=8", 3),
        ("u=-1", 3),
        ("u=1.0", 3),
        ("u=high", 3),
        ("u", 3),
        ("u=1,", 3),
        ("u=1 i", 3),
        ("U=1", 3),
        ("u=1, \u00fc", 3),
        ("u=1, " + "a, " * 1000 + "b", 3),
    ],
)
def test_what_is_no_priority_is_passed_over(header: str, expected: int) -> None:
    assert urgency(header) == expected
