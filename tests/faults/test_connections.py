"""Many callers, slow ones and rude ones: none of them keeps the others waiting."""

import asyncio
import json
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.serving import RunningServer, parse_events, running
from tests.waiting import PATIENCE_S, eventually

FILES = 4096
MANY = {
    "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "1000000",
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "1000",
}
BRISK = {"DARKROOM_WEB__HEADER_TIMEOUT_S": "3", "DARKROOM_WEB__BODY_TIMEOUT_S": "3"}
HASTY = {
    "DARKROOM_WEB__HEADER_TIMEOUT_S": "3",
    "DARKROOM_WEB__BODY_TIMEOUT_S": "3",
    "DARKROOM_WEB__MAX_BODY_BYTES": "100000",
    "DARKROOM_WEB__MAX_CONNECTIONS": "40",
}


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a worker and little patience."""
    folder = tmp_path_factory.mktemp("brisk")
    with running(folder, **BRISK, **MANY) as started:
        yield started


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server without a worker and with little patience and room."""
    with running(tmp_path_factory.mktemp("hasty"), process="web", **HASTY, **MANY) as started:
        yield started


def address(server: RunningServer) -> tuple[str, int]:
    url = httpx2.URL(server.url)
    assert url.port is not None
    return url.host, url.port


def connect(server: RunningServer, sent: bytes = b"", **options: int) -> socket.socket:
    """A connection over which something was sent.

    Args:
        server: to connect to.
        sent: at once.
        options: of the socket, by name.
    """
    connection = socket.socket()
    connection.settimeout(PATIENCE_S)
    for name, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    connection.connect(address(server))
    connection.sendall(sent)
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of what comes until the server closes the connection."""
    data = b""
    while more := connection.recv(65536):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(body)


def post(body: bytes, length: int | None = None, *extra: str) -> bytes:
    """A txt2img request; `length` is what it claims to be."""
    head = [
        "POST /txt2img HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *extra,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_stream(server: RunningServer, path: str) -> Connection:
    """A stream that says it is open."""
    reader, writer = await asyncio.open_connection(*address(server), limit=2**20)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert await chunk(reader) == b"retry: 1000\n\n"
    return reader, writer


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of an answer; empty at its end."""
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def story_of(stream: Connection) -> list[Any]:
    """All logged events of a stream that ends."""
    reader, writer = stream
    body = b""
    while more := await chunk(reader):
        body += more
    writer.close()
    events = parse_events(iter(body.decode().split("\n")))
    return [event for event in events if event["id"] is not None]


@contextmanager
def probing(server: RunningServer) -> Iterator[list[float]]:
    """Ask /healthz all the while; the seconds each answer took are there at the end."""
    host, port = address(server)
    command = [sys.executable, "-m", "tests.faults.probe", host, str(port)]
    took: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        try:
            yield took
        finally:
            written, _ = probe.communicate()
        took += json.loads(written)


@pytest.mark.slow
@pytest.mark.alone
def test_500_streams_tell_everything_while_8_clients_generate(brisk: RunningServer) -> None:
    def generate(seed: int) -> list[int]:
        body = {"prompt": "a fox", "seed": seed, "num_inference_steps": 2}
        with httpx2.Client(base_url=server.url, timeout=120) as http:
            return [http.post("/txt2img", json=body).status_code for _ in range(4)]

    async def listen() -> list[list[Any]]:
        worker = server.child("worker")
        worker.suspend()  # until everybody listens
        submitted = [server.submit(num_inference_steps=15, seed=seed) for seed in range(8)]
        jobs.extend(job["id"] for job in submitted)
        paths = [f"/jobs/{jobs[index % 8]}/events" for index in range(500)]
        streams = [await open_stream(server, path) for path in paths]
        worker.resume()
        generated = asyncio.gather(*(asyncio.to_thread(generate, seed) for seed in range(8)))
        with probing(server) as probed:
            told = await asyncio.gather(*map(story_of, streams))
            assert await generated == [[200] * 4] * 8
        took.extend(probed)
        return told

    server = brisk
    jobs: list[str] = []
    took: list[float] = []
    stories = asyncio.run(listen())
    logged = [list(server.events(job)) for job in jobs]

    for index, story in enumerate(stories):
        assert story == logged[index % 8]
    for story in logged:
        assert (story[0]["event"], story[-1]["event"]) == ("queued", "succeeded")
    p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
    print(f"/healthz: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, of {len(took)}")
    assert p99 < max(0.1, 50 * at_rest_s(server))


def at_rest_s(server: RunningServer) -> float:
    """What an answer takes of a server with nothing else to do: the measure of this machine."""
    took = []
    for _ in range(100):
        began = time.perf_counter()
        server.http.get("/healthz")
        took.append(time.perf_counter() - began)
    return statistics.median(took)


