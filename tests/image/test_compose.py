"""What docker-compose.yml promises of the server, asked of the server."""

import re
from pathlib import Path

import pytest
import yaml

from darkroom.config import Settings
from darkroom.ops.supervisor import GRACE_S

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]


@pytest.mark.parametrize("name", ["web", "worker"])
def test_it_is_not_killed_before_it_has_stopped(name: str) -> None:
    patience = re.fullmatch(r"(\d+)s", SERVICES[name]["stop_grace_period"])

    assert patience is not None
    assert int(patience[1]) > Settings().queue.shutdown_timeout_s + GRACE_S


def test_what_is_meant_for_compose_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets the whole of .env, the names of volumes too."""
    names = set(re.findall(r"\$\{(\w+)", TEXT)) - {"DARKROOM_PORT"}
    for name in names:
        monkeypatch.setenv(name, "something")

    assert "DARKROOM_DATA_VOLUME" in names
    assert Settings() == Settings(port=7860)
