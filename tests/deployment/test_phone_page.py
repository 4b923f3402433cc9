"""docs/connect-your-phone.md: our commands are run; those of firewalls and Docker are checked."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator

from darkroom.config import AuthSettings, Settings
from tests.deployment.test_compose import SERVICES, Loader
from tests.deployment.test_page import CHECKS
from tests.security.doors import new_code, pair
from tests.serving import RunningServer
from tests.test_docs import ROOT, blocks

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "connect-your-phone.md").read_text()
COMMANDS = [line for block in blocks("sh", PAGE) for line in block.splitlines()]
OURS = ".venv/bin/darkroom "
PORT = Settings().port


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith(OURS)])
def test_commands_of_ours_run(server: RunningServer, tmp_path: Path, line: str) -> None:
    program, *arguments = shlex.split(line)
    environment = {**os.environ, "DARKROOM_DATA_DIR": str(server.data_dir)}

    def run(*words: str) -> str:
        return subprocess.run(
            [ROOT / program, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    if "--device" in arguments:
        pair(server, new_code(server), arguments[-1])
    if "revoke" in arguments:
        run("token", "create", arguments[-1])
    assert run(*arguments).strip() or "list" in arguments


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(OURS)])
def test_commands_of_others_are_about_our_ports_and_files(line: str) -> None:
    name, *arguments = shlex.split(line.removeprefix("sudo "))

    if name == "firewall-cmd":
        assert re.search(rf"--reload|--permanent --add-port=({PORT}/tcp|5353/udp)", line)
    elif name == "docker":
        # The last file is the one that the page says how to write.
        assert arguments[-3:] == ["-f", "docker-compose.override.yml", "up"]
        CHECKS[name](*arguments[:-3], arguments[-1])
    else:
        CHECKS[name](*arguments)


def test_windows_opens_and_forwards_our_port() -> None:
    lines = [line for block in blocks("powershell", PAGE) for line in block.splitlines()]

    assert len(lines) == 3
    for line in lines:
        ports = re.findall(r"(?:port=|-LocalPorts? )(\d+)", line)
        assert ports
        assert set(ports) == {str(PORT)}


def test_settings_on_the_page_are_ones_that_the_server_takes() -> None:
    texts = re.findall(r"^ *```yaml\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    settings = [yaml.safe_load(text) for text in texts if "services:" not in text]

    assert [list(content) for content in settings] == [["public_url"], ["tls"]]
    for content in settings:
        Settings(**content)


def test_docker_publishes_the_port_and_trusts_no_address() -> None:
    (text,) = (text for text in blocks("yaml", PAGE) if "services:" in text)
    override = yaml.load(text, Loader)

    assert override["services"]["web"].pop("network_mode") is None  # that of the other file goes
    problems = Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(override)
    assert [problem.message for problem in problems] == []
    assert override["services"].keys() <= SERVICES.keys()
    web = override["services"]["web"]
    assert web["ports"] == [f"{PORT}:{PORT}"]
    given = web["environment"]
    assert given.keys() == {"DARKROOM_PUBLIC_URL", "DARKROOM_AUTH__TRUST_LOOPBACK"}
    assert given["DARKROOM_PUBLIC_URL"].endswith(f":{PORT}")
    assert not AuthSettings(trust_loopback=given["DARKROOM_AUTH__TRUST_LOOPBACK"]).trust_loopback


def test_what_the_page_says_of_codes_and_tries_is_the_default() -> None:
    assert "works once and for five minutes" in PAGE
    assert AuthSettings().pairing_code_s == 5 * 60
    assert f"{AuthSettings().failures_per_minute} wrong codes from one address" in PAGE
