"""LoRA files of transformers: the namings that programs give their layers, and strengths."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from darkroom.engine import lora_file
from tests.engine.lora_changes import KINDS, Draw

RANK, ALPHA, WIDTH = 4, 2.0, 8


def _halves(outputs: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(outputs)
    down = torch.randn(RANK, WIDTH, generator=generator)
    return down, torch.randn(outputs, RANK, generator=generator)


def read(path: Path, pipeline: str, tensors: dict[str, torch.Tensor]) -> lora_file.Updates:
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
    return lora_file.read(path, getattr(diffusers, pipeline), {"transformer": torch.nn.Module()})


def changes(updates: lora_file.Updates, part: str = "transformer") -> dict[str, torch.Tensor]:
    """ΔW by layer."""
    return {name: change.delta() for name, change in updates[part].items()}


@pytest.mark.parametrize(
    ("pipeline", "layer", "name"),
    [
        ("FluxPipeline", "transformer_blocks.0.attn.to_out.0", "double_blocks_0_img_attn_proj"),
        ("FluxPipeline", "single_transformer_blocks.3.proj_out", "single_blocks_3_linear2"),
        ("FluxPipeline", "x_embedder", "img_in"),
        ("FluxKontextPipeline", "transformer_blocks.0.ff.net.2", "double_blocks_0_img_mlp_2"),
        ("Flux2KleinPipeline", "transformer_blocks.0.ff.linear_in", "double_blocks_0_img_mlp_0"),
        (
            "Flux2KleinPipeline",
            "single_transformer_blocks.3.attn.to_qkv_mlp_proj",
            "single_blocks_3_linear1",
        ),
        ("ZImagePipeline", "layers.3.attention.to_out.0", "layers_3_attention_to_out_0"),
        ("ZImagePipeline", "noise_refiner.0.feed_forward.w1", "noise_refiner_0_feed_forward_w1"),
        (
            "QwenImagePipeline",
            "transformer_blocks.9.attn.add_k_proj",
            "transformer_blocks_9_attn_add_k_proj",
        ),
        (
            "QwenImageEditPlusPipeline",
            "transformer_blocks.9.img_mlp.net.0.proj",
            "transformer_blocks_9_img_mlp_net_0_proj",
        ),
    ],
)
def test_kohyas_names_and_strengths(tmp_path: Path, pipeline: str, layer: str, name: str) -> None:
    down, up = _halves()
    tensors = {
        f"lora_unet_{name}.lora_down.weight": down,
        f"lora_unet_{name}.lora_up.weight": up,
        f"lora_unet_{name}.alpha": torch.tensor(ALPHA),
    }

    found = changes(read(tmp_path / "ink.safetensors", pipeline, tensors))

    assert found.keys() == {layer}
    torch.testing.assert_close(found[layer], ALPHA / RANK * up @ down)


@pytest.mark.parametrize(
    ("pipeline", "qkv", "layers"),
    [
        (
            "FluxPipeline",
            "lora_unet_double_blocks_0_img_attn_qkv.lora_{}.weight",
            "transformer_blocks.0.attn.to_{}",
        ),
        *(
            (pipeline, f"diffusion_model.{theirs}.lora_{{}}.weight", ours)
            for pipeline, theirs, ours in (
                (
                    "Flux2KleinPipeline",
                    "double_blocks.0.img_attn.qkv",
                    "transformer_blocks.0.attn.to_{}",
                ),
                ("FluxPipeline", "double_blocks.0.img_attn.qkv", "transformer_blocks.0.attn.to_{}"),
                ("ZImagePipeline", "layers.0.attention.qkv", "layers.0.attention.to_{}"),
            )
        ),
    ],
)
def test_projections_in_one_are_taken_apart(
    tmp_path: Path, pipeline: str, qkv: str, layers: str
) -> None:
    down, up = _halves(3 * WIDTH)
    sides = ("A", "B") if qkv.startswith("diffusion_model") else ("down", "up")
    tensors = {qkv.format(side): half for side, half in zip(sides, (down, up), strict=True)}

    found = changes(read(tmp_path / "ink.safetensors", pipeline, tensors))

    for letter, piece in zip("qkv", up.chunk(3), strict=True):
        torch.testing.assert_close(found.pop(layers.format(letter)), piece @ down)
    assert not found


@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr_both", "full"])
@pytest.mark.parametrize(
    ("pipeline", "qkv"),
    [
        ("FluxPipeline", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("Flux2KleinPipeline", "diffusion_model.double_blocks.0.img_attn.qkv"),
    ],
)
def test_so_are_changes_of_other_kinds(tmp_path: Path, pipeline: str, qkv: str, kind: str) -> None:
    made, delta = KINDS[kind](Draw(1), torch.zeros(3 * WIDTH, WIDTH))

    tensors = {f"{qkv}.{end}": tensor for end, tensor in made.items()}
    found = changes(read(tmp_path / "ink.safetensors", pipeline, tensors))

    for letter, piece in zip("qkv", delta.chunk(3), strict=True):
        torch.testing.assert_close(found.pop(f"transformer_blocks.0.attn.to_{letter}"), piece)
    assert not found


@pytest.mark.parametrize(
    ("pipeline", "layer", "sides"),
    [
        ("StableDiffusion3Pipeline", "transformer_blocks.0.attn.to_q", ("A", "B")),
        ("FluxPipeline", "single_transformer_blocks.0.proj_mlp", ("A", "B")),
        ("ChromaPipeline", "transformer_blocks.0.attn.to_q", ("A", "B")),
        ("Flux2KleinPipeline", "single_transformer_blocks.0.attn.to_out", ("A", "B")),
        ("ZImagePipeline", "layers.0.attention.to_q", ("A", "B")),
        ("ZImagePipeline", "layers.0.attention.to_q", ("down", "up")),
        ("QwenImagePipeline", "transformer_blocks.0.img_mod.1", ("A", "B")),
        ("QwenImagePipeline", "transformer_blocks.0.img_mod.1", ("down", "up")),
    ],
)
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_diffusers_names_with_strengths_beside_them(
    tmp_path: Path, pipeline: str, layer: str, prefix: str, sides: tuple[str, str]
) -> None:
    """As trainers save them that go by diffusers' names, with or without that of the network."""
    down, up = _halves()
    tensors = {
        f"{prefix}{layer}.lora_{sides[0]}.weight": down,
        f"{prefix}{layer}.lora_{sides[1]}.weight": up,
        f"{prefix}{layer}.alpha": torch.tensor(ALPHA),
    }

    found = changes(read(tmp_path / "ink.safetensors", pipeline, tensors))

    assert found.keys() == {layer}
    torch.testing.assert_close(found[layer], ALPHA / RANK * up @ down)


