"""The command line, run as a person runs it."""

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.effort import sampled
from tests.serving import RunningServer, free_port


def darkroom(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkroom", *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_names_every_command() -> None:
    text = darkroom("--help").stdout

    for command in ("serve", "web", "worker", "webhooks", "models", "backup", "health", "doctor"):
        assert command in text


def test_models_list_shows_the_embedded_model(tmp_path: Path) -> None:
    result = darkroom("models", "list", "--data-dir", str(tmp_path))

    assert result.returncode == 0
    assert "* tintype" in result.stdout


def test_models_list_says_why_a_model_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "old.ckpt").write_bytes(b"")
    result = darkroom("models", "list", "--data-dir", str(tmp_path))

    assert result.returncode == 0
    assert "* tintype" in result.stdout
    assert "! old  cannot be used: old.ckpt is a pickled checkpoint" in result.stdout


@pytest.mark.slow
def test_doctor_finds_a_healthy_box_healthy(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "old.ckpt").write_bytes(b"")
    result = darkroom("doctor", "--data-dir", str(tmp_path), "--port", str(free_port()))

    assert result.returncode == 0, result.stdout + result.stderr
    assert "not usable: old" in result.stdout
    checks = [line.split()[1] for line in result.stdout.splitlines()]
    assert checks == [
        "python", "torch", "gpu", "memory", "disk", "port", "database", "files", "locks",
        "workers", "model", "add-ons", "picture",
    ]  # fmt: skip


@pytest.mark.slow
def test_doctor_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = darkroom(
            "doctor",
            "--data-dir", str(tmp_path),
            "--port", str(taken.getsockname()[1]),
            DARKROOM_MODELS__DEFAULT="missing",
        )  # fmt: skip

    assert result.returncode == 1
    assert "FAIL port" in result.stdout
    assert "choose another --port" in result.stdout
    assert "FAIL model" in result.stdout
    assert "there is tintype" in result.stdout


def test_an_allowed_address_that_is_none_is_named(tmp_path: Path) -> None:
    for command in ("doctor", "serve"):
        result = darkroom(
            command, "--data-dir", str(tmp_path), DARKROOM_WEBHOOKS__ALLOW='["https://ha@ha.local"]'
        )

        assert result.returncode == 1
        assert "webhooks.allow.0" in result.stderr
        assert "a name or a password" in result.stderr


def test_a_secret_that_signs_nothing_is_refused_and_not_repeated() -> None:
    result = darkroom("webhooks", "secret", DARKROOM_WEBHOOKS__SECRET="whsec_c2hvcnQ=")

    assert result.returncode == 1
    assert "webhooks.secret" in result.stderr
    assert "c2hvcnQ" not in result.stderr


@pytest.mark.slow
def test_webhooks_secret_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with ThreadPoolExecutor() as several:
        runs = [
            several.submit(darkroom, "webhooks", "secret", "--data-dir", str(folder))
            for _ in range(3)
        ]
    (secret,) = {run.result().stdout for run in runs}

    assert secret.startswith("whsec_")
    path = folder / "webhooks.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short")
    damaged = darkroom("webhooks", "secret", "--data-dir", str(folder))
    assert damaged.returncode == 1
    assert "is damaged" in damaged.stderr
    assert path.read_text() == "short"  # another one would be one that no receiver knows


@pytest.mark.slow
def test_doctor_finds_a_broken_database(tmp_path: Path) -> None:
    (tmp_path / "darkroom.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    result = darkroom("doctor", "--data-dir", str(tmp_path), "--port", str(free_port()))

    assert result.returncode == 1
    assert "FAIL database" in result.stdout


def test_a_taken_port_is_said_plainly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = darkroom("serve", "--data-dir", str(tmp_path), "--port", port)

    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert "choose another --port, or stop the program" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    sampled(
        [
            ([], {"DARKROOM_MODELS__DEFAULT": "tintipe"}, "default: there is no model 'tintipe'"),
            (["--host", "no.such.name.invalid"], {}, "choose another --host"),
            (["--host", "203.0.113.7"], {}, "choose another --host"),
            (["--host", "127.0.0.1"], {"DARKROOM_PROT": "1"}, "did you mean DARKROOM_PORT?"),
            (["--host", ""], {}, "host: is empty"),
            ([], {"DARKROOM_WEB__TRUSTED_PROXIES": '["nonsense"]'}, "web.trusted_proxies.0: is no"),
            ([], {"DARKROOM_ENGINE__MAX_BATCH_ROWS": "many"}, "max_batch_rows: Input should be"),
        ],
        one_in=3,
    ),
)
def test_a_wrong_setting_ends_the_start_in_one_line(
    tmp_path: Path, options: list[str], settings: dict[str, str], said: str
) -> None:
    result = darkroom("serve", "--data-dir", str(tmp_path), *options, **settings)

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert said in line
    assert "choose another --port" not in line
    assert "[" not in line.replace("['auto']", "")  # none of pydantic's own words


def test_a_data_folder_serves_one_server(server: RunningServer) -> None:
    arguments = ("--data-dir", str(server.data_dir), "--port", str(free_port()))

    for command, words in (
        ("serve", "a server already runs"),
        ("worker", "already works on"),
    ):
        result = darkroom(command, *arguments)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert words in line


def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    result = darkroom("models", "list", "--config", str(tmp_path / "none.yaml"))

    assert result.returncode == 1
    assert "none.yaml" in result.stderr


def test_a_web_process_imports_nothing_that_one_machine_does_not_need() -> None:
    unneeded = {"torch", "sqlalchemy.dialects.postgresql", "psycopg", "fsspec", "ray"}
    code = f"import sys, darkroom.asgi.server; print({unneeded} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "set()"


def test_the_worker_is_found_by_its_command_line(server: RunningServer) -> None:
    assert "worker" in " ".join(server.child("worker").cmdline())
