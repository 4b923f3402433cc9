"""Who shares a job with whom, and what becomes of jobs whose callers have left."""

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from darkroom.requests import WHITE_PICTURE
from tests.security.doors import PASSED_ON, client, issue
from tests.serving import RunningServer, running
from tests.waiting import eventually

NATIVE, A1111, OPENAI = "/txt2img", "/sdapi/v1/txt2img", "/v1/images/generations"
EDIT = "/v1/images/edits"
CAT = {"prompt": "a cat"}
ABANDONED_S = "0.5"


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Nobody works on its queue, and jobs that need their caller do not go on for long."""
    folder = tmp_path_factory.mktemp("brief")
    with running(folder, process="web", DARKROOM_WEB__ABANDONED_S=ABANDONED_S) as started:
        yield started


class Person:
    """Somebody with a token of their own."""

    def __init__(self, server: RunningServer, token: str | None = None) -> None:
        self.server = server
        self.token = token or issue(server, "somebody")["token"]

    @contextmanager
    def asking(
        self, path: str, body: dict[str, Any] = CAT, **headers: str
    ) -> Iterator[http.client.HTTPConnection]:
        """A request whose caller waits for the answer, until the block ends: then they hang up."""
        url = httpx2.URL(self.server.url)
        connection = http.client.HTTPConnection(url.host, url.port, timeout=120)
        sent = {**PASSED_ON, "authorization": f"Bearer {self.token}", **headers}
        sent["content-type"] = "application/json"
        connection.request("POST", path, json.dumps(body), sent)
        try:
            yield connection
        finally:
            connection.close()

    def jobs(self) -> list[dict[str, Any]]:
        with client(self.server, self.token) as http:
            found: list[dict[str, Any]] = http.get("/jobs").json()["jobs"]
        return found

    def waits_for(self, count: int) -> list[dict[str, Any]]:
        """The jobs, once there are so many."""
        return eventually(lambda: found if len(found := self.jobs()) >= count else [])

    def cancel_all(self) -> None:
        with client(self.server, self.token) as http:
            for job in self.jobs():
                http.delete(job["url"])

    def statuses(self) -> list[str]:
        return [job["status"] for job in self.jobs()]


@pytest.fixture
def ada(idle_server: RunningServer) -> Iterator[Person]:
    person = Person(idle_server)
    yield person
    person.cancel_all()


# --- people do not share -------------------------------------------------------------------


@pytest.mark.parametrize("path", [NATIVE, A1111, OPENAI])
def test_three_who_ask_alike_at_once_get_three_pictures(ada: Person, path: str) -> None:
    """They may share a token: a household's chat program has one for all."""
    with ada.asking(path), ada.asking(path), ada.asking(path):
        ada.waits_for(3)
        with ada.asking(path, {"prompt": "the last one"}):
            jobs = ada.waits_for(4)

    assert [job["request"]["prompt"] for job in jobs] == ["the last one", *3 * ["a cat"]]
    assert len({job["request"]["seed"] for job in jobs}) == 4


def test_so_do_three_who_edit_and_three_who_stream(ada: Person) -> None:
    edit = {"prompt": "a pizza", "image": WHITE_PICTURE}
    stream = {"prompt": "a cat", "stream": True}
    with ExitStack() as waiting:
        for path, body in ((EDIT, edit), (OPENAI, stream)):
            for _ in range(3):
                waiting.enter_context(ada.asking(path, body))
        assert len(ada.waits_for(6)) == 6


def test_one_who_waits_on_two_jobs_shares_neither(ada: Person) -> None:
    ten = {"prompt": "a cat", "n": 10}
    with ada.asking(OPENAI, ten):
        ada.waits_for(2)
        with ada.asking(OPENAI, ten):
            assert len(ada.waits_for(4)) == 4


# --- retries do ------------------------------------------------------------------------------

STREAM = {"prompt": "a cat", "stream": True}


@contextmanager
def listening(ada: Person, body: dict[str, Any] = STREAM, **headers: str) -> Iterator[str]:
    """A request for a stream; the address of its job, as the stream's head has it."""
    with ada.asking(OPENAI, body, **headers) as connection:
        answer = connection.getresponse()
        assert answer.status == 200
        yield answer.headers["location"]


def test_the_sdks_retry_gets_the_job_that_is_there(ada: Person) -> None:
    with (
        listening(ada, **{"x-stainless-retry-count": "0"}) as first,
        listening(ada, **{"x-stainless-retry-count": "1"}) as again,
        listening(ada, STREAM | {"n": 2}, **{"x-stainless-retry-count": "1"}) as different,
    ):
        assert again == first
        assert different != first


