"""config.yaml is the list of settings: each with its default, each explained."""

from pathlib import Path

import pytest
import yaml

from darkroom import config

FILE = Path(__file__).parent.parent / "config.yaml"


def test_the_file_holds_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.CONFIG_VARIABLE, "/dev/null")
    defaults = config.Settings().model_dump(mode="json")

    assert yaml.safe_load(FILE.read_text()) == defaults


def test_every_setting_is_explained() -> None:
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        is_setting = ":" in line and not line.strip().startswith("#")
        if is_setting and line.startswith("  "):
            assert lines[number - 1].strip().startswith("#"), f"no comment above {line.strip()!r}"


def test_an_old_files_sequential_offloading_is_group_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="sequential is now group"):
        assert config.EngineSettings(offload="sequential").offload == "group"


def test_the_command_line_wins_over_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("port: 1001\nhost: 127.0.0.2\nengine: {device: cpu}\n")
    monkeypatch.setenv("DARKROOM_CONFIG", str(file))
    monkeypatch.setenv("DARKROOM_PORT", "1002")
    monkeypatch.setenv("DARKROOM_ENGINE__DTYPE", "float32")

    settings = config.load({"port": 1003, "host": None})

    assert settings.port == 1003
    assert settings.host == "127.0.0.2"
    assert (settings.engine.device, settings.engine.dtype) == ("cpu", "float32")
    assert config.load({}).port == 1002
