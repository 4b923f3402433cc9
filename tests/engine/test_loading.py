"""Loading: folders, single files, VAEs; and the one error for whatever is wrong with them."""

import itertools
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import ldm
from darkroom.catalog.models import ModelCatalog
from darkroom.engine import tokenizers
from darkroom.engine.loading import (
    ModelLoadError,
    load_pipeline,
    load_tiny_vae,
)
from darkroom.engine.model_manager import pick_device, pick_dtype
from darkroom.engine.sample import build_scheduler
from darkroom.engine.tokenizers import clip_tokenizer
from tests.effort import sampled
from tests.engine import tiny, tiny_families

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"
SINGLE_FILES = ("sd1", "sd1_inpaint", "sd2", "sdxl", "sdxl_inpaint", "sdxl_refiner")


def catalog(box: Path) -> ModelCatalog:
    return ModelCatalog(box / "models", "tintype")


def load(box: Path, name: str = "model") -> Any:
    return load_pipeline(catalog(box).find(name), CPU, torch.float32)


def write_notes(path: Path, **notes: Any) -> None:
    path.write_text(json.dumps(notes))


def as_single_file(folder: Path, box: Path, **notes: Any) -> None:
    """The folder's checkpoint as `model`, described by a configuration of the owner's."""
    config = box / "configs" / "mine"
    shutil.copytree(folder, config, ignore=shutil.ignore_patterns("*.safetensors"))
    ldm.single_file(folder, box / "models" / "model.safetensors")
    write_notes(box / "models" / "model.json", config="mine", **notes)


def tensors(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.state_dict().items()
    }


def assert_same(one: Any, other: Any) -> None:
    """The same class with the same weights and the same noise."""
    ours, theirs = tensors(one), tensors(other)
    assert type(one) is type(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(one.scheduler.alphas_cumprod, other.scheduler.alphas_cumprod)
    assert one.scheduler.config.prediction_type == other.scheduler.config.prediction_type


# --- folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampled(sorted(tiny.BUILDERS), one_in=4))
def test_a_folder_is_loaded_as_diffusers_loads_it(
    box: Path, built: Callable[[str], Path], name: str
) -> None:
    folder = built(name)
    shutil.copytree(folder, box / "models" / "model")
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}

    ours, theirs = load(box), DiffusionPipeline.from_pretrained(folder, **absent)

    assert type(ours) is type(theirs)
    found = tensors(ours)
    assert all(torch.equal(found[key], value) for key, value in tensors(theirs).items())


def test_fp16_files_are_found_where_plain_ones_are_missing(
    box: Path, built: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    for file in (UNET, ENCODER):
        path = folder / file
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))

    assert_same(load(box), DiffusionPipeline.from_pretrained(built("sd1")))


def test_weights_may_lie_in_shards(box: Path, built: Callable[[str], Path]) -> None:
    whole = DiffusionPipeline.from_pretrained(built("sdxl"))
    whole.save_pretrained(box / "models" / "model", max_shard_size="500KB")
    assert len(list((box / "models" / "model" / "unet").glob("*.safetensors"))) > 1

    assert_same(load(box), whole)


def test_parts_that_are_never_used_are_not_loaded(box: Path, built: Callable[[str], Path]) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    write_notes(folder / "model_index.json", **index)

    pipeline = load(box)

    assert pipeline.safety_checker is None
    assert pipeline.feature_extractor is None


# --- single files --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampled(SINGLE_FILES, one_in=3))
def test_a_single_file_is_the_folder_that_it_was_made_of(
    box: Path, built: Callable[[str], Path], name: str
) -> None:
    as_single_file(built(name), box)

    assert_same(load(box), load_pipeline_of(built(name)))


def load_pipeline_of(folder: Path) -> Any:
    entry = ModelCatalog(folder.parent, "tintype").find(folder.name)
    return load_pipeline(entry, CPU, torch.float32)


