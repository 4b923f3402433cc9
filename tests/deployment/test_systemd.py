"""The systemd units: systemd understands them, and what they start is there.

That the server works under them is seen in test_proxies.py, whose server is started by them.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.cli import main
from darkroom.config import Settings
from darkroom.ops.supervisor import GRACE_S
from tests.deployment.units import COMMAND, UNITS, read
from tests.programs import program

SERVICES = ("darkroom-web.service", "darkroom-worker.service")
MOST_EXPOSED = 1.5  # of 10; systemd calls less than 5 OK, and 9.6 is a service without hardening


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """With a program that is there in the place of the one that will be."""
    units = sorted(UNITS.iterdir())
    for unit in units:
        text = unit.read_text().replace(COMMAND, sys.executable)
        (tmp_path / unit.name).write_text(text)

    done = subprocess.run(
        [
            program("systemd-analyze"),
            "verify",
            "--man=no",
            *(tmp_path / unit.name for unit in units),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert {unit.name for unit in units} == {*SERVICES, "darkroom.target"}
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_exposed_to_little(service: str) -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--no-pager", UNITS / service],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    (level,) = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    print(f"{service}: {level}")
    assert float(level) <= MOST_EXPOSED


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_unit_starts_is_there(service: str) -> None:
    command, *arguments = shlex.split(read(service)["ExecStart"][0])

    assert command == COMMAND
    main.commands[arguments[0]].make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_started_again_always_and_may_end_in_peace(service: str) -> None:
    unit = read(service)

    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert float(unit["TimeoutStopSec"][0]) > Settings().queue.shutdown_timeout_s + GRACE_S


def test_both_write_to_the_same_folder_as_the_same_user() -> None:
    web, worker = (read(service) for service in SERVICES)
    for key in ("User", "Group", "StateDirectory", "Environment", "EnvironmentFile", "UMask"):
        assert web[key] == worker[key], key