@pytest.mark.parametrize(
    ("pipeline", "theirs", "layer"),
    [
        ("ZImagePipeline", "layers.0.attention.to_q", "layers.0.attention.to_q"),
        ("ZImagePipeline", "layers.0.attention.out", "layers.0.attention.to_out.0"),
        ("FluxPipeline", "single_blocks.3.linear2", "single_transformer_blocks.3.proj_out"),
        ("FluxPipeline", "double_blocks.0.img_mlp.2", "transformer_blocks.0.ff.net.2"),
        ("ChromaPipeline", "double_blocks.0.img_attn.proj", "transformer_blocks.0.attn.to_out.0"),
        (
            "QwenImagePipeline",
            "transformer_blocks.0.attn.to_q",
            "transformer_blocks.0.attn.to_q",
        ),
    ],
)
@pytest.mark.parametrize("sides", [("A", "B"), ("down", "up")])
def test_names_of_the_original_code(
    tmp_path: Path, pipeline: str, theirs: str, layer: str, sides: tuple[str, str]
) -> None:
    down, up = _halves()
    tensors = {
        f"diffusion_model.{theirs}.lora_{sides[0]}.weight": down,
        f"diffusion_model.{theirs}.lora_{sides[1]}.weight": up,
        f"diffusion_model.{theirs}.alpha": torch.tensor(ALPHA),
    }

    found = changes(read(tmp_path / "ink.safetensors", pipeline, tensors))

    assert found.keys() == {layer}
    torch.testing.assert_close(found[layer], ALPHA / RANK * up @ down)


def test_a_text_encoder_may_have_its_part(tmp_path: Path) -> None:
    down, up = _halves()
    text = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors: dict[str, Any] = {
        f"{text}.lora_down.weight": down,
        f"{text}.lora_up.weight": up,
        "lora_unet_single_blocks_3_linear2.lora_down.weight": down,
        "lora_unet_single_blocks_3_linear2.lora_up.weight": up,
    }

    updates = read(tmp_path / "ink.safetensors", "FluxPipeline", tensors)

    found = changes(updates, "text_encoder")
    assert found.keys() == {"text_model.encoder.layers.0.self_attn.q_proj"}
    torch.testing.assert_close(*found.values(), up @ down)
    assert changes(updates).keys() == {"single_transformer_blocks.3.proj_out"}


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("FluxPipeline", "lora_unet_layers_0_attention_to_q"),
        ("Flux2KleinPipeline", "lora_unet_double_blocks_0_img_mod_lin"),
        ("StableDiffusion3Pipeline", "lora_unet_joint_blocks_0_x_block_mlp_fc1"),
    ],
)
@pytest.mark.parametrize("beside", [(), ("lora_unet_double_blocks_0_img_attn_proj",)])
def test_a_file_is_refused_rather_than_read_in_part(
    tmp_path: Path, pipeline: str, name: str, beside: tuple[str, ...]
) -> None:
    down, up = _halves()
    tensors = {
        f"{layer}.lora_{side}.weight": half
        for layer in (*beside, name)
        for side, half in (("down", down), ("up", up))
    }

    with pytest.raises(ValueError, match="not known"):
        read(tmp_path / "ink.safetensors", pipeline, tensors)
