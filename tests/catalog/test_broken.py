"""What lies among the models and cannot be used: each with its reason, the others unharmed."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.catalog import checkpoints
from darkroom.catalog.model_entry import NumberBytes
from darkroom.catalog.models import BrokenModelError, ModelCatalog
from darkroom.catalog.weight_files import UnusableAddonError, read_addon_header
from tests.catalog.conftest import (
    QWEN_VAE,
    checkpoint,
    edit,
    folder,
    tensors_of,
    transformer_folder,
    write,
)


def reason(catalog: ModelCatalog, name: str = "model") -> str:
    """Why the one broken model is; asking for it says so too, and the others stay."""
    (broken,) = catalog.broken()
    usable = [info.name for info in catalog.infos()]
    assert broken.name == name
    assert "tintype" in usable
    assert name not in usable
    with pytest.raises(BrokenModelError) as raised:
        catalog.find(name)
    assert broken.reason in str(raised.value)
    return broken.reason


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


def hostile(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def many_tensors(count: int) -> bytes:
    entry = '"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    return ("{" + ",".join(entry.format(index) for index in range(count)) + "}").encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (hostile(b" " * (33 * 2**20)), "its header has 34603008 bytes"),
        (hostile(many_tensors(100_000)), "its header lists 100000 tensors"),
        (
            hostile(b'{"__metadata__":{' + b'"":"",' * 600_000 + b'"":""}}'),
            "its header has too many entries",
        ),
        (hostile(b"[" * 10**6), "cut short or damaged"),
        (
            hostile(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"\0" * 8),
            "cut short or damaged",
        ),
        (
            hostile(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[-8,8]}}', b"\0" * 16),
            "cut short or damaged",
        ),
        (
            hostile(b'{"x":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,8]}}'),
            "cut short or damaged",
        ),
        ((2**63).to_bytes(8, "little") + b"{}", "cut short or damaged"),
    ],
    ids=["size", "tensors", "metadata", "nested", "end", "start", "shape", "length"],
)
def test_a_header_that_would_take_long_or_lies_is_refused(
    box: Path, catalog: ModelCatalog, content: bytes, words: str
) -> None:
    """As a model, and as an add-on, which is read in the same way."""
    (box / "models" / "model.safetensors").write_bytes(content)
    with pytest.raises(UnusableAddonError):
        read_addon_header(box / "models" / "model.safetensors")

    assert words in reason(catalog)


def without_index(path: Path) -> None:
    (path / "model_index.json").unlink()


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


def quantised_by_an_absent_library(path: Path) -> None:
    edit(path / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes"})


def quantised_in_an_unknown_way(path: Path) -> None:
    edit(path / "unet" / "config.json", quantization_config={"quant_method": "magic"})


def with_nonsense_for_numbers(path: Path) -> None:
    edit(path / "text_encoder" / "config.json", num_hidden_layers="many")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_index, "has no model_index.json"),
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
        (quantised_in_an_unknown_way, "its part unet is quantised by magic, which is not read"),
        pytest.param(
            quantised_by_an_absent_library,
            "its part unet is quantised by bitsandbytes, which is not installed: `pip install",
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="it is here"),
        ),
        (with_nonsense_for_numbers, "not as diffusers writes it"),
    ],
)
def test_a_broken_folder_is_named_with_its_reason(
    box: Path, catalog: ModelCatalog, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder(box))

    assert words in reason(catalog)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
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


def test_a_misspelt_key_is_named_where_notes_are_read(box: Path, catalog: ModelCatalog) -> None:
    """In NAME.darkroom.json, and in a folder's darkroom.json, every key is ours or wrong."""
    write(box / "models" / "model.safetensors", tensors_of("sd1"))
    (box / "models" / "model.darkroom.json").write_text('{"guidance": 3}')

    assert "guidance is no key of ours" in reason(catalog)


def test_notes_of_our_own_name_go_before_another_programs_file(
    box: Path, catalog: ModelCatalog
) -> None:
    checkpoint(box, description="theirs")
    (box / "models" / "model.darkroom.json").write_text('{"description": "mine"}')

    entry = catalog.find("model")

    assert entry.info.description == "mine"
    assert entry.passed_over == ("model.json is not read beside model.darkroom.json",)


def test_a_file_with_a_key_that_is_not_ours_is_passed_over_and_named(
    box: Path, catalog: ModelCatalog
) -> None:
    checkpoint(box, defaults={"num_inference_steps": 3}, descripton="x")

    entry = catalog.find("model")

    assert entry.info.defaults.num_inference_steps != 3
    (line,) = entry.passed_over
    assert "descripton is no key of ours; did you mean description?" in line