def test_a_single_file_may_be_loaded_in_half_precision(
    box: Path, built: Callable[[str], Path]
) -> None:
    as_single_file(built("sdxl"), box)

    pipeline = load_pipeline(catalog(box).find("model"), CPU, torch.float16)

    assert {value.dtype for value in tensors(pipeline).values()} <= {torch.float16, torch.int64}


@pytest.mark.parametrize(
    ("name", "layout"),
    sampled(itertools.product(["sd1", "sdxl"], ["folder", "single file"]), one_in=3),
)
def test_weights_of_8_bits_are_read_as_they_are(
    box: Path, built: Callable[[str], Path], name: str, layout: str
) -> None:
    """Of all parts, as programs save them to halve a file; 8-bit floats without scales."""
    if layout == "folder":
        files = [*shutil.copytree(built(name), box / "models" / "model").rglob("*.safetensors")]
    else:
        as_single_file(built(name), box)
        files = [box / "models" / "model.safetensors"]
    for file in files:
        save_file(
            {
                key: value.to(torch.float8_e4m3fn) if value.is_floating_point() else value
                for key, value in load_file(file).items()
            },
            file,
            {"format": "pt"},
        )

    ours, theirs = tensors(load(box)), tensors(load_pipeline_of(built(name)))

    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        rounded = theirs[key].to(torch.float8_e4m3fn).to(value.dtype)
        assert torch.equal(value, rounded if value.is_floating_point() else theirs[key])


def test_the_carried_tokenizer_is_clips() -> None:
    tokenizer = clip_tokenizer()

    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer) == 49408
    assert tokenizer("", padding="max_length").input_ids == [49406, *[49407] * 76]
    assert clip_tokenizer("!")("", padding="max_length").input_ids[2:] == [0] * 75
    assert tokenizer.decode(tokenizer("Éluard’s 🦊!").input_ids[1:-1]) == "éluard ’ s 🦊!"


def test_the_carried_tokenizer_of_qwen_is_its_own() -> None:
    """By numbers of its authors' tokenizer."""
    tokenizer = tokenizers.qwen_tokenizer(1024)

    assert tokenizer("hello world").input_ids == [14990, 1879]
    assert tokenizer("<|im_start|>user\n<think>").input_ids == [151644, 872, 198, 151667]
    assert tokenizer.decode(tokenizer("Hà Nội, 你好 🦊").input_ids) == "Hà Nội, 你好 🦊"
    assert tokenizer.pad_token_id == 151643
    turns = [{"role": "user", "content": "a cat"}]
    asked = "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    for thinks, ends in ((True, ""), (False, "<think>\n\n</think>\n\n")):
        template: Any = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinks
        )
        assert template == asked + ends


def test_the_carried_tokenizer_of_t5_is_its_own() -> None:
    tokenizer = tokenizers.t5_tokenizer(512)

    assert tokenizer("a photo of a cat").input_ids == [3, 9, 1202, 13, 3, 9, 1712, 1]
    assert len(tokenizer) == 32100
    assert tokenizer("", padding="max_length").input_ids == [1, *[0] * 511]


def test_notes_change_what_a_model_was_trained_to_predict(
    box: Path, built: Callable[[str], Path]
) -> None:
    as_single_file(
        built("sd1"),
        box,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )

    own = load(box).scheduler
    asked = build_scheduler("euler", dict(own.config))

    for config in (own.config, asked.config):
        assert config.prediction_type == "v_prediction"
        assert config.timestep_spacing == "trailing"


# --- VAEs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folder", "original file", "diffusers file"])
def test_another_vae_goes_instead_of_the_models_own(
    box: Path, built: Callable[[str], Path], layout: str
) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    write_notes(folder / "darkroom.json", vae="better")
    other = built("sd2") / "vae"
    match layout:
        case "folder":
            shutil.copytree(other, box / "vae" / "better")
        case "original file":
            save_file(
                {name: value.contiguous() for name, value in ldm.vae(other).items()},
                box / "vae" / "better.safetensors",
            )
        case _:
            shutil.copy(built("sd2") / VAE, box / "vae" / "better.safetensors")

    vae = load(box).vae

    theirs = load_file(built("sd2") / VAE)
    assert all(torch.equal(value, theirs[name]) for name, value in vae.state_dict().items())
    assert vae.config.scaling_factor == 0.18215


