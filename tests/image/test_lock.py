"""requirements.lock is what the image installs: it must follow pyproject.toml."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_each_dependency_is_locked_to_a_version_that_it_allows() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pyproject["project"]["dependencies"] + pyproject["dependency-groups"]["upscaling"]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))

    for requirement in map(Requirement, wanted):
        version = locked.get(requirement.name)
        assert version, f"{requirement.name} is not locked: make lock"
        assert version in requirement.specifier, f"{requirement} is locked to {version}: make lock"


def test_what_a_fleet_needs_is_locked_beside_the_rest() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    both = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements.fleet.lock").read_text()
    pairs = [line.split("==") for line in both.splitlines() if not line.startswith("#")]
    locked = dict(pairs)

    assert len(locked) == len(pairs)
    for requirement in map(Requirement, (*extras["fleet"], *extras["s3"], *extras["postgresql"])):
        assert locked[requirement.name] in requirement.specifier


def test_a_torchvision_of_another_torch_is_not_in_the_image() -> None:
    assert "torchvision" not in (ROOT / "requirements.lock").read_text()
