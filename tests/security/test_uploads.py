"""Pictures from strangers: whatever they are, the caller gets an answer and the server stays up."""

import base64
import collections
import io
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from PIL import Image

from tests.effort import amount
from tests.security.mutations import mutant
from tests.security.unlimited import UNLIMITED
from tests.serving import RunningServer, running
from tests.waiting import PATIENCE_S, eventually

MANY_MUTANTS = amount(400, 1000, 10_000)
CALLERS = 4
ASYNC = {"prefer": "respond-async"}
GROWTH_BYTES = 200 * 2**20  # of web's memory, whatever the number of pictures


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue nobody works on, that counts no requests."""
    with running(tmp_path_factory.mktemp("box"), process="web", **UNLIMITED) as started:
        yield started


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


SOUND = saved(Image.effect_noise((48, 40), 70).convert("RGB"))
SOUND_MASK = saved(Image.new("L", (48, 40), 255))


@pytest.fixture(scope="module")
def large() -> bytes:
    """A picture that takes a second or more to decode."""
    return saved(Image.effect_noise((4500, 4000), 60), "JPEG")


def img2img(server: RunningServer, picture: bytes) -> httpx2.Response:
    fields = {"prompt": "a fox", "strength": 1}
    return server.http.post("/img2img", data=fields, files={"image": picture}, headers=ASYNC)


def processes(server: RunningServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def decoders(server: RunningServer) -> list[psutil.Process]:
    """The processes that decode pictures."""
    return [found for found in processes(server) if "spawn_main" in " ".join(found.cmdline())]


def web_bytes(server: RunningServer) -> int:
    """Memory of web's own processes."""
    aside = {found.pid for found in decoders(server)}
    family = [psutil.Process(server.process.pid), *processes(server)]
    return sum(found.memory_info().rss for found in family if found.pid not in aside)


# --- mutants -------------------------------------------------------------------------------


def send(server: RunningServer, number: int) -> httpx2.Response:
    """Upload a mutant, in one of the ways in which pictures can be sent."""
    data = mutant(number)
    fields = {"prompt": "a fox", "strength": 1}
    match number % 4:
        case 0:
            return img2img(server, data)
        case 1:
            body = {**fields, "image": base64.b64encode(data).decode() or "AA"}
            return server.http.post("/img2img", json=body, headers=ASYNC)
        case 2:
            files = {"image": SOUND, "mask_image": data}
        case _:
            files = {"image": data, "mask_image": SOUND_MASK}
    return server.http.post("/inpaint", data=fields, files=files, headers=ASYNC)


def outcome(server: RunningServer, number: int) -> int:
    """The status a mutant is answered with; what was accepted is looked at and taken back."""
    answer = send(server, number)
    if answer.status_code == 202:
        job = answer.json()
        stored = server.http.get(f"/images/{job['request']['image'].removeprefix('image:')}")
        with Image.open(io.BytesIO(stored.content)) as picture:
            picture.load()
            assert (picture.mode, picture.format) == ("RGB", "PNG"), number
        assert server.http.delete(job["url"]).status_code == 200, number
    else:
        assert answer.headers["content-type"] == "application/problem+json", number
        assert answer.json()["detail"], number
    return answer.status_code


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutants", [150, pytest.param(MANY_MUTANTS, marks=pytest.mark.slow)])
def test_every_mutant_is_accepted_or_refused_and_nothing_breaks(
    box: RunningServer, mutants: int
) -> None:
    for number in range(20):
        outcome(box, number)  # what is loaded once is loaded now
    before = web_bytes(box)
    with ThreadPoolExecutor(CALLERS) as callers:
        statuses = list(callers.map(lambda number: outcome(box, number), range(mutants)))
    counts = collections.Counter(statuses)

    print(counts, "web grew by", (web_bytes(box) - before) >> 20, "MiB")
    wrong = {number: status for number, status in enumerate(statuses) if status not in (202, 422)}
    assert not wrong
    assert counts[202] > mutants / 20
    assert counts[422] > mutants / 4
    assert web_bytes(box) - before < GROWTH_BYTES
    log = box.log.read_text()
    assert "Traceback" not in log
    assert "request failed" not in log
    assert img2img(box, SOUND).status_code == 202