def test_a_checkpoint_without_a_vae_takes_one_by_name(
    box: Path, built: Callable[[str], Path]
) -> None:
    as_single_file(built("sd1"), box, vae="better")
    shutil.copytree(built("sd2") / "vae", box / "vae" / "better")
    file = box / "models" / "model.safetensors"
    weights = {n: v for n, v in load_file(file).items() if not n.startswith(ldm.VAE)}
    save_file(weights, file)

    assert load(box).vae.config.latent_channels == 4


def test_a_vae_of_other_latents_is_refused(box: Path, built: Callable[[str], Path]) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    write_notes(folder / "darkroom.json", vae="other")
    shutil.copytree(built("sd3") / "vae", box / "vae" / "other")

    with pytest.raises(ModelLoadError, match="16 latent channels, its UNet 4"):
        load(box)


def test_a_tiny_vae_is_loaded_beside_the_model(box: Path, built: Callable[[str], Path]) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    write_notes(folder / "darkroom.json", tiny_vae="small")
    small = tiny.tiny_vae()
    small.save_pretrained(box / "vae" / "small")

    found = load_tiny_vae(catalog(box).find("model"), CPU, torch.float32)

    assert found is not None
    theirs = small.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in found.state_dict().items())


def test_a_model_without_a_tiny_vae_has_none(box: Path, built: Callable[[str], Path]) -> None:
    shutil.copytree(built("sd1"), box / "models" / "model")

    assert load_tiny_vae(catalog(box).find("model"), CPU, torch.float32) is None


def test_a_tiny_vae_that_is_none_is_refused(box: Path, built: Callable[[str], Path]) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    write_notes(folder / "darkroom.json", tiny_vae="small")
    shutil.copy(built("sd1") / VAE, box / "vae" / "small.safetensors")

    with pytest.raises(ModelLoadError, match=r"its tiny VAE small\.safetensors"):
        load_tiny_vae(catalog(box).find("model"), CPU, torch.float32)


# --- what can be wrong ---------------------------------------------------------------------


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_a_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.pop(sorted(name for name in weights if "conv" in name or "norm" in name)[0])
    save_file(weights, path, {"format": "pt"})


