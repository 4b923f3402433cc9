"""Which models a box has, what each takes, and what cannot be used and why."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.requests import MODEL_TASKS, Task
from tests.catalog.conftest import checkpoint, edit, folder, tensors_of, write

KINDS = {
    "sd1": ("sd", list(MODEL_TASKS), 512, 11),
    "sd1-inpaint": ("sd", [Task.INPAINT], 512, 11),
    "sd2-512": ("sd", list(MODEL_TASKS), 512, 11),
    "sd2-768": ("sd", list(MODEL_TASKS), 768, 11),
    "sd2-inpaint": ("sd", [Task.INPAINT], 512, 11),
    "sdxl": ("sdxl", list(MODEL_TASKS), 1024, 10),
    "sdxl-inpaint": ("sdxl", [Task.INPAINT], 1024, 10),
    "sdxl-refiner": ("sdxl", [Task.IMG2IMG, Task.INPAINT], 1024, 11),
}


def names(catalog: ModelCatalog) -> list[str]:
    return [info.name for info in catalog.infos()]


# --- what there is -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_each_kind_says_what_it_can_do(
    box: Path, catalog: ModelCatalog, kind: str
) -> None:
    path = folder(box, kind=kind)

    entry = catalog.find("model")

    assert (entry.path, entry.config, entry.layout) == (path, path, "folder")
    assert_kind(entry, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_each_kind_says_what_it_can_do(
    box: Path, catalog: ModelCatalog, kind: str
) -> None:
    epsilon = {"modelspec.prediction_type": "epsilon"} if kind == "sd2-512" else {}
    path = write(box / "models" / "model.safetensors", tensors_of(kind), **epsilon)

    entry = catalog.find("model")

    assert (entry.path, entry.config.name, entry.layout) == (path, kind, "file")
    assert_kind(entry, kind)


def assert_kind(entry: ModelEntry, kind: str) -> None:
    family, tasks, side, layers = KINDS[kind]
    info = entry.info
    assert info.family == family
    assert list(info.tasks) == tasks
    assert (info.defaults.width, info.defaults.height) == (side, side)
    assert info.limits.multiple_of == 8
    assert info.limits.max_clip_skip == layers


def test_the_size_of_a_second_version_is_told_by_its_maker(
    box: Path, catalog: ModelCatalog
) -> None:
    """Their tensors are alike; without a word it is the larger one, as with diffusers."""
    models = box / "models"
    write(models / "silent.safetensors", tensors_of("sd2"))
    write(
        models / "small.safetensors",
        tensors_of("sd2"),
        **{"modelspec.architecture": "stable-diffusion-v2-512"},
    )
    checkpoint(box, "noted", "sd2", config="sd2-512")

    configs = {entry.info.name: entry.config.name for entry in catalog.entries()}

    assert configs["silent"] == "sd2-768"
    assert configs["small"] == configs["noted"] == "sd2-512"


def test_a_checkpoint_marked_for_v_prediction_is_sampled_so(
    box: Path, catalog: ModelCatalog
) -> None:
    marks: dict[str, tuple[int, ...]] = {"v_pred": (0,), "ztsnr": (0,)}
    write(box / "models" / "model.safetensors", tensors_of("sdxl") | marks)

    expected = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert catalog.find("model").scheduler == expected


@pytest.mark.parametrize(
    ("key", "said"),
    [
        *(
            ("modelspec.prediction_type", said)
            for said in ("v", "V", "v_prediction", "v-prediction")
        ),
        *(
            ("modelspec.prediction_type", said)
            for said in ("vpred", "velocity", "v-parameterization")
        ),
        ("prediction_type", "v_prediction"),
        ("modelspec.predict_key", "v"),
        ("ss_v_parameterization", "True"),
    ],
)
def test_v_prediction_is_known_in_all_words_for_it(
    box: Path, catalog: ModelCatalog, key: str, said: str
) -> None:
    write(box / "models" / "model.safetensors", tensors_of("sd1"), **{key: said})

    assert catalog.find("model").scheduler == {"prediction_type": "v_prediction"}


@pytest.mark.parametrize("said", ["epsilon", "eps", "", "something"])
def test_what_does_not_say_v_prediction_is_sampled_as_its_kind_is(
    box: Path, catalog: ModelCatalog, said: str
) -> None:
    about = {"modelspec.prediction_type": said, "ss_v_parameterization": "False"}
    write(box / "models" / "model.safetensors", tensors_of("sd1"), **about)

    assert catalog.find("model").scheduler == {}


def test_zero_terminal_noise_is_told_by_metadata_too(box: Path, catalog: ModelCatalog) -> None:
    about = {"prediction_type": "v", "ss_zero_terminal_snr": "True"}
    write(box / "models" / "model.safetensors", tensors_of("sdxl"), **about)

    expected = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert catalog.find("model").scheduler == expected


def test_a_latent_consistency_model_is_known_by_its_unet(box: Path, catalog: ModelCatalog) -> None:
    edit(folder(box) / "unet" / "config.json", time_cond_proj_dim=256)

    defaults = catalog.find("model").info.defaults

    assert (defaults.scheduler, defaults.num_inference_steps) == ("lcm", 4)


def test_notes_have_the_last_word(box: Path, catalog: ModelCatalog) -> None:
    defaults = {"num_inference_steps": 1, "guidance_scale": 0.0, "scheduler": "euler_a_sgm_uniform"}
    checkpoint(
        box,
        kind="sdxl",
        description="one step",
        defaults=defaults,
        limits={"max_side": 1536},
        prediction_type="epsilon",
    )

    entry = catalog.find("model")

    assert entry.info.description == "one step"
    assert entry.info.defaults.model_dump() == {"width": 1024, "height": 1024, **defaults}
    assert (entry.info.limits.max_side, entry.info.limits.min_side) == (1536, 256)
    assert entry.scheduler == {"prediction_type": "epsilon"}


def test_notes_say_what_to_know_before_using_a_model(box: Path, catalog: ModelCatalog) -> None:
    size = {"width": 512, "height": 768}
    checkpoint(box, note="for portraits", examples=["a face"], sizes=[size])

    info = catalog.find("model").info

    assert (info.note, info.examples) == ("for portraits", ("a face",))
    assert [each.model_dump() for each in info.sizes] == [size]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a cat in the rain", False),
        ("three Cats, 4k", False),
        ("two foxes", False),
        ("", False),
        ("512 ⭐", False),
        ("a spaceship over Hanoi", True),
        ("phở", True),
    ],
)
def test_a_prompt_without_a_word_that_a_small_model_knows_is_noted(
    box: Path, catalog: ModelCatalog, prompt: str, told: bool
) -> None:
    checkpoint(box, words="cat fox")

    assert bool(catalog.find("model").notes_on(prompt)) is told


def test_a_large_model_notes_no_words(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box)

    assert catalog.find("model").notes_on("a spaceship over Hanoi") == []


def test_the_demo_model_knows_its_own_examples(catalog: ModelCatalog) -> None:
    entry = catalog.find("tintype")

    assert entry.info.note.startswith("Demo model")
    assert entry.info.examples
    assert not any(entry.notes_on(prompt) for prompt in entry.info.examples)


def test_a_model_dropped_into_the_folder_is_there_at_once(box: Path, catalog: ModelCatalog) -> None:
    assert names(catalog) == ["tintype"]
    path = checkpoint(box)
    assert names(catalog) == ["tintype", "model"]
    write(path, tensors_of("sdxl-inpaint") | {"longer": (8,)})
    assert catalog.find("model").info.tasks == (Task.INPAINT,)
    path.unlink()
    assert names(catalog) == ["tintype"]


def test_a_change_of_any_file_of_a_model_is_seen_at_once(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box)
    assert catalog.find("model").info.tasks == MODEL_TASKS

    edit(path / "unet" / "config.json", in_channels=9)
    assert catalog.find("model").info.tasks == (Task.INPAINT,)
    weights = (path / "unet" / "diffusion_pytorch_model.safetensors").rename(box / "aside")
    assert [broken.name for broken in catalog.broken()] == ["model"]
    weights.rename(path / "unet" / "diffusion_pytorch_model.safetensors")
    assert catalog.find("model").info.description == ""
    (path / "darkroom.json").write_text('{"description": "ours", "vae": "better"}')
    assert [broken.name for broken in catalog.broken()] == ["model"]
    write(box / "vae" / "better.safetensors", {"x": (1,)})
    assert catalog.find("model").info.description == "ours"
    (path / "vae").rename(box / "vae" / "another")
    assert [broken.name for broken in catalog.broken()] == ["model"]


def test_a_link_that_led_nowhere_is_followed_once_it_leads_somewhere(
    box: Path, catalog: ModelCatalog
) -> None:
    index = folder(box) / "model_index.json"
    text = index.read_text()
    index.unlink()
    index.symlink_to("nowhere")
    assert [broken.name for broken in catalog.broken()] == ["model"]

    (index.parent / "nowhere").write_text(text)

    assert catalog.find("model").info.tasks == MODEL_TASKS


def test_weights_may_have_a_variant_for_a_name(box: Path, catalog: ModelCatalog) -> None:
    path = folder(box, kind="sdxl")
    for file in path.glob("*/*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))

    assert catalog.find("model").variant == "fp16"


def test_plain_weights_go_before_variants(box: Path, catalog: ModelCatalog) -> None:
    file = folder(box) / "unet" / "diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "non_ema"):
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))

    assert catalog.find("model").variant is None


def test_a_vae_is_found_by_its_name_in_the_notes(box: Path, catalog: ModelCatalog) -> None:
    better = write(box / "vae" / "better.safetensors", {"x": (1,)})
    small = box / "vae" / "small"
    small.mkdir()
    (small / "config.json").write_text("{}")
    checkpoint(box, vae="better", tiny_vae="small")

    entry = catalog.find("model")

    assert (entry.vae, entry.tiny_vae) == (better, small)


@pytest.mark.parametrize("length", [0x280, 0x33C])
def test_the_length_of_a_header_is_not_taken_for_something_else(
    box: Path, catalog: ModelCatalog, length: int
) -> None:
    """A safetensors file begins with that number; pickles begin with 80 02, web pages with <."""
    whole = write(box / "models" / "model.safetensors", tensors_of("sd1")).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size].rstrip().ljust(length)
    padded = length.to_bytes(8, "little") + header + whole[8 + size :]
    (box / "models" / "model.safetensors").write_bytes(padded)

    assert catalog.find("model").info.family == "sd"


def test_what_is_no_model_is_passed_over(box: Path, catalog: ModelCatalog) -> None:
    models = box / "models"
    checkpoint(box, description="x")
    (models / "model.preview.png").write_bytes(b"")
    (models / ".pull-model").mkdir()
    (models / "model.ckpt").write_bytes(b"PK")  # the safe copy is there
    (models / "README.md").write_text("mine")

    assert names(catalog) == ["tintype", "model"]
    assert catalog.broken() == ()


def test_reading_models_needs_no_torch(box: Path) -> None:
    checkpoint(box)
    folder(box, "other")
    code = (
        "import sys; from pathlib import Path; from darkroom.catalog.models import ModelCatalog;"
        f"found = ModelCatalog(Path({str(box / 'models')!r}), 'tintype').infos();"
        "print(len(found), 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["3", "False"]


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../models/model", "model/", "./model", "/etc", "configs", ""])
def test_names_are_compared_and_never_paths(box: Path, catalog: ModelCatalog, name: str) -> None:
    checkpoint(box)

    if name:
        with pytest.raises(UnknownModelError, match="there is no model"):
            catalog.find(name)
    else:
        assert catalog.find(name).info.name == "tintype"  # the default one


def test_an_unknown_name_is_met_with_a_hint(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box, "dreamshaper")

    with pytest.raises(UnknownModelError, match="did you mean dreamshaper"):
        catalog.find("dreamshapr")


def test_of_two_with_one_name_the_folder_has_it(box: Path, catalog: ModelCatalog) -> None:
    folder(box)
    checkpoint(box)

    assert catalog.find("model").layout == "folder"
    (broken,) = catalog.broken()
    assert broken.name == "model.safetensors"
    assert "another model has the name" in broken.reason


# --- configurations of the owner's -----------------------------------------------------------


def test_a_configuration_of_the_owners_describes_an_unusual_file(
    box: Path, catalog: ModelCatalog
) -> None:
    mine = folder(box, "elsewhere").rename(box / "configs" / "mine")
    edit(mine / "unet" / "config.json", sample_size=40)
    checkpoint(box, config="mine")

    entry = catalog.find("model")

    assert entry.config == mine
    assert entry.info.defaults.width == 320


def test_the_models_of_this_box_are_json_for_people(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box)

    listed = json.loads(catalog.find("model").info.model_dump_json())

    assert listed["tasks"] == ["txt2img", "img2img", "inpaint"]
    assert str(box) not in json.dumps(listed)
