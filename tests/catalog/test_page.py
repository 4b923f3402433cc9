"""docs/models.md says what the code does."""

import json
import re
from pathlib import Path

from darkroom.catalog.model_spec import NotedDefaults, NotedLimits, Notes
from darkroom.catalog.models import CONFIGS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "models.md").read_text()


def test_the_example_of_notes_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)

    assert Notes.model_validate(json.loads(example)).defaults.num_inference_steps == 4


def test_every_key_of_notes_is_explained() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert set(Notes.model_fields) <= rows
    for key in (*NotedDefaults.model_fields, *NotedLimits.model_fields):
        assert f"`{key}`" in PAGE


def test_every_carried_configuration_is_named() -> None:
    for folder in CONFIGS.glob("*/model_index.json"):
        assert f"`{folder.parent.name}`" in PAGE