@pytest.mark.slow
def test_200_slow_connections_hold_nobody_up_and_are_closed(brisk: RunningServer) -> None:
    picture = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        heads = [connect(brisk, b"GET /healthz HTTP/1.1\r\nX-Slow: ") for _ in range(70)]
        bodies = [connect(brisk, post(b'{"prompt": ', 1000)) for _ in range(70)]
        readers = [connect(brisk, 8 * picture, SO_RCVBUF=4096) for _ in range(60)]
        for connection in (*heads, *bodies, *readers):
            stack.enter_context(connection)

        assert brisk.http.get("/healthz").status_code == 200
        assert brisk.txt2img().json()["status"] == "succeeded"

        for connection in (*heads, *bodies):
            status, headers, problem = answer_of(connection)
            assert status == problem["status"] == 408
            assert headers["content-type"] == "application/problem+json"
        ports = {connection.getsockname()[1] for connection in readers}
        web = brisk.child("web")
        eventually(lambda: not ports & {peer.raddr.port for peer in peers(web)})


def peers(process: psutil.Process) -> list[Any]:
    return [peer for peer in process.net_connections("tcp") if peer.raddr]


@pytest.mark.slow
def test_200_waiting_callers_hold_nobody_up(tmp_path: Path) -> None:
    with running(tmp_path, process="web", **MANY) as server, ExitStack() as stack:
        waiting = wait_in_line(server, stack, 200)

        assert server.http.get("/healthz").status_code == 200
        page = server.http.get("/jobs?limit=100").json()
        for job in page["jobs"]:
            server.http.delete(job["url"])
        told = sorted(told_of(connection)[0] for connection in waiting[100:])

    assert told == [409] * 100


def wait_in_line(server: RunningServer, stack: ExitStack, count: int) -> list[socket.socket]:
    """Callers, each waiting for a job that nobody begins; in the order of their jobs."""
    callers = []
    for number in range(count):
        body = json.dumps({"prompt": f"caller {number}"}).encode()
        callers.append(stack.enter_context(connect(server, post(body, None, "Connection: close"))))
        if number % 50 == 49:
            eventually(lambda: queued(server) == len(callers))
    return callers


