"""Files of one network, as other programs keep them, and the files that complete them."""

import json
import math
import os
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog.listing import SharedFolders
from darkroom.catalog.model_entry import NumberBytes
from darkroom.catalog.models import ModelCatalog
from tests.catalog.conftest import write
from tests.catalog.test_broken import reason

Shapes = dict[str, tuple[int, ...]]

T5_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "img_in.weight": (3072, 64),
    "vector_in.in_layer.weight": (3072, 768),
}
GUIDED: Shapes = FLUX | {"guidance_in.in_layer.weight": (3072, 256)}
KLEIN: Shapes = {"double_stream_modulation_img.lin.weight": (1, 1), "txt_in.weight": (3072, 7680)}
KLEIN_9B: Shapes = KLEIN | {"txt_in.weight": (4096, 12288)}
SD3: Shapes = {"joint_blocks.0.context_block.adaLN_modulation.1.bias": (1,)}
Z_IMAGE: Shapes = {"layers.0.adaLN_modulation.0.weight": (1, 1), "cap_embedder.0.weight": (1,)}
QWEN: Shapes = {"transformer_blocks.0.img_mod.1.weight": (1, 1), "txt_norm.weight": (1,)}
CHROMA: Shapes = {
    "distilled_guidance_layer.in_proj.weight": (1, 1),
    "final_layer.linear.weight": (1, 1),
}
UNET: Shapes = {
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
}

CLIP_L: Shapes = {"text_model.embeddings.token_embedding.weight": (49408, 768)}
CLIP_G: Shapes = {"text_model.embeddings.token_embedding.weight": (49408, 1280)}
T5: Shapes = {T5_BIAS: (32, 64), "shared.weight": (32128, 4096)}
UMT5: Shapes = {T5_BIAS: (32, 64), "shared.weight": (256384, 4096)}
QWEN3: Shapes = {
    "model.embed_tokens.weight": (151936, 2560),
    "model.layers.0.self_attn.q_norm.weight": (128,),
}
QWEN3_8B: Shapes = QWEN3 | {"model.embed_tokens.weight": (151936, 4096)}
QWEN_VL: Shapes = {"model.embed_tokens.weight": (152064, 3584), "visual.x": (1,)}
AE: Shapes = {"decoder.conv_in.weight": (512, 16, 3, 3)}
SD_VAE: Shapes = {"decoder.conv_in.weight": (512, 4, 3, 3)}
FLUX2_VAE: Shapes = {"decoder.conv_in.weight": (512, 32, 3, 3), "bn.running_mean": (128,)}
WAN_VAE: Shapes = {"decoder.conv1.weight": (384, 16, 3, 3, 3)}

# What people have in ComfyUI's folders.
EVERYTHING: dict[str, Shapes] = {
    "text_encoders/clip_l": CLIP_L,
    "text_encoders/clip_g": CLIP_G,
    "text_encoders/t5xxl_fp16": T5,
    "text_encoders/umt5_xxl": UMT5,
    "text_encoders/qwen/qwen_3_4b": QWEN3,
    "text_encoders/qwen/qwen_3_8b": QWEN3_8B,
    "text_encoders/qwen/qwen_2.5_vl_7b": QWEN_VL,
    "vae/ae": AE,
    "vae/sd3_vae": AE,
    "vae/vae-ft-mse": SD_VAE,
    "vae/sdxl_vae": SD_VAE,
    "vae/flux2-vae": FLUX2_VAE,
    "vae/wan_2.1_vae": WAN_VAE,
    "vae/qwen_image_vae": WAN_VAE,
}


