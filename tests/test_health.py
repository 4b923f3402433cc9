"""What container engines ask from beside the processes, and what the owner sees in their logs."""

import os
from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.ops.discovery import local_url
from tests.serving import RunningServer
from tests.test_cli import darkroom


def health(server: RunningServer, process: str) -> int:
    port = server.url.rpartition(":")[2]
    options = ("--data-dir", str(server.data_dir), "--host", "127.0.0.1", "--port", port)
    return darkroom("health", process, *options).returncode


def test_a_server_is_well(server: RunningServer) -> None:
    assert health(server, "web") == 0
    assert health(server, "worker") == 0


def test_web_is_well_without_a_worker(idle_server: RunningServer) -> None:
    assert health(idle_server, "web") == 0
    assert health(idle_server, "worker") == 1


def test_nobody_there_is_not_well(tmp_path: Path) -> None:
    for process in ("web", "worker"):
        result = darkroom("health", process, "--data-dir", str(tmp_path), "--port", "1")

        assert result.returncode == 1
        assert result.stdout == f"{process} is not well\n"


def test_a_proxy_in_the_environment_is_not_asked(server: RunningServer) -> None:
    port = server.url.rpartition(":")[2]
    result = darkroom("health", "--port", port, http_proxy="http://127.0.0.1:1")

    assert result.returncode == 0


def test_web_alone_greets_its_owner(idle_server: RunningServer) -> None:
    """As `serve` does: a container runs web by itself."""
    idle_server.wait_to_say("Darkroom is at")


def test_serve_greets_once(server: RunningServer) -> None:
    server.wait_to_say("Darkroom is at")
    assert server.log.read_text().count("Darkroom is at") == 1


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; `make image-check` covers it"
)
@pytest.mark.parametrize("command", ["serve", "web", "worker"])
def test_a_folder_that_may_not_be_written_is_named_with_what_to_do(
    tmp_path: Path, command: str
) -> None:
    tmp_path.chmod(0o555)
    result = darkroom(command, "--data-dir", str(tmp_path))

    assert result.returncode == 1
    assert f"{tmp_path} belongs to user {os.geteuid()} and cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:7860"),
        ("::", "http://localhost:7860"),
        ("127.0.0.1", "http://localhost:7860"),
        ("::1", "http://[::1]:7860"),
        ("127.0.0.2", "http://127.0.0.2:7860"),
        ("192.168.1.5", "http://192.168.1.5:7860"),
    ],
)
def test_it_is_asked_where_it_listens(host: str, url: str) -> None:
    """Loopback addresses besides 127.0.0.1 may have no name."""
    assert local_url(Settings(host=host)) == url
