"""Which models a box has, what each takes, and what cannot be used and why."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog.models import BrokenModelError, ModelCatalog, ModelEntry, UnknownModelError
from darkroom.schemas import Task
from tests.catalog.conftest import checkpoint, edit, folder, tensors_of, write

KINDS = {
    "sd1": ("sd", list(Task), 512, 11),
    "sd1-inpaint": ("sd", [Task.INPAINT], 512, 11),
    "sd2-512": ("sd", list(Task), 512, 11),
    "sd2-768": ("sd", list(Task), 768, 11),
    "sd2-inpaint": ("sd", [Task.INPAINT], 512, 11),
    "sdxl": ("sdxl", list(Task), 1024, 10),
    "sdxl-inpaint": ("sdxl", [Task.INPAINT], 1024, 10),
    "sdxl-refiner": ("sdxl", [Task.IMG2IMG, Task.INPAINT], 1024, 11),
}


def names(catalog: ModelCatalog) -> list[str]:
    return [info.name for info in catalog.infos()]


def reason(catalog: ModelCatalog, name: str = "model") -> str:
    """Why the one broken model is; asking for it says so too, and the others stay."""
    (broken,) = catalog.broken()
    assert broken.name == name
    assert "tintype" in names(catalog)
    assert name not in names(catalog)
    with pytest.raises(BrokenModelError) as raised:
        catalog.find(name)
    assert broken.reason in str(raised.value)
    return broken.reason


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


def test_a_model_dropped_into_the_folder_is_there_at_once(box: Path, catalog: ModelCatalog) -> None:
    assert names(catalog) == ["tintype"]
    path = checkpoint(box)
    assert names(catalog) == ["tintype", "model"]
    write(path, tensors_of("sdxl-inpaint") | {"longer": (8,)})
    assert catalog.find("model").info.tasks == (Task.INPAINT,)
    path.unlink()
    assert names(catalog) == ["tintype"]


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


# --- what cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickled_checkpoint_is_refused(box: Path, catalog: ModelCatalog, suffix: str) -> None:
    (box / "models" / f"model{suffix}").write_bytes(b"PK\x03\x04")

    assert "could run code. Convert it to safetensors" in reason(catalog)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut short or damaged"),
        (b"\xff" * 100, "cut short or damaged"),
        ((5).to_bytes(8, "little") + b'{"a":', "cut short or damaged"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 100, "pickled checkpoint under another name"),
        (b"<!DOCTYPE html><title>Login</title>", "web page"),
    ],
)
def test_what_only_calls_itself_safetensors_is_refused(
    box: Path, catalog: ModelCatalog, content: bytes, words: str
) -> None:
    (box / "models" / "model.safetensors").write_bytes(content)

    assert words in reason(catalog)


def test_a_file_cut_short_is_refused(box: Path, catalog: ModelCatalog) -> None:
    path = checkpoint(box)
    path.write_bytes(path.read_bytes()[:-1])

    assert "cut short" in reason(catalog)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("lora_unet_down_blocks_0_attentions_0.lora_down.weight", "a LoRA"),
        ("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "a LoRA"),
        ("emb_params", "a textual inversion"),
        ("clip_l", "a textual inversion"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("model.layers.0.self_attn.q_proj.weight", "a language model"),
        ("double_blocks.0.img_attn.proj.weight", "from a diffusers folder only"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight", "from a diffusers fol"),
        ("encoder.down.0.block.0.conv1.weight", "belongs in the folder vae"),
        ("down_blocks.0.resnets.0.conv1.weight", "without the rest"),
        ("model.diffusion_model.stem.weight", "is not Stable Diffusion"),
        ("something.else", "no Stable Diffusion checkpoint"),
    ],
)
def test_a_foreign_file_is_named(box: Path, catalog: ModelCatalog, tensor: str, words: str) -> None:
    write(box / "models" / "model.safetensors", {tensor: (1,)})

    assert words in reason(catalog)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("sd1", {"model.diffusion_model.input_blocks.0.0.weight": (2, 8, 3, 3)}, "picture to edit"),
        ("sd2", {"model.diffusion_model.input_blocks.0.0.weight": (2, 5, 3, 3)}, "depth"),
        ("sd1", {"model.diffusion_model.input_blocks.0.0.weight": (2,)}, "damaged"),
        ("sd2", {"model.diffusion_model.label_emb.0.0.weight": (1,)}, "unCLIP"),
        ("sdxl", {"edm_mean": (1,)}, "EDM"),
    ],
)
def test_relatives_that_need_more_than_words_are_refused(
    box: Path, catalog: ModelCatalog, kind: str, change: dict[str, Any], words: str
) -> None:
    write(box / "models" / "model.safetensors", tensors_of(kind) | change)

    assert words in reason(catalog)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("cond_stage_model.", "no text encoder"), ("first_stage_model.", "no VAE")],
)
def test_half_a_checkpoint_is_refused(
    box: Path, catalog: ModelCatalog, missing: str, words: str
) -> None:
    kept = {n: s for n, s in tensors_of("sd1").items() if not n.startswith(missing)}
    write(box / "models" / "model.safetensors", kept)

    assert words in reason(catalog)


def without_index(path: Path) -> None:
    (path / "model_index.json").unlink()


def with_checkpoints_inside(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()
    write(path / "v1.safetensors", tensors_of("sd1"))


def with_unreadable_index(path: Path) -> None:
    (path / "model_index.json").write_text("{")


def with_binary_config(path: Path) -> None:
    (path / "unet" / "config.json").write_bytes(b"\xff\xfe")


def with_a_list_for_config(path: Path) -> None:
    (path / "vae" / "config.json").write_text("[]")


def without_the_unet(path: Path) -> None:
    shutil.rmtree(path / "unet")


def without_a_tokenizer(path: Path) -> None:
    shutil.rmtree(path / "tokenizer")


def without_a_vocabulary(path: Path) -> None:
    (path / "tokenizer" / "vocab.json").unlink()


def without_weights(path: Path) -> None:
    (path / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def with_pickled_weights(path: Path) -> None:
    weights = path / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))


def with_a_cut_part(path: Path) -> None:
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def with_a_shard_missing(path: Path) -> None:
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))


def with_variants_that_do_not_match(path: Path) -> None:
    for part, variant in (("unet", "fp16"), ("vae", "bf16")):
        weights = path / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))


def with_code_in_a_part(path: Path) -> None:
    (path / "unet" / "mine.py").write_text("raise SystemExit")
    edit(path / "model_index.json", unet=["mine", "Mine"])


def with_a_pipeline_of_its_own(path: Path) -> None:
    edit(path / "model_index.json", _class_name=["pipeline", "Mine"])


def with_a_part_elsewhere(path: Path) -> None:
    edit(path / "model_index.json", **{"../../vae": ["diffusers", "AutoencoderKL"]})


def of_an_unknown_class(path: Path) -> None:
    edit(path / "model_index.json", _class_name="StableVideoDiffusionPipeline")


def of_a_control_net(path: Path) -> None:
    edit(path / "model_index.json", _class_name="StableDiffusionControlNetPipeline")


def with_eight_channels(path: Path) -> None:
    edit(path / "unet" / "config.json", in_channels=8)


def with_nonsense_for_numbers(path: Path) -> None:
    edit(path / "text_encoder" / "config.json", num_hidden_layers="many")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_index, "has no model_index.json"),
        (with_checkpoints_inside, "a folder of checkpoints (v1.safetensors …)"),
        (with_unreadable_index, "model/model_index.json is not JSON"),
        (with_binary_config, "unet/config.json is not JSON"),
        (with_a_list_for_config, "vae/config.json does not hold a JSON object"),
        (without_the_unet, "unet/config.json is missing"),
        (without_a_tokenizer, "its part tokenizer is missing"),
        (without_a_vocabulary, "its part tokenizer lacks its vocabulary"),
        (without_weights, "its part vae lacks its weights"),
        (with_pickled_weights, "its part text_encoder is pickled (pytorch_model.bin)"),
        (with_a_cut_part, "its part unet: diffusion_pytorch_model.safetensors is cut short"),
        (with_a_shard_missing, "its part unet lacks some of its shards"),
        (with_variants_that_do_not_match, "no variant common to all"),
        (with_code_in_a_part, "its part unet is code of its own"),
        (with_a_pipeline_of_its_own, "its pipeline is code of its own"),
        (with_a_part_elsewhere, "its part ../../vae is missing"),
        (of_an_unknown_class, "StableVideoDiffusionPipeline is not served"),
        (of_a_control_net, "needs a control picture"),
        (with_eight_channels, "reads a picture to edit"),
        (with_nonsense_for_numbers, "not as diffusers writes it"),
    ],
)
def test_a_broken_folder_is_named_with_its_reason(
    box: Path, catalog: ModelCatalog, damage: Any, words: str
) -> None:
    damage(folder(box))

    assert words in reason(catalog)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"guidance": 3}, "guidance is no key of ours"),
        ({"defaults": {"num_inference_steps": 0}}, "defaults.num_inference_steps"),
        ({"defaults": {"scheduler": "dpmpp_2m_karas"}}, "did you mean dpmpp_2m_karras"),
        ({"limits": {"max_side": "large"}}, "limits.max_side"),
        ({"prediction_type": "v"}, "prediction_type"),
        ({"vae": "none"}, "the VAE 'none'"),
        ({"vae": "../models/model"}, "the VAE '../models/model'"),
        ({"config": "none"}, "the configuration 'none'"),
        ({"config": "../configs/sd1"}, "the configuration '../configs/sd1'"),
    ],
)
def test_wrong_notes_are_named(
    box: Path, catalog: ModelCatalog, notes: dict[str, Any], words: str
) -> None:
    checkpoint(box, **notes)

    assert words in reason(catalog)


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_notes_that_are_not_json_are_named(box: Path, catalog: ModelCatalog, content: str) -> None:
    checkpoint(box, description="x").with_suffix(".json").write_text(content)

    assert "model.json" in reason(catalog)


def test_a_vae_that_is_cut_short_breaks_the_model_that_wants_it(
    box: Path, catalog: ModelCatalog
) -> None:
    vae = write(box / "vae" / "better.safetensors", {"x": (8,)})
    vae.write_bytes(vae.read_bytes()[:-1])
    checkpoint(box, vae="better")

    assert "better.safetensors is cut short" in reason(catalog)


def test_a_link_to_a_disk_that_is_away_is_named(box: Path, catalog: ModelCatalog) -> None:
    (box / "models" / "model.safetensors").symlink_to(box / "away" / "model.safetensors")

    assert "cannot be read: No such file" in reason(catalog)


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