# --- decoders ------------------------------------------------------------------------------


def cpu_s(process: psutil.Process) -> float:
    return float(process.cpu_times().user)


def refusal(answer: httpx2.Response) -> str:
    """What is said of the picture that was refused."""
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "#/image"
    detail: str = error["detail"]
    return detail


def decoder_at_work(server: RunningServer, idle_s: dict[int, float]) -> psutil.Process | None:
    """The one that has done more than it had."""
    for found in decoders(server):
        if found.pid in idle_s and cpu_s(found) > idle_s[found.pid] + 0.1:
            return found
    return None


def test_a_picture_that_crashes_its_decoder_is_refused_and_costs_nobody_else(
    box: RunningServer, large: bytes
) -> None:
    img2img(box, SOUND)
    idle_s = {found.pid: cpu_s(found) for found in decoders(box)}
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(img2img, box, large)
        victim = eventually(lambda: decoder_at_work(box, idle_s))
        victim.send_signal(signal.SIGSEGV)
        assert img2img(box, SOUND).status_code == 202

    assert "crashes the decoder" in refusal(answer.result())
    assert img2img(box, SOUND).status_code == 202


def test_a_decoder_that_dies_idle_is_replaced_unnoticed(box: RunningServer) -> None:
    for found in decoders(box):
        found.kill()

    assert [img2img(box, SOUND).status_code for _ in range(4)] == [202] * 4


@pytest.mark.slow
def test_decoding_is_limited_in_time(tmp_path: Path, large: bytes) -> None:
    limit = {"DARKROOM_WEB__DECODE_TIMEOUT_S": "0.5", "DARKROOM_WEB__DECODERS": "1"}
    with running(tmp_path, process="web", **UNLIMITED, **limit) as server:
        img2img(server, SOUND)  # the decoder is there

        assert "more than 0.5 seconds" in refusal(img2img(server, large))
        assert img2img(server, SOUND).status_code == 202


@pytest.mark.slow
def test_decoding_is_limited_in_memory(tmp_path: Path) -> None:
    limit = {"DARKROOM_WEB__DECODE_MEMORY_BYTES": str(256 * 2**20)}
    wide = saved(Image.new("RGB", (7000, 7000)))
    with running(tmp_path, process="web", **UNLIMITED, **limit) as server:
        assert "too much memory" in refusal(img2img(server, wide))
        assert img2img(server, SOUND).status_code == 202


@pytest.mark.slow
def test_more_uploads_than_can_be_decoded_are_told_to_come_again(tmp_path: Path) -> None:
    limit = {"DARKROOM_WEB__DECODE_TIMEOUT_S": "2", "DARKROOM_WEB__DECODERS": "1"}
    with running(tmp_path, process="web", **UNLIMITED, **limit) as server:
        img2img(server, SOUND)
        (decoder,) = decoders(server)
        decoder.suspend()
        with ThreadPoolExecutor(2) as callers:
            first = callers.submit(img2img, server, SOUND)
            second = callers.submit(img2img, server, SOUND)
            eventually(lambda: first.done() or second.done())
            decoder.resume()
            answers = [first.result(), second.result()]

    late, done = sorted(answers, key=lambda answer: -answer.status_code)
    assert done.status_code == 202
    assert late.status_code == 503
    assert late.json()["type"] == "urn:darkroom:problem:busy"
    assert int(late.headers["retry-after"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_no_decoder_outlives_its_server(
    tmp_path: Path, large: bytes, number: signal.Signals
) -> None:
    with running(tmp_path, process="web", **UNLIMITED) as server:
        img2img(server, SOUND)
        idle_s = {found.pid: cpu_s(found) for found in decoders(server)}
        assert len(idle_s) == 2
        family = processes(server)
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(img2img, server, large)
            eventually(lambda: decoder_at_work(server, idle_s))
            web = set(family) - set(decoders(server)) if number is signal.SIGKILL else ()
            for found in (*web, server.process):
                found.send_signal(number)
            _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
            answer.exception()

    assert alive == []