def sparse(path: Path, shapes: Shapes, dtype: str = "F16") -> Path:
    """A safetensors file of that header, whose numbers take no place on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * (1 if dtype.startswith("F8") else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return path


def furnish(folder: Path, *without: str) -> None:
    """Put everything that completes models into a folder, without some."""
    for name, shapes in EVERYTHING.items():
        if name not in without:
            sparse(folder / f"{name}.safetensors", shapes)


def parts(catalog: ModelCatalog, name: str = "model") -> dict[str, str]:
    """The file of each part of a model."""
    return {part: found.path.stem for part, found in catalog.find(name).parts.items()}


FLUX_PARTS = {"text_encoder": "clip_l", "text_encoder_2": "t5xxl_fp16", "vae": "ae"}
SD3_PARTS = {
    "text_encoder": "clip_l",
    "text_encoder_2": "clip_g",
    "text_encoder_3": "t5xxl_fp16",
    "vae": "sd3_vae",
}
Z_PARTS = {"text_encoder": "qwen_3_4b", "vae": "ae"}
KLEIN_PARTS = {"text_encoder": "qwen_3_4b", "vae": "flux2-vae"}
QWEN_PARTS = {"text_encoder": "qwen_2.5_vl_7b", "vae": "qwen_image_vae"}
KNOWN = [
    ("flux1-schnell", FLUX, "flux", "flux-schnell", FLUX_PARTS),
    ("flux1-dev", GUIDED, "flux", "flux-dev", FLUX_PARTS),
    ("flux1-dev-kontext_fp8", GUIDED, "flux-kontext", "flux-kontext", FLUX_PARTS),
    ("Chroma1-HD", CHROMA, "whole", "chroma", {"text_encoder": "t5xxl_fp16", "vae": "ae"}),
    ("flux-2-klein-4b", KLEIN, "flux2-klein", "flux2-klein-4b", KLEIN_PARTS),
    (
        "flux-2-klein-base-9b",
        KLEIN_9B,
        "flux2-klein",
        "flux2-klein-base-9b",
        KLEIN_PARTS | {"text_encoder": "qwen_3_8b"},
    ),
    ("sd3_medium", SD3, "sd3", "sd3-medium", SD3_PARTS),
    (
        "sd3.5_medium",
        SD3 | {"joint_blocks.0.x_block.attn2.qkv.weight": (1, 1)},
        "sd3",
        "sd3.5-medium",
        SD3_PARTS,
    ),
    (
        "sd3.5_large",
        SD3 | {"joint_blocks.37.x_block.mlp.fc1.weight": (1, 1)},
        "sd3",
        "sd3.5-large",
        SD3_PARTS,
    ),
    ("z_image_bf16", Z_IMAGE, "z-image", "z-image", Z_PARTS),
    ("z_image_turbo_bf16", Z_IMAGE, "z-image", "z-image-turbo", Z_PARTS),
    ("qwen_image_fp8", QWEN, "qwen-image", "qwen-image", QWEN_PARTS),
    (
        "unet_xl",
        UNET,
        "sdxl",
        "sdxl",
        {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "vae": "sdxl_vae"},
    ),
]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(("name", "shapes", "family", "config", "others"), KNOWN)
def test_a_network_is_completed_by_files_that_are_what_they_are(
    box: Path,
    catalog: ModelCatalog,
    name: str,
    shapes: Shapes,
    family: str,
    config: str,
    others: dict[str, str],
    prefix: str,
) -> None:
    furnish(box)
    path = box / "models" / f"{name}.safetensors"
    sparse(path, {prefix + tensor: shape for tensor, shape in shapes.items()})

    entry = catalog.find(name)

    assert (entry.info.family, entry.config.name) == (family, config)
    assert parts(catalog, name).items() > others.items()
    assert len(entry.parts) == len(others) + 1


def test_the_folders_of_comfyui_complete_its_models(box: Path) -> None:
    comfy = box / "ComfyUI" / "models"
    furnish(comfy)
    (comfy / "text_encoders").rename(comfy / "clip")
    sparse(comfy / "diffusion_models" / "flux" / "dev.safetensors", GUIDED)
    sparse(comfy / "unet" / "z.safetensors", Z_IMAGE)
    catalog = ModelCatalog(box / "models", "tintype", SharedFolders((box / "ComfyUI",)))

    assert parts(catalog, "flux/dev").items() > FLUX_PARTS.items()
    assert parts(catalog, "z").items() > Z_PARTS.items()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("text_encoders/clip_l", "text_encoder is missing. Put a file such as clip_l.safetensors"),
        ("text_encoders/t5xxl_fp16", "text_encoder_2 is missing. Put a file such as t5xxl_fp16"),
        ("vae/ae", "vae is missing. Put a file such as ae.safetensors into the folder vae"),
    ],
)
def test_a_part_that_is_missing_is_named_until_it_is_there(
    box: Path, catalog: ModelCatalog, missing: str, words: str
) -> None:
    sparse(box / "models" / "model.safetensors", GUIDED)
    furnish(box, missing)

    assert f"it is a transformer alone: its part {words}" in reason(catalog)

    sparse(box / f"{missing}.safetensors", EVERYTHING[missing])

    assert parts(catalog).items() > FLUX_PARTS.items()


def test_stable_diffusion_3_does_without_its_largest_encoder(
    box: Path, catalog: ModelCatalog
) -> None:
    sparse(box / "models" / "model.safetensors", SD3)
    furnish(box, "text_encoders/t5xxl_fp16")

    assert "text_encoder_3" not in parts(catalog)


def test_of_two_files_of_one_network_the_more_precise_is_taken_unless_notes_name_one(
    box: Path, catalog: ModelCatalog
) -> None:
    furnish(box)
    sparse(box / "text_encoders" / "t5xxl_fp8.safetensors", T5, "F8_E4M3")
    path = sparse(box / "models" / "model.safetensors", GUIDED)

    assert parts(catalog)["text_encoder_2"] == "t5xxl_fp16"

    notes: dict[str, Any] = {"parts": {"text_encoder_2": "t5xxl_fp8"}, "vae": "sd3_vae"}
    path.with_suffix(".darkroom.json").write_text(json.dumps(notes))

    assert parts(catalog)["text_encoder_2"] == "t5xxl_fp8"
    assert parts(catalog)["vae"] == "sd3_vae"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"vae": "none"}, "'none' as its part vae, which is not in vae"),
        ({"vae": "../vae/ae"}, "which is not in vae"),
        ({"text_encoder": "clip_g"}, "'clip_g' as its part text_encoder, which is another network"),
    ],
)
def test_notes_that_name_a_wrong_file_are_told_so(
    box: Path, catalog: ModelCatalog, named: dict[str, str], words: str
) -> None:
    furnish(box)
    path = sparse(box / "models" / "model.safetensors", GUIDED)
    path.with_suffix(".darkroom.json").write_text(json.dumps({"parts": named}))

    assert words in reason(catalog)


@pytest.mark.parametrize(
    ("name", "shapes", "words"),
    [
        ("model", GUIDED | {"img_in.weight": (3072, 384)}, "reads a second picture"),
        ("model", KLEIN | {"guidance_in.in_layer.weight": (1, 1)}, "diffusers format only"),
        ("qwen_image_edit_2509", QWEN, "from a diffusers folder only"),
        ("model", GUIDED | {"img_in.weight_scale": (3072, 1)}, "many scales each"),
    ],
)
def test_relatives_that_are_not_served_are_named(
    box: Path, catalog: ModelCatalog, name: str, shapes: Shapes, words: str
) -> None:
    furnish(box)
    sparse(box / "models" / f"{name}.safetensors", shapes)

    assert words in reason(catalog, name)


def test_memory_and_size_are_those_of_all_files(box: Path, catalog: ModelCatalog) -> None:
    furnish(box)
    path = sparse(box / "models" / "model.safetensors", Z_IMAGE)

    entry = catalog.find("model")

    numbers = {"transformer": 2, "text_encoder": 151936 * 2560 + 128, "vae": 512 * 16 * 9}
    assert entry.numbers() == numbers
    assert entry.expected_parts(NumberBytes(2, 4, 1)) == {
        "transformer": 2,
        "text_encoder": 4 * numbers["text_encoder"],
        "vae": 4 * numbers["vae"],
    }
    files = [path, box / "text_encoders/qwen/qwen_3_4b.safetensors", box / "vae/ae.safetensors"]
    assert entry.size_bytes == sum(file.stat().st_size for file in files)


def test_a_broken_file_among_the_parts_is_passed_over(box: Path, catalog: ModelCatalog) -> None:
    furnish(box)
    (box / "vae" / "aaa.safetensors").write_bytes(b"\x80\x02pickle" * 10**6)
    write(box / "text_encoders" / "other.safetensors", {"x": (1,)})
    sparse(box / "models" / "model.safetensors", Z_IMAGE)

    assert parts(catalog).items() > Z_PARTS.items()


def test_what_is_quantised_when_it_is_loaded_takes_a_byte_a_number(box: Path) -> None:
    """By the settings, where the notes say nothing else; named where the library is missing."""
    furnish(box)
    path = sparse(box / "models" / "model.safetensors", Z_IMAGE)
    catalog = ModelCatalog(box / "models", "tintype", quantize="int8")

    if find_spec("torchao") is None:
        assert "without torchao: `pip install torchao`" in reason(catalog)
    else:
        assert catalog.find("model").quantize == "int8"
        assert catalog.find("model").expected_parts(NumberBytes(4, 4))["transformer"] == 2

    path.with_suffix(".darkroom.json").write_text('{"quantize": "none"}')

    assert catalog.find("model").quantize is None
    assert catalog.find("model").expected_parts(NumberBytes(4, 4))["transformer"] == 8
    assert catalog.find("tintype").quantize is None


def test_a_unet_is_not_quantised(box: Path, catalog: ModelCatalog) -> None:
    furnish(box)
    path = sparse(box / "models" / "model.safetensors", UNET)
    path.with_suffix(".darkroom.json").write_text('{"quantize": "fp8"}')

    assert "quantize is for transformers, and it has a UNet" in reason(catalog)
