"""config.yaml is the list of settings: each with its default, each explained."""

import re
from pathlib import Path

import pytest
import yaml

from darkroom import config

FILE = Path(__file__).parent.parent / "config.yaml"
CODE = ("sdk", "tests", "benchmarks")


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DARKROOM_PROT", "DARKROOM_PORT"),
        ("DARKROOM_DATADIR", "DARKROOM_DATA_DIR"),
        ("DARKROOM_ENGINE_DEVICE", "DARKROOM_ENGINE__DEVICE"),
        ("DARKROOM_ENGINE__DEVIC", "DARKROOM_ENGINE__DEVICE"),
        ("DARKROOM_DEVICE", "DARKROOM_ENGINE__DEVICE"),
        ("darkroom_prot", "DARKROOM_PORT"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(ValueError, match=rf"^there is no setting {name}; did you mean {meant}\?$"):
        config.load({})


@pytest.mark.parametrize(
    "name",
    # As Kubernetes sets them for a service called darkroom, and one of somebody else's.
    ["DARKROOM_SERVICE_HOST", "DARKROOM_PORT_7860_TCP_ADDR", "DARKROOM_LIGHT_COLOUR"],
)
def test_another_unknown_variable_is_only_told_of(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    config.load({})
    assert config.unknown_variables() == [name]


def test_the_projects_other_variables_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that documents, the SDK, Docker Compose, benchmarks and tests name."""
    root = FILE.parent
    files = [root / "README.md", root / "Makefile", *root.glob("docker-compose*.yml")]
    for folder, kinds in {"docs": "*.md", "deploy": "*", **dict.fromkeys(CODE, "*.py")}.items():
        files += [path for path in (root / folder).rglob(kinds) if path.is_file()]
    misspelt = {root / "tests/test_config.py", root / "tests/test_cli.py"}
    text = "\n".join(path.read_text() for path in files if path not in misspelt)
    settings = {
        f"{section}__{name}".upper()
        for section, found in yaml.safe_load(FILE.read_text()).items()
        if isinstance(found, dict)
        for name in found
    } | {name.upper() for name in yaml.safe_load(FILE.read_text())}
    named = {
        name
        for name in re.findall(r"(?<![A-Z_])DARKROOM_([A-Z][A-Z_]*[A-Z])", text)
        if name not in settings | {"SECTION__NAME", "NAME"}  # as documents speak of all settings
    }

    assert named == config.OTHER_VARIABLES
    for name in named - {"CONFIG"}:
        monkeypatch.setenv(f"DARKROOM_{name}", "1")
    config.load({})
    assert config.unknown_variables() == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("bucket/prefix", "has to be a URL"),
        ("s3://", "has to be a URL"),
        ("memory://pictures", "cannot share"),
    ],
)
def test_a_place_for_files_that_cannot_be_used_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config.StorageSettings.model_validate({"files_url": url})


def test_a_place_for_files_is_shown_to_nobody_because_it_may_hold_a_password() -> None:
    found = config.StorageSettings.model_validate(
        {"files_url": "ftp://me:secret1@host/pictures", "files_options": {"key": "secret2"}}
    )

    assert "secret" not in f"{found!r} {found}"


def test_a_backend_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config, "find_spec", lambda _name: None)

    with pytest.raises(ValueError, match=r"it needs openvino: `pip install 'darkroom-server\["):
        config.EngineSettings(backend="openvino")
