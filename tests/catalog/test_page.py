"""docs/models.md says what the code does."""

import json
import re
from pathlib import Path

from darkroom.catalog.families import FAMILIES, UNETS, VARYING, WHOLE, Family
from darkroom.catalog.listing import CONFIGS
from darkroom.catalog.model_spec import NotedDefaults, NotedLimits, Notes
from darkroom.engine.families.traits import ALONE, TRAITS
from darkroom.requests import REQUESTS, Task

TASKS = (Task.TXT2IMG, Task.IMG2IMG, Task.INPAINT, Task.EDIT)
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


def row(family: Family) -> str:
    """A row of the table of families."""
    edits = f"{family.max_references} picture{'s' * (family.max_references > 1)}"
    can = ["yes" if task in family.tasks else "" for task in TASKS[:-1]]
    can.append(edits if Task.EDIT in family.tasks else "")
    tokens = "any length" if family.max_tokens is None else f"{family.max_tokens} tokens"
    asked = {name for task in family.tasks for name in REQUESTS[task].model_fields}
    takes = family.takes | ({"loras"} if family.loras else set())
    refused = [f"`{name}`" for name in VARYING if name in asked and name not in takes]
    shares = family in UNETS or TRAITS.get(family.name, ALONE).batched
    cells = [f"`{family.name}`", *can, "yes" if shares else "", tokens]
    cells.append(", ".join(refused) or "nothing")
    return "| " + " | ".join(cells) + " |"


def test_the_table_of_families_is_the_registrys() -> None:
    rows = [row(family) for family in FAMILIES.values() if family.name != WHOLE]

    table = re.findall(r"^\| `[\w-]+` \|(?: \w* \|){3}.*$", PAGE, re.MULTILINE)

    assert [line for line in table if "token" in line or "any length" in line] == rows, "\n".join(
        rows
    )