@pytest.mark.slow
@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", ""])
def test_what_is_no_number_of_retries_is_none(ada: Person, count: str) -> None:
    with listening(ada) as first, listening(ada, **{"x-stainless-retry-count": count}) as second:
        assert first != second


def test_a_repeat_with_the_same_key_gets_the_job_that_is_there(ada: Person) -> None:
    with (
        listening(ada, **{"idempotency-key": "k"}) as first,
        listening(ada, **{"idempotency-key": "another"}) as another,
        listening(ada) as plain,
        listening(ada, **{"idempotency-key": "k"}) as again,
    ):
        assert again == first
        assert len({first, another, plain}) == 3


def test_a_repeat_with_the_same_key_gets_pictures_that_are_there(server: RunningServer) -> None:
    """In every API, also when the first request was answered long ago."""
    small = {"width": 64, "height": 64, "size": "64x64", "num_inference_steps": 1, "steps": 1}
    native = {name: small[name] for name in ("width", "height", "num_inference_steps")}

    def pictures(path: str, body: dict[str, Any], key: str) -> Any:
        answer = server.http.post(path, json=CAT | body, headers={"idempotency-key": key})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return told.get("images") or told["data"]

    for path, body in ((NATIVE, native), (A1111, small), (OPENAI, small)):
        first, second, other = (pictures(path, body, key) for key in ("k", "k", "other"))
        assert first == second != other


def test_who_comes_back_after_hanging_up_gets_the_job_that_is_there(ada: Person) -> None:
    """Not every client says that it asks again; nobody waits for that job."""
    with listening(ada) as first:
        pass
    with listening(ada) as again, listening(ada) as somebody_else:
        assert again == first
        assert somebody_else != first


def test_a_retry_takes_a_job_that_nobody_waits_for_first(ada: Person) -> None:
    with listening(ada) as first:
        with listening(ada) as left:
            pass
        with listening(ada, **{"x-stainless-retry-count": "1"}) as again:
            assert first != left == again


# --- callers who leave ----------------------------------------------------------------------


def ended(person: Person) -> list[str]:
    """The statuses once none of the jobs waits."""
    return eventually(lambda: found if "queued" not in (found := person.statuses()) else [])


@pytest.mark.parametrize("body", [CAT, {**CAT, "stream": True}, {**CAT, "n": 10}])
def test_an_openai_job_whose_caller_hung_up_is_cancelled(
    brief: RunningServer, body: dict[str, Any]
) -> None:
    """Nobody can fetch its pictures."""
    ada = Person(brief)
    with ada.asking(OPENAI, body):
        jobs = ada.waits_for(2 if "n" in body else 1)

    assert ended(ada) == ["cancelled"] * len(jobs)


def test_other_jobs_go_on_without_their_caller(brief: RunningServer) -> None:
    """SDAI's people find theirs in the gallery."""
    ada, bob = Person(brief), Person(brief)
    with ada.asking(NATIVE), ada.asking(A1111):
        ada.waits_for(2)
    with client(brief, ada.token) as http:
        job = ada.jobs()[0]
        with http.stream("GET", f"{job['url']}/events") as events:
            next(events.iter_lines())
    with bob.asking(OPENAI):
        bob.waits_for(1)
    ended(bob)

    assert ada.statuses() == ["queued", "queued"]


@pytest.mark.slow
def test_a_job_goes_on_while_somebody_waits_for_it(brief: RunningServer) -> None:
    ada, bob = Person(brief), Person(brief)
    with listening(ada, **{"idempotency-key": "k"}):
        for _ in range(3):  # each takes as long as a caller may be away
            with bob.asking(OPENAI):
                bob.waits_for(1)
            ended(bob)
        assert ada.statuses() == ["queued"]
        with listening(ada, **{"idempotency-key": "k"}):
            pass
    # The first has left, the second as well.
    assert ended(ada) == ["cancelled"]


def test_a_key_of_a_job_that_was_given_up_is_free_again(brief: RunningServer) -> None:
    ada = Person(brief)
    for count in (1, 2):
        with ada.asking(OPENAI, **{"idempotency-key": "k"}):
            ada.waits_for(count)
        ended(ada)

    assert ada.statuses() == ["cancelled", "cancelled"]