def with_a_wrong_shape(path: Path) -> None:
    weights = load_file(path)
    name = sorted(name for name in weights if "conv" in name or "norm" in name)[0]
    weights[name] = torch.cat([weights[name], weights[name]])
    save_file(weights, path, {"format": "pt"})


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("file", [UNET, VAE, ENCODER])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "cut short"),
        (without_a_tensor, "lacks"),
        (with_a_wrong_shape, "shape|mismatch"),
        (gone, "no file|not found|find"),
    ],
)
def test_a_folder_damaged_after_it_was_found_is_one_named_error(
    box: Path,
    built: Callable[[str], Path],
    file: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    entry = catalog(box).find("model")
    damage(folder / file)

    with pytest.raises(ModelLoadError, match=words) as raised:
        load_pipeline(entry, CPU, torch.float32)

    assert raised.value.name == "model"
    assert str(box) not in raised.value.reason


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("part", ["model.diffusion_model.", "first_stage_model.", "encoder"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(
    box: Path, built: Callable[[str], Path], name: str, part: str
) -> None:
    as_single_file(built(name), box)
    file = box / "models" / "model.safetensors"
    weights = load_file(file)
    within = [key for key in weights if key.startswith(part) or part == "encoder"]
    within = [key for key in within if ".23." not in key]  # a layer that is not read
    norms = [key for key in within if "ln_2" in key or "layer_norm2" in key or "out.0" in key]
    weights.pop((norms or [key for key in within if "norm_out" in key])[-1])
    save_file(weights, file)

    with pytest.raises(ModelLoadError, match="lack tensors"):
        load(box)


def test_a_checkpoint_of_another_size_is_refused(box: Path, built: Callable[[str], Path]) -> None:
    ldm.single_file(built("sd1"), box / "models" / "model.safetensors")  # by the carried one

    with pytest.raises(ModelLoadError, match=r"shape.* needs a `config` in its notes"):
        load(box)


def test_a_configuration_that_makes_no_sense_is_one_named_error(
    box: Path, built: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(built("sd1"), box / "models" / "model")
    config = json.loads((folder / "unet" / "config.json").read_text())
    write_notes(folder / "unet" / "config.json", **config | {"block_out_channels": [7]})

    with pytest.raises(ModelLoadError, match="block_out_channels"):
        load(box)


@pytest.mark.parametrize(
    ("setting", "device", "unet", "dtype"),
    [
        ("auto", "cpu", True, torch.float32),
        ("auto", "cpu", False, torch.float32),
        ("auto", "cuda", True, torch.float16),
        ("auto", "cuda", False, torch.bfloat16),  # of which some overflow in float16
        ("float16", "cuda", False, torch.float16),
        ("bfloat16", "cpu", True, torch.bfloat16),
    ],
)
def test_a_models_dtype(setting: str, device: str, unet: bool, dtype: torch.dtype) -> None:
    assert pick_dtype(setting, torch.device(device), unet) is dtype


@pytest.mark.parametrize("found", ["cuda", "xpu", "mps", None])
def test_the_device_is_the_machines_accelerator_or_what_is_set(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    """ROCm's is `cuda`, as torch calls it."""
    device = None if found is None else torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: device)

    assert pick_device("auto").type == (found or "cpu")
    assert pick_device("cpu").type == "cpu"


# --- transformers --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")  # diffusers' own, in Chroma
@pytest.mark.parametrize("name", tiny_families.BUILDERS)
def test_folders_that_diffusers_writes_are_known(tmp_path: Path, name: str) -> None:
    tiny_families.BUILDERS[name](tmp_path / "models" / "model")

    info = ModelCatalog(tmp_path / "models", "tintype").find("model").info

    assert info.family == tiny_families.FAMILIES[name]
    assert (info.defaults.num_inference_steps < 10) == (name in tiny_families.FEW_STEPS)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_is_loaded_without_torchvision(tmp_path: Path) -> None:
    tiny_families.qwen_image_edit_plus(tmp_path / "models" / "model")
    entry = ModelCatalog(tmp_path / "models", "tintype").find("model")

    processor = load_pipeline(entry, CPU, torch.float32).components["processor"]

    words = f"a {processor.image_token} fox"
    made = processor(text=[words], images=[Image.new("RGB", (56, 84), "red")], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 6, 4]]
    patches = made["input_ids"][0].tolist().count(processor.image_token_id)
    assert patches == 6 * 4 // processor.image_processor.merge_size**2


def test_flux_2_reads_prompts_without_torchvision(tmp_path: Path) -> None:
    """Its tokenizer is Pixtral's processor, for which transformers needs torchvision."""
    folder = tiny_families.flux2_dev(tmp_path / "models" / "model")
    entry = ModelCatalog(tmp_path / "models", "tintype").find("model")

    pipeline = load_pipeline(entry, CPU, torch.float32)

    words = tiny_families.mistral_tokenizer()
    text = f"<s>[SYSTEM_PROMPT]{pipeline.system_message}[/SYSTEM_PROMPT][INST]a red fox[/INST]"
    expected = words(text, add_special_tokens=False).input_ids
    read = pipeline.tokenizer.apply_chat_template(
        format_input(["a red fox"], pipeline.system_message),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=512,
    )
    padding = 512 - len(expected)
    assert read["input_ids"].tolist() == [[words.pad_token_id] * padding + expected]
    assert read["attention_mask"].tolist() == [[0] * padding + [1] * len(expected)]
    assert (folder / "tokenizer" / "preprocessor_config.json").is_file()  # which is not read
