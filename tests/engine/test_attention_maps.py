"""Maps of attention are those of the network itself, and looking changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from darkroom.engine.attention_maps import CrossAttention, carried_back, grid, rollout

PIPELINES = {"sd1": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
LATENTS = (12, 20)  # whose halves are not square, and whose quarters are odd


def arguments(unet: UNet2DConditionModel) -> dict[str, object]:
    """Of a call with two rows."""
    draw = torch.Generator().manual_seed(3)
    words = torch.randn((2, 77, unet.config.cross_attention_dim), generator=draw)
    pooled = unet.config.projection_class_embeddings_input_dim
    added = None
    if pooled:
        ids = torch.zeros(2, 6)
        width = pooled - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.randn((2, width), generator=draw), "time_ids": ids}
    return {
        "sample": torch.randn((2, 4, *LATENTS), generator=draw),
        "timestep": torch.tensor([400, 600]),
        "encoder_hidden_states": words,
        "added_cond_kwargs": added,
    }


@pytest.mark.parametrize("name", PIPELINES)
@torch.inference_mode()
def test_maps_are_the_softmax_of_queries_and_keys(built: Callable[[str], Path], name: str) -> None:
    unet = PIPELINES[name].from_pretrained(built(name)).unet
    plain: list[Tensor] = []

    def compute(layer: Attention, args: tuple[Tensor, ...], given: dict[str, Tensor], _: Tensor):
        hidden, words = args[0], given["encoder_hidden_states"]
        rows = []
        for row in range(2):
            query, key = layer.to_q(hidden[row]), layer.to_k(words[row])
            width = query.shape[-1] // layer.heads
            heads = []
            for head in range(layer.heads):
                part = slice(head * width, (head + 1) * width)
                heads.append(((query[:, part] @ key[:, part].T) / width**0.5).softmax(-1))
            rows.append(sum(heads) / layer.heads)
        shape = grid(LATENTS, hidden.shape[1])
        plain.append(torch.stack(rows).mT.reshape(2, 77, *shape))

    for module in unet.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            module.register_forward_hook(compute, with_kwargs=True)
    attention = CrossAttention(unet, LATENTS)

    with attention.watched():
        unet(**arguments(unet))
    maps = attention.take()

    largest = max((one.shape[-2:] for one in plain), key=lambda size: size[0] * size[1])
    expected = sum(functional.interpolate(one, largest, mode="bilinear") for one in plain)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)
    # Each cell shares out one whole in each layer.
    torch.testing.assert_close(maps.sum(1), torch.full_like(maps.sum(1), len(plain)))


@pytest.mark.parametrize("name", PIPELINES)
@torch.inference_mode()
def test_looking_changes_nothing(built: Callable[[str], Path], name: str) -> None:
    unet = PIPELINES[name].from_pretrained(built(name)).unet
    before = unet(**arguments(unet)).sample
    attention = CrossAttention(unet, LATENTS)

    with attention.watched():
        watched = unet(**arguments(unet)).sample
    attention.take()
    after = unet(**arguments(unet)).sample

    assert torch.equal(before, watched)
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match="empty"):
        attention.take()  # nothing was seen outside


def test_a_layer_of_no_possible_size_is_refused() -> None:
    assert grid((16, 16), 64) == (8, 8)
    assert grid((12, 20), 15) == (3, 5)
    assert grid((15, 9), 40) == (8, 5)  # odd sizes are rounded up
    with pytest.raises(ValueError, match="no layer of 50 cells"):
        grid((16, 16), 50)


@torch.inference_mode()
def test_shares_of_tokens_are_whole_and_never_of_later_ones(built: Callable[[str], Path]) -> None:
    encoder = CLIPTextModel.from_pretrained(
        built("sd1") / "text_encoder", attn_implementation="eager"
    )
    ids = torch.arange(1, 78)[None] % encoder.config.vocab_size
    attentions = encoder(ids, output_attentions=True).attentions

    shares = rollout(attentions)

    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 77))
    assert torch.equal(shares, shares.tril())  # CLIP looks back only
    expected = torch.eye(77)
    for layer in attentions:
        expected = (0.5 * layer[0].mean(0) + 0.5 * torch.eye(77)) @ expected
    torch.testing.assert_close(shares[0], expected, rtol=0, atol=1e-5)


def test_maps_are_carried_back_to_tokens() -> None:
    maps = torch.tensor([[[[1.0]], [[2.0]]]])  # of two embeddings, in one cell
    shares = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])

    back = carried_back(maps, shares)

    assert back.flatten().tolist() == [1.5, 1.5]