@pytest.mark.slow
def test_the_next_process_gives_callers_time_and_then_ends_what_nobody_wants(
    tmp_path: Path,
) -> None:
    """Whoever waited lost the connection with the process, and may come back."""
    with running(tmp_path, process="web", DARKROOM_WEB__ABANDONED_S="0.2") as server:
        ada = Person(server)
        with listening(ada) as first, listening(ada, STREAM | {"n": 2}):
            server.process.kill()
            server.process.wait()
    with running(tmp_path, process="web", DARKROOM_WEB__ABANDONED_S="60") as server:
        ada = Person(server, ada.token)
        with listening(ada) as again:
            assert again == first
            assert ada.statuses() == ["queued", "queued"]
    with running(tmp_path, process="web", DARKROOM_WEB__ABANDONED_S="0.2") as server:
        assert ended(Person(server, ada.token)) == ["cancelled", "cancelled"]


@pytest.mark.slow
def test_with_0_jobs_go_on_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, process="web", DARKROOM_WEB__ABANDONED_S="0") as server:
        ada = Person(server)
        with ada.asking(OPENAI):
            ada.waits_for(1)
    with running(tmp_path, process="web", DARKROOM_WEB__ABANDONED_S=ABANDONED_S) as server:
        ada, bob = Person(server, ada.token), Person(server)
        with bob.asking(OPENAI):
            bob.waits_for(1)
        ended(bob)
        assert ada.statuses() == ["queued"]


# --- the server stops -------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_waits_is_told_that_the_server_stops(tmp_path: Path) -> None:
    """A program that asked for a picture must not take anything else for one."""
    asked: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
        (NATIVE, CAT, {}),
        (NATIVE, CAT, {"accept": "image/png"}),
        (A1111, CAT, {}),
        (A1111, CAT | {"n_iter": 10}, {}),
        (OPENAI, CAT, {}),
        (OPENAI, CAT | {"n": 10}, {}),
    )
    with running(tmp_path, process="web") as server, ExitStack() as waiting:
        ada = Person(server)
        calls = [
            waiting.enter_context(ada.asking(path, body, **headers))
            for path, body, headers in asked
        ]
        stream = waiting.enter_context(ada.asking(OPENAI, STREAM))
        events = stream.getresponse()
        patient = {"prefer": "wait=600", "accept": "image/png"}
        later = waiting.enter_context(ada.asking(NATIVE, CAT, **patient))
        addresses = {job["url"] for job in ada.waits_for(10)}
        server.process.terminate()
        answers = [call.getresponse() for call in calls]
        accepted = later.getresponse()
        told = [(answer.headers["content-type"], json.load(answer)) for answer in answers]
        error = json.loads(events.read().decode().partition("data: ")[2])

        for answer in answers:
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["location"] in addresses
        native, picture, *a1111, plain, ten = told
        assert native[0] == picture[0] == "application/problem+json"
        assert picture[1]["type"] == "urn:darkroom:problem:stopping"
        assert [body["error"] for _, body in a1111] == 2 * ["The server is stopping"]
        assert [body["error"]["code"] for _, body in (plain, ten)] == 2 * ["stopping"]
        assert error["type"] == "error"
        assert (error["error"]["code"], error["error"]["retry_after"]) == ("stopping", 5)
        assert error["error"]["location"] == events.headers["location"]
        assert events.headers["location"] in addresses
        # This one asked not to wait for ever.
        assert (accepted.status, json.load(accepted)["status"]) == (202, "queued")


# --- cancel_on_disconnect ---------------------------------------------------------------------


CANCELLING = f"{NATIVE}?cancel_on_disconnect=true"


def test_a_job_is_not_cancelled_with_one_caller_while_another_waits(ada: Person) -> None:
    key = {"idempotency-key": "k"}
    with ada.asking(NATIVE, **key):
        ada.waits_for(1)
        with ada.asking(CANCELLING, **key), ada.asking(CANCELLING, {"prompt": "the last one"}):
            ada.waits_for(2)
        # Both have hung up. One was alone.
        assert eventually(lambda: "cancelled" in ada.statuses())
        assert ada.statuses() == ["cancelled", "queued"]


def test_it_is_cancelled_with_the_last_of_them(ada: Person) -> None:
    with ada.asking(CANCELLING, **{"idempotency-key": "k"}):
        ada.waits_for(1)
        with ada.asking(CANCELLING, **{"idempotency-key": "k"}):
            pass

    assert set(ended(ada)) == {"cancelled"}
