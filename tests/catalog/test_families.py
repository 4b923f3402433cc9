"""The registry of families, held against the diffusers that is installed."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
from diffusers.pipelines import auto_pipeline
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor

from darkroom.catalog import families
from darkroom.catalog.families import FAMILIES, UNETS, Family, Guidance
from darkroom.catalog.lora_kinds import TITLES, UNET
from darkroom.catalog.model_spec import ModelSpec
from darkroom.requests import REQUESTS, RESOLVED, Task, Txt2Img
from darkroom.responses import ModelDefaults, ModelLimits

MAPPINGS = {
    Task.TXT2IMG: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    Task.IMG2IMG: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    Task.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
# diffusers knows these when sentencepiece is installed.
OPTIONAL = {"kolors", "kolors-pag"}
KINDS = sorted({kind for mapping in MAPPINGS.values() for kind in mapping})
PRESENT = sorted(set(FAMILIES) - OPTIONAL)
# Rows of pipelines that draw by themselves, and each of their classes.
OTHERS = [kind for kind in PRESENT if FAMILIES[kind] not in UNETS]
CALLS = [(kind, task) for kind in OTHERS for task in FAMILIES[kind].tasks]


def pipeline(row: Family, task: Task) -> Any:
    return getattr(diffusers, row.pipeline(task) or "")


def cuts(row: Family) -> bool:
    """Whether its pipeline cuts prompts: by what it is given, or by a number of its own."""
    cls = pipeline(row, row.tasks[0])
    body = inspect.getsource(cls.encode_prompt).partition("max_sequence_length:")[2]
    own = "self.max_sequence_length" in inspect.getsource(cls)
    return own or "max_sequence_length" in body


def parameters(row: Family, task: Task) -> Any:
    return inspect.signature(pipeline(row, task).__call__).parameters


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_diffusers_knows_is_served_or_left_out_with_a_reason(kind: str) -> None:
    theirs = {task: mapping.get(kind) for task, mapping in MAPPINGS.items()}
    names = {task: cls and cls.__name__ for task, cls in theirs.items()}

    if kind in FAMILIES:
        row = FAMILIES[kind]
        found = {task: row.pipeline(task) for task in MAPPINGS}
        if row.edit is not None:  # diffusers calls it img2img, though there is no strength
            assert found[Task.IMG2IMG] is None
            found[Task.IMG2IMG] = row.pipeline(Task.EDIT)
        assert found == names
    else:
        for name in filter(None, names.values()):
            known = families.find(name) is not None or name.startswith("LatentConsistency")
            assert known or "AutoPipeline" not in families.why_not(name), name


def test_no_row_is_made_up() -> None:
    assert set(FAMILIES) <= {*KINDS, *OPTIONAL}
    for row in FAMILIES.values():
        assert all(hasattr(diffusers, row.pipeline(task) or "") for task in row.tasks)


@pytest.mark.parametrize("kind", PRESENT)
def test_families_take_loras_where_their_pipelines_have_a_loader(kind: str) -> None:
    row = FAMILIES[kind]

    assert row.loras in (None, UNET, *TITLES)
    for task in row.tasks if row.loras else ():
        assert hasattr(pipeline(row, task), "lora_state_dict")


@pytest.mark.parametrize("kind", PRESENT)
def test_families_that_edit_take_pictures(kind: str) -> None:
    row = FAMILIES[kind]

    assert (row.edit is not None) == (row.max_references > 0)
    if row.edit is not None:
        assert "image" in parameters(row, Task.EDIT)


@pytest.mark.parametrize("kind", PRESENT)
def test_references_have_the_sizes_that_the_pipeline_takes(kind: str) -> None:
    row = FAMILIES[kind]
    if row.edit is None:
        return
    checks = "image_processor.check_image_input" in inspect.getsource(pipeline(row, Task.EDIT))
    own = inspect.signature(Flux2ImageProcessor.check_image_input).parameters
    expected = (
        (own["min_side_length"].default, own["max_aspect_ratio"].default)
        if checks
        else (1, math.inf)
    )

    assert (row.reference_side, row.reference_ratio) == expected
    for size, taken in (((63, 64), not checks), ((64, 512), True), ((64, 513), not checks)):
        assert (row.why_no_reference(*size) is None) == taken


def test_what_a_network_sees_beside_its_picture_is_counted() -> None:
    klein, kontext = FAMILIES["flux2-klein"], FAMILIES["flux-kontext"]
    sizes = [(512, 512), (4096, 1024)]

    assert klein.shown_pixels(Task.EDIT, sizes) == 512 * 512 + families.MEGAPIXEL
    assert kontext.shown_pixels(Task.EDIT, sizes[:1]) == families.MEGAPIXEL
    assert klein.shown_pixels(Task.TXT2IMG, []) == 0
    assert FAMILIES["flux"].shown_pixels(Task.IMG2IMG, sizes[:1]) == 0
    edit = FAMILIES["qwenimage-edit"]
    assert edit.shown_pixels(Task.INPAINT, [(64, 64), (64, 64)]) == families.MEGAPIXEL


@pytest.mark.parametrize("kind", PRESENT)
def test_a_class_of_any_task_finds_its_row(kind: str) -> None:
    for task in FAMILIES[kind].tasks:
        assert families.find(FAMILIES[kind].pipeline(task) or "") is FAMILIES[kind]


def test_names_of_families_are_told_apart() -> None:
    names = [row.name for row in FAMILIES.values() if row.name != families.WHOLE]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", OTHERS)
def test_defaults_are_those_of_the_pipeline(kind: str) -> None:
    row = FAMILIES[kind]
    takes = parameters(row, row.tasks[0])
    name = "true_cfg_scale" if row.guidance is Guidance.TRUE_CFG else "guidance_scale"

    assert row.steps == takes["num_inference_steps"].default
    assert takes[name].default in (row.guidance_scale, None)
    tokens = takes.get("max_sequence_length")
    assert row.max_tokens == (tokens.default if tokens and cuts(row) else None)
    assert set(row.arguments) <= set(takes)


@pytest.mark.parametrize(("kind", "task"), CALLS)
def test_fields_are_taken_where_the_pipeline_has_a_word_for_them(kind: str, task: Task) -> None:
    row = FAMILIES[kind]
    has = parameters(row, task)
    asked = REQUESTS[task].model_fields

    for field in ("negative_prompt", "strength"):
        assert (field in row.takes and field in asked) == (field in has), field
    if "padding_mask_crop" in row.takes and "padding_mask_crop" in asked:
        assert "padding_mask_crop" in has
    assert not row.takes & {"loras", "latent_resize", "masked_content"}
    assert row.area_argument is None or row.area_argument in has


@pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind in OTHERS for task in FAMILIES[kind].tasks]
)
def test_a_call_has_no_words_that_the_pipeline_does_not_know(kind: str, task: Task) -> None:
    row = FAMILIES[kind]
    fields = {"image": "image:x", "mask_image": "image:x", "references": ("image:x",)}
    given: dict[str, Any] = {
        name: value for name, value in fields.items() if name in RESOLVED[task].model_fields
    }
    request = RESOLVED[task](
        prompt="a fox",
        negative_prompt="ugly",
        width=64,
        height=64,
        num_inference_steps=4,
        guidance_scale=4.0,
        seed=1,
        scheduler="native",
        model="model",
        **given,
    )
    assert isinstance(request, Txt2Img)
    spec = ModelSpec(
        family=row,
        pipelines={},
        pipeline="",
        defaults=ModelDefaults.model_construct(),
        limits=ModelLimits.model_construct(),
        guidance=row.guidance,
        rescales=False,
        latent_channels=None,
    )

    assert set(spec.call_arguments(request)) <= set(parameters(row, task))


@pytest.mark.parametrize(("kind", "task"), CALLS)
@pytest.mark.parametrize("negative", ["", "ugly"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_arguments_of_guidance_are_words_of_the_pipeline(
    kind: str, task: Task, negative: str, scale: float
) -> None:
    row = FAMILIES[kind]
    negative = negative if "negative_prompt" in row.takes else ""

    arguments = row.guidance.arguments(scale, negative)

    assert set(arguments) <= set(parameters(row, task))


GUIDES = {
    Guidance.CFG: r"guidance_scale > 1|gw\[",  # ideogram4 weighs with 1 as the prompt alone
    Guidance.CFG_ADDED: r"guidance_scale > 0",
    Guidance.TRUE_CFG: r"true_cfg_scale > 1 and has_neg_prompt",
    Guidance.EMBEDDED: r"guidance_embeds|guidance = torch.full",
}


@pytest.mark.parametrize(("kind", "task"), CALLS)
def test_guidance_is_on_where_the_pipeline_says_so(kind: str, task: Task) -> None:
    cls = pipeline(FAMILIES[kind], task)
    if kind == "glm_image":
        pytest.importorskip("transformers")
    source = inspect.getsource(cls)

    assert re.search(GUIDES[FAMILIES[kind].guidance], source)
    added = FAMILIES[kind].guidance is Guidance.CFG_ADDED
    assert bool(re.search(r"guidance_scale > 0", source)) == added


@pytest.mark.parametrize(
    ("guidance", "scale", "negative", "arguments"),
    [
        (Guidance.CFG, 4.0, "", {"guidance_scale": 4.0}),
        (Guidance.CFG, 4.0, "ugly", {"guidance_scale": 4.0, "negative_prompt": "ugly"}),
        (Guidance.CFG_ADDED, 4.0, "", {"guidance_scale": 4.0}),
        (Guidance.CFG_ADDED, 1.0, "", {"guidance_scale": 0.0}),
        (Guidance.CFG_ADDED, 0.5, "", {"guidance_scale": 0.0}),
        (Guidance.TRUE_CFG, 4.0, "", {"true_cfg_scale": 4.0, "negative_prompt": " "}),
        (Guidance.TRUE_CFG, 4.0, "ugly", {"true_cfg_scale": 4.0, "negative_prompt": "ugly"}),
        (Guidance.TRUE_CFG, 1.0, "ugly", {"true_cfg_scale": 1.0}),
        (Guidance.EMBEDDED, 3.5, "", {"guidance_scale": 3.5}),
        (Guidance.EMBEDDED, 1.0, "ugly", {"guidance_scale": 1.0}),
        (
            Guidance.EMBEDDED,
            3.5,
            "ugly",
            {
                "guidance_scale": 3.5,
                "true_cfg_scale": families.NEGATIVE_SCALE,
                "negative_prompt": "ugly",
            },
        ),
        (Guidance.NONE, 4.0, "ugly", {"guidance_scale": 1.0}),
    ],
)
def test_a_scale_of_1_or_less_turns_guidance_off(
    guidance: Guidance, scale: float, negative: str, arguments: dict[str, Any]
) -> None:
    assert guidance.arguments(scale, negative) == arguments


class _Scheduler:
    """What `get_timesteps` reads of a scheduler."""

    order = 1

    def __init__(self, steps: int) -> None:
        self.timesteps = list(range(steps))

    def set_begin_index(self, index: int) -> None:
        pass


@pytest.mark.parametrize(("kind", "task"), [call for call in CALLS if call[1] is not Task.TXT2IMG])
def test_steps_of_a_strength_are_counted_as_the_pipeline_does(kind: str, task: Task) -> None:
    row = FAMILIES[kind]
    if "strength" not in parameters(row, task):
        pytest.skip("it has no strength")
    get_timesteps: Callable[..., Any] = pipeline(row, task).get_timesteps
    more = (
        {"denoising_start": None}
        if "denoising_start" in str(inspect.signature(get_timesteps))
        else {}
    )

    for steps, strength in [(4, 0.3), (4, 0.1), (10, 0.75), (30, 0.1), (28, 1.0), (7, 0.05)]:
        self = type("Pipeline", (), {"scheduler": _Scheduler(steps)})()
        timesteps, count = get_timesteps(self, steps, strength, "cpu", **more)
        assert row.steps_done(steps, strength) == len(timesteps) == count


@pytest.mark.parametrize("kind", PRESENT)
def test_pipelines_that_fetch_a_second_model_are_left_out(kind: str) -> None:
    for task in FAMILIES[kind].tasks:
        assert not pipeline(FAMILIES[kind], task)._load_connected_pipes
