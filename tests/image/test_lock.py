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


def test_a_torchvision_of_another_torch_is_not_in_the_image() -> None:
    assert "torchvision" not in (ROOT / "requirements.lock").read_text()