@pytest.mark.parametrize("content", ['{"defaults": {', '{"limits": 1,}'])
def test_notes_that_are_not_json_are_named(box: Path, catalog: ModelCatalog, content: str) -> None:
    checkpoint(box, description="x").with_suffix(".json").write_text(content)

    assert "model.json" in reason(catalog)


@pytest.mark.parametrize("content", ["{", "[]", '"x"', ""])
def test_notes_in_a_folder_are_ours_whatever_they_hold(
    box: Path, catalog: ModelCatalog, content: str
) -> None:
    folder(box, description="x").joinpath("darkroom.json").write_text(content)

    assert "darkroom.json" in reason(catalog)


@pytest.mark.parametrize(
    "content",
    [
        '{"description": "soft", "sd version": "SD1", "activation text": "", "notes": "see"}',
        '{"description": "", "notes": "", "vae": "some-vae.safetensors"}',
        '{"modelId": 1, "sha256": "00", "name": "x"}',
        "[1]",
        '"x"',
        "",
        "{",
        "\xff\xfe",
    ],
    ids=["A1111's", "with a VAE", "a downloader's", "list", "text", "empty", "cut off", "UTF-16"],
)
def test_other_programs_files_beside_a_checkpoint_are_passed_over(
    box: Path, catalog: ModelCatalog, content: str
) -> None:
    checkpoint(box).with_suffix(".json").write_bytes(content.encode("latin-1"))

    assert "model.json" in catalog.find("model").passed_over[0]
    assert catalog.find("model").info.defaults == catalog.find("model").spec.defaults
    assert not catalog.broken()


def test_notes_may_begin_with_a_byte_order_mark(box: Path, catalog: ModelCatalog) -> None:
    checkpoint(box).with_suffix(".json").write_bytes(b'\xef\xbb\xbf{"description": "mine"}')

    assert catalog.find("model").info.description == "mine"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({checkpoints.VAE + "x.weight_scale": (1,)}, "is scaled fp8 also outside of its UNet"),
        ({checkpoints.UNET + "x.weight_scale": (4,)}, "many scales each"),
    ],
)
def test_weights_whose_scales_are_not_read_are_named(
    box: Path, catalog: ModelCatalog, extra: dict[str, tuple[int, ...]], words: str
) -> None:
    """Without its scales, such a file would draw noise."""
    write(box / "models" / "model.safetensors", tensors_of("sd1") | extra)

    assert words in reason(catalog)


