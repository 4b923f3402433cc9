"""docs/deployment.md: every command is one that there is, and every setting one that is taken.

What needs Docker, systemd or root is not run. That its subcommands, services, units, files and
options are there is seen here; that the server works so, in the other files of this folder.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator

from darkroom.cli import main
from darkroom.config import Settings
from tests.deployment.prometheus import MONITORING, promtool
from tests.deployment.test_compose import PAGE, ROOT, SERVICES, Loader
from tests.deployment.units import UNITS, behind_a_proxy
from tests.programs import program
from tests.test_docs import blocks

SCRIPTS = blocks("sh", PAGE)
COMMANDS = [line for block in SCRIPTS for line in block.splitlines()]
FOREIGN_UNITS = {"docker", "nginx"}
COMPOSE_OPTIONS_WITH_VALUES = {"-f", "--profile", "-v"}


def check_darkroom(*arguments: str) -> None:
    """The command and its options are there."""
    command = main.commands[arguments[0]]
    rest = list(arguments[1:])
    while rest and hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context("darkroom", rest)


def check_docker(*arguments: str) -> None:
    if arguments[0] == "run":
        return  # of NVIDIA's documentation
    assert arguments[0] == "compose"
    words = list(arguments[1:])
    plain = []
    while words:
        word = words.pop(0)
        if word in COMPOSE_OPTIONS_WITH_VALUES and "logs" not in plain:
            value = words.pop(0)
            if word == "-f":
                assert (ROOT / value).is_file()
            if word == "--profile":
                assert [value] in [service.get("profiles") for service in SERVICES.values()]
        elif not word.startswith("-"):
            plain.append(word)
    match plain:
        case ["up"] | ["logs"]:
            pass
        case ["exec", "web" | "worker", "darkroom", *command]:
            check_darkroom(*command)
        case ["run", "web", *command]:  # the image's entrypoint is darkroom
            check_darkroom(*command)
        case _:
            pytest.fail(f"docker {shlex.join(arguments)}")


def check_systemctl(*arguments: str) -> None:
    verb, *units = [word for word in arguments if not word.startswith("-")]
    assert verb in ("daemon-reload", "enable", "restart", "reload")
    for unit in units:
        assert unit in FOREIGN_UNITS or (UNITS / unit).is_file()


def check_journalctl(*arguments: str) -> None:
    assert (UNITS / f"{arguments[arguments.index('-u') + 1]}.service").is_file()


def check_copy(*arguments: str) -> None:
    for source in arguments[:-1]:
        assert (ROOT / source).is_file(), source


def check_install(*arguments: str) -> None:
    if "-d" not in arguments:
        source, target = arguments[-2:]
        assert (ROOT / source).is_file()
        assert target == "/etc/darkroom/config.yaml"


def check_make(*arguments: str) -> None:
    assert arguments[:2] == ("-C", "/opt/darkroom")
    made = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {*arguments[2:]} <= made


def check_useradd(*arguments: str) -> None:
    users = {line for unit in UNITS.glob("*.service") for line in unit.read_text().splitlines()}
    assert f"User={arguments[-1]}" in users


def check_curl(*arguments: str) -> None:
    assert arguments[-1] == "localhost:7860/readyz"


def check_firewall(*arguments: str) -> None:
    said = shlex.join(arguments)
    assert re.search(rf"\b({Settings().port}.*tcp|tcp.*{Settings().port}|5353)\b", said)


def unchecked(*_arguments: str) -> None:
    """Nothing of ours is in it."""


CHECKS: dict[str, Callable[..., None]] = {
    "alias": unchecked,
    "cp": check_copy,
    "curl": check_curl,
    "darkroom": check_darkroom,
    "docker": check_docker,
    "echo": unchecked,
    "git": unchecked,
    "install": check_install,
    "journalctl": check_journalctl,
    "make": check_make,
    "nft": check_firewall,
    "nginx": unchecked,
    "nvidia-ctk": unchecked,
    "systemctl": check_systemctl,
    "ufw": check_firewall,
    "useradd": check_useradd,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_blocks_are_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_is_one_that_there_is(line: str) -> None:
    name, *arguments = shlex.split(line.removeprefix("sudo "))

    CHECKS[name](*arguments)


def test_the_alias_runs_the_command_that_the_units_run() -> None:
    (alias,) = (line for line in COMMANDS if line.startswith("alias "))
    unit = (UNITS / "darkroom-web.service").read_text()

    command = shlex.split(shlex.split(alias)[1].partition("=")[2])
    assert command[:2] == ["sudo", "systemd-run"]
    assert "--uid=darkroom" in command
    settings = [each.partition("=")[2] for each in command if "=" in each and "uid" not in each]
    assert len(settings) == 3
    for setting in settings:
        assert setting in unit
    assert f"ExecStart={command[-1]} web" in unit


def test_every_unit_is_copied() -> None:
    copied = [line for line in COMMANDS if "/etc/systemd/system/" in line]

    assert len(copied) == 2
    for line in copied:
        assert {Path(word).name for word in line.split() if word.startswith("deploy/")} == {
            unit.name for unit in UNITS.iterdir()
        }


def test_settings_for_a_proxy_are_those_of_the_examples() -> None:
    (settings,) = (yaml.safe_load(text) for text in blocks("yaml", PAGE) if "trusted" in text)

    assert settings == behind_a_proxy("nginx.conf") == behind_a_proxy("Caddyfile")
    Settings(**settings)


def test_another_gpu_is_chosen_as_compose_understands() -> None:
    (override,) = (text for text in blocks("yaml", PAGE) if "services:" in text)
    content = yaml.load(override, Loader)

    assert not list(Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(content))
    assert content["services"].keys() <= SERVICES.keys()


def test_a_prometheus_of_ones_own_takes_what_is_shown(tmp_path: Path) -> None:
    (config,) = (text for text in blocks("yaml", PAGE) if "scrape_configs" in text)
    file = tmp_path / "prometheus.yml"
    file.write_text(config)

    assert "SUCCESS" in promtool("check", "config", "--syntax-only", str(file))


def test_every_alarm_is_on_the_page() -> None:
    rules = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]

    said = re.findall(r"^\| (Darkroom\w+) \|", PAGE, re.MULTILINE)
    assert said == [rule["alert"] for rule in rules]


def test_how_exposed_the_units_are_is_what_systemd_says() -> None:
    said = re.search(r"calls them \[([\d.]+) and ([\d.]+)\]", PAGE)
    assert said
    for name, level in zip(("web", "worker"), said.groups(), strict=True):
        done = subprocess.run(
            [
                program("systemd-analyze"),
                *("security", "--offline=true", UNITS / f"darkroom-{name}.service"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"darkroom-{name}.service: {level} " in done.stdout
