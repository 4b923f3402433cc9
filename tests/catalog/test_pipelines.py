"""The table of foreign pipelines, held against the diffusers that is installed."""

import inspect

import diffusers
import pytest
from diffusers.pipelines import auto_pipeline

from darkroom.catalog import pipelines
from darkroom.catalog.model_spec import FAMILIES
from darkroom.catalog.pipelines import UNBATCHED
from darkroom.requests import MODEL_TASKS, Task

MAPPINGS = {
    Task.TXT2IMG: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    Task.IMG2IMG: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    Task.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
# diffusers knows these when sentencepiece is installed.
OPTIONAL = {"kolors", "kolors-pag"}
OURS = {"stable-diffusion", "stable-diffusion-xl", "lcm"}  # driven by our own loop
KINDS = sorted({kind for mapping in MAPPINGS.values() for kind in mapping})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_diffusers_knows_is_run_or_left_out_with_a_reason(kind: str) -> None:
    theirs = {task: mapping.get(kind) for task, mapping in MAPPINGS.items()}
    names = {task: cls and cls.__name__ for task, cls in theirs.items()}

    if kind in UNBATCHED:
        assert {task: UNBATCHED[kind].pipeline(task) for task in MODEL_TASKS} == names
    else:
        for name in filter(None, names.values()):
            known = name in FAMILIES or kind in OURS
            assert known or "AutoPipeline" not in pipelines.why_not(name), name


def test_no_row_is_made_up() -> None:
    assert set(UNBATCHED) <= {*KINDS, *OPTIONAL}
    for row in UNBATCHED.values():
        assert all(hasattr(diffusers, row.pipeline(task) or "") for task in row.tasks)


@pytest.mark.parametrize("kind", sorted(set(UNBATCHED) - OPTIONAL))
def test_defaults_are_those_of_the_pipeline(kind: str) -> None:
    row = UNBATCHED[kind]
    cls = getattr(diffusers, row.pipeline(row.tasks[0]) or "")
    takes = inspect.signature(cls.__call__).parameters
    name = "guidance_scale"
    if name not in takes or takes[name].default is None:
        name = "true_cfg_scale"

    assert row.steps == takes["num_inference_steps"].default
    if name in takes:
        assert row.guidance == takes[name].default


def test_pipelines_that_fetch_a_second_model_are_left_out() -> None:
    for kind in set(UNBATCHED) - OPTIONAL:
        row = UNBATCHED[kind]
        for task in row.tasks:
            assert not getattr(diffusers, row.pipeline(task) or "")._load_connected_pipes