@pytest.fixture
def bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is installed, as far as the catalog looks."""
    (tmp_path / "bitsandbytes.py").touch()
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("bitsandbytes")
def test_a_model_that_needs_a_gpu_is_listed_where_there_is_one(box: Path) -> None:
    quantised_by_an_absent_library(folder(box))
    gpus: list[str] = []
    catalog = ModelCatalog(box / "models", "model", has_gpu=lambda: bool(gpus))

    needs = "its part unet is quantised by bitsandbytes, which needs a GPU, and there is none here"
    assert needs in reason(catalog)

    gpus.append("cuda")

    assert catalog.find("model").quantised == {"unet": "bitsandbytes"}


@pytest.mark.usefixtures("bitsandbytes")
def test_weights_may_be_whole_numbers_where_the_part_says_how_it_is_quantised(
    box: Path, catalog: ModelCatalog
) -> None:
    """As bitsandbytes saves them; in memory they take what they take on the disk."""
    path = folder(box) / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"x.weight": np.zeros((4, 1), dtype=np.uint8)}, path)

    assert "whole numbers" in reason(catalog)

    quantised_by_an_absent_library(box / "models" / "model")

    expected = catalog.find("model").expected_parts(NumberBytes(4, 4))
    assert expected["unet"] == path.stat().st_size


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_a_unet_alone_is_named_as_such(box: Path, catalog: ModelCatalog, prefix: str) -> None:
    attention = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    shapes = {"input_blocks.0.0.weight": (2, 4, 3, 3), attention: (2, 768)}
    path = box / "models" / "model.safetensors"
    write(path, {prefix + name: shape for name, shape in shapes.items()})

    missing = "it is a UNet alone: its part text_encoder is missing. Put a file such as clip_l"
    assert missing in reason(catalog)

    write(path, {prefix + "input_blocks.0.0.weight": (2, 4, 3, 3)})

    assert "it is a UNet alone, of a model that is not known here" in reason(catalog)


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


def test_a_model_whose_pipeline_needs_a_package_names_it(box: Path, catalog: ModelCatalog) -> None:
    if find_spec("sentencepiece") is not None:
        pytest.skip("sentencepiece is installed")
    folder(box, kind="sdxl")
    edit(box / "models" / "model" / "model_index.json", _class_name="KolorsPipeline")

    assert "cannot be loaded without sentencepiece: `pip install" in reason(catalog)


# --- parts that do not fit together ----------------------------------------------------------

FLUX_ENCODERS = {"text_encoder": {"hidden_size": 768}, "text_encoder_2": {"d_model": 4096}}
FLUX = {"joint_attention_dim": 4096, "pooled_projection_dim": 768, "in_channels": 64}
QWEN = {"joint_attention_dim": 3584, "in_channels": 64}


@pytest.mark.parametrize(
    ("kind", "part", "widths"),
    [
        ("sd1", "text_encoder", "text_encoder gives 16 numbers, but its unet reads 768"),
        ("sdxl", "text_encoder_2", "gives 768 + 16 numbers, but its unet reads 2048"),
        ("sdxl-refiner", "text_encoder_2", "gives 16 numbers, but its unet reads 1280"),
    ],
)
def test_a_text_encoder_of_another_width_is_named_with_both(
    box: Path, catalog: ModelCatalog, kind: str, part: str, widths: str
) -> None:
    edit(folder(box, kind=kind) / part / "config.json", hidden_size=16)

    assert widths in reason(catalog)


@pytest.mark.parametrize(
    ("pipeline", "parts", "words"),
    [
        (
            "FluxPipeline",
            {"transformer": FLUX, "encoders": FLUX_ENCODERS | {"text_encoder": {"hidden_size": 9}}},
            "text_encoder gives 9 numbers, but its transformer reads 768 (pooled_projection_dim)",
        ),
        (
            "FluxPipeline",
            {"transformer": {**FLUX, "in_channels": 16}, "encoders": FLUX_ENCODERS},
            "vae gives 4 × 16 numbers, but its transformer reads 16 (in_channels)",
        ),
        (
            "QwenImageEditPipeline",
            {
                "transformer": QWEN,
                "vae": QWEN_VAE,
                "encoders": {"text_encoder": {"text_config": {"hidden_size": 16}}},
            },
            "text_encoder gives 16 numbers, but its transformer reads 3584",
        ),
        (
            "Flux2KleinPipeline",
            {
                "transformer": {"joint_attention_dim": 48, "in_channels": 64},
                "encoders": {"text_encoder": {"hidden_size": 17}},
            },
            "text_encoder gives 3 × 17 numbers, but its transformer reads 48",
        ),
        (
            "ZImagePipeline",
            {"transformer": {"cap_feat_dim": 16}, "encoders": {"text_encoder": {"hidden_size": 8}}},
            "text_encoder gives 8 numbers, but its transformer reads 16",
        ),
    ],
)
def test_a_transformer_whose_parts_do_not_fit_is_named_with_both_widths(
    box: Path, catalog: ModelCatalog, pipeline: str, parts: dict[str, Any], words: str
) -> None:
    transformer_folder(box, pipeline, **parts)

    assert words in reason(catalog)


def test_parts_that_fit_are_served(box: Path, catalog: ModelCatalog) -> None:
    text = {"text_encoder": {"text_config": {"hidden_size": 3584}}}
    transformer_folder(box, "FluxPipeline", "flux", FLUX, encoders=FLUX_ENCODERS)
    transformer_folder(box, "QwenImagePipeline", "qwen", QWEN, QWEN_VAE, encoders=text)

    assert catalog.broken() == ()
    assert {"flux", "qwen"} <= {info.name for info in catalog.infos()}


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_colours_for_another_number_of_latent_channels_are_refused(
    box: Path, catalog: ModelCatalog, rows: int
) -> None:
    folder(box, latent_rgb=[[0.1, 0.2, 0.3]] * rows)

    assert f"latent_rgb has {rows} rows; 5 are wanted" in reason(catalog)


def test_as_many_rows_of_colours_as_are_wanted_are_taken(box: Path, catalog: ModelCatalog) -> None:
    folder(box, latent_rgb=[[0.1, 0.2, 0.3]] * 5)
    folder(box, "default", latent_rgb=[])

    assert len(catalog.find("model").latent_rgb or ()) == 5
    assert catalog.broken() == ()