def queued(server: RunningServer) -> int:
    lines = server.http.get("/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith('darkroom_jobs{status="queued"}'))
    return int(float(line.split()[1]))


def told_of(connection: socket.socket) -> tuple[int, str]:
    status, _, body = answer_of(connection)
    return status, body.get("status")


@pytest.mark.slow
def test_a_stopped_server_lets_everybody_go(tmp_path: Path) -> None:
    # More time than it is given here: it must not wait for them.
    unhurried = {"DARKROOM_QUEUE__SHUTDOWN_TIMEOUT_S": str(2 * PATIENCE_S)}
    with running(tmp_path, process="web", **MANY, **unhurried) as server, ExitStack() as stack:
        waiting = wait_in_line(server, stack, 50)
        request = b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n"
        streams = [stack.enter_context(connect(server, request)) for _ in range(100)]
        for stream in streams:
            assert stream.recv(8)  # it is open

        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0

        answers = [answer_of(connection) for connection in waiting]
        assert {(status, "location" in head) for status, head, _ in answers} == {(503, True)}
        for stream in streams:
            while stream.recv(65536):
                pass  # to its end, not to a reset


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS, to a plain port
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: " + 5000 * b"1" + b"\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (post(b"", 5, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),  # RFC 9112, section 6.1
        (post(b"{}", 2, "Transfer-Encoding: rot13").replace(b"Content-Length: 2\r\n", b""), 501),
        (b"GET ftp://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http:///healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /healthz HTTP/nonsense\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + 20_000 * b"a" + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + 2_000_000 * b"a", 431),
        (post(b"", 10**12), 413),
        (post(200_000 * b" "), 413),
        (post(b"", 0, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
         + b"20000\r\n" + 0x20000 * b" " + b"\r\n", 413),
        (post(b"{", None, "Transfer-Encoding: chunked").replace(b"Content-Length: 1\r\n", b"")
         + b"\r\nnot a size\r\n", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_with_a_problem(
    hasty: RunningServer, sent: bytes, status: int
) -> None:
    with connect(hasty, sent) as connection:
        assert_refused(connection, status)


def assert_refused(connection: socket.socket, status: int) -> None:
    answered, headers, problem = answer_of(connection)
    assert answered == problem["status"] == status
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-request-id"] == problem["request_id"]
    assert problem["detail"]


def test_what_does_not_come_to_its_end_is_given_up(hasty: RunningServer) -> None:
    """A head, a body, the second request of a connection; one on which nothing is asked."""
    request = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        connect(hasty, b"GET /healthz HTT") as head,
        connect(hasty, post(b'{"prompt"', 100)) as body,
        connect(hasty, request) as second,
        connect(hasty) as silent,
    ):
        assert second.recv(65536).endswith(b"\r\n\r\n")  # and no body
        second.sendall(request[:20])
        for connection in (head, body, second):
            assert_refused(connection, 408)
        assert silent.recv(1024) == b""


def test_a_body_that_is_too_large_is_not_asked_for(hasty: RunningServer) -> None:
    with connect(hasty, post(b"", 200_000, "Expect: 100-continue")) as connection:
        assert answer_of(connection)[0] == 413  # and not 100

    with connect(hasty, post(b"", 2, "Expect: 100-continue", "Connection: close")) as connection:
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert answer_of(connection)[0] == 422


def test_a_strangers_upload_is_turned_away_before_it_is_sent(hasty: RunningServer) -> None:
    stranger = ("X-Forwarded-For: 192.0.2.7", "Expect: 100-continue")
    with connect(hasty, post(b"", 90_000, *stranger)) as connection:
        status, headers, problem = answer_of(connection)

    assert status == problem["status"] == 401
    assert "bearer" in headers["www-authenticate"]
    assert headers["connection"] == "close"


def test_a_stranger_brings_little_to_a_route_that_is_open_to_all(hasty: RunningServer) -> None:
    """It would lie on the disk, and take the place of uploads."""
    pair = post(b"", 90_000, "X-Forwarded-For: 192.0.2.7").replace(b"/txt2img", b"/pair")
    with connect(hasty, pair) as connection:
        status, headers, problem = answer_of(connection)

    assert status == problem["status"] == 413
    assert "65536 bytes" in problem["detail"]
    assert headers["connection"] == "close"


def test_requests_on_one_connection_are_answered_in_order(hasty: RunningServer) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = request % b"/healthz" + request % b"/nowhere" + post(b"{}", None, "Connection: close")
    data = b""
    with connect(hasty, sent) as connection:
        while more := connection.recv(65536):
            data += more

    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"404", b"422"]


def test_an_upgrade_to_websocket_is_an_ordinary_request(hasty: RunningServer) -> None:
    wanted = ("Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    request = "\r\n".join(["GET /healthz HTTP/1.1", "Host: localhost", *wanted]).encode()
    with connect(hasty, request + b"\r\n\r\n") as connection:
        status, headers, problem = answer_of(connection)

    assert status == problem["status"] == 400  # Flask has no such route
    assert headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/healthz", b"localhost", 200),
        (b"HTTP://127.0.0.1:7860/jobs?limit=1", b"localhost", 200),
        (b"http://localhost", b"localhost", 200),
        (b"http://localhost?a=b", b"localhost", 200),
        # The target's host counts, for who is trusted too.
        (b"http://localhost/jobs", b"elsewhere.example", 200),
        (b"http://elsewhere.example/jobs", b"localhost", 401),
        (b"/http://localhost/healthz", b"localhost", 404),
    ],
)
def test_a_target_may_be_a_url(
    hasty: RunningServer, target: bytes, host: bytes, status: int
) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)
    with connect(hasty, request) as connection:
        assert connection.recv(12) == b"HTTP/1.1 %d" % status


def test_the_server_as_a_whole_has_options(hasty: RunningServer) -> None:
    request = b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(hasty, request) as connection:
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert re.search(rb"\r\nallow: .*\bPOST\b", answer)


def test_an_empty_line_between_requests_is_skipped(hasty: RunningServer) -> None:
    """As programs of the nineties send it behind a body (RFC 9112, section 2.2)."""
    sent = post(b"{}") + b"\r\n" + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    data = b""
    with connect(hasty, b"\r\n" + sent) as connection:
        while more := connection.recv(65536):
            data += more

    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"422", b"200"]


@pytest.mark.parametrize("pieces", [[b"\r\n\r\n\r\n"], [b"\r\n", b"\r\n\r", b"\n"]])
def test_empty_lines_before_a_request_are_skipped(
    hasty: RunningServer, pieces: list[bytes]
) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connect(hasty, b"") as connection:
        for piece in (*pieces, request):
            connection.sendall(piece)
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
def test_empty_lines_alone_ask_for_nothing(hasty: RunningServer) -> None:
    with connect(hasty, b"\r\n\r\n") as connection:
        assert connection.recv(65536) == b""  # closed when the time for a head is over


@pytest.mark.slow
def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    few = {"DARKROOM_WEB__MAX_CONNECTIONS": "8"}
    with running(tmp_path, process="web", **few, **MANY) as server, ExitStack() as stack:
        for _ in range(7):  # and the test's own client
            stack.enter_context(connect(server))
        with connect(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as one_more:
            status, headers, problem = answer_of(one_more)
        stack.close()

        assert status == problem["status"] == 503
        assert int(headers["retry-after"]) > 0
        eventually(lambda: server.http.get("/jobs").status_code == 200)
