"""Models of the transformer families, tiny, with seeded random weights, in the diffusers format.

As `tiny`: their pictures are noise that depends on prompt, seed and every step. Statistics that
real folders carry and that are easily left out, as the latents' means and deviations, are far
from 0 and 1. Text encoders of Qwen3 keep the number of layers that FLUX.2 klein reads from.
"""

import json
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from darkroom.requests import MODEL_TASKS, Task
from tests.engine import tiny

WIDTH = 16  # of a Qwen text encoder
KLEIN_LAYERS = 28  # klein reads the outputs of layers 9, 18 and 27
QWEN_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
DEV_LAYERS = 30  # FLUX.2 dev reads those of layers 10, 20 and 30
MISTRAL_MARKS = (
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
)
MISTRAL_CHAT = (
    "<s>{% for m in messages %}{% set text = m['content'][0]['text'] %}"
    "{% if m['role'] == 'system' %}[SYSTEM_PROMPT]{{ text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ text }}[/INST]{% endif %}{% endfor %}"
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- parts ---------------------------------------------------------------------------------


def t5_tokenizer() -> T5Tokenizer:
    """A token a letter, digit or mark."""
    marks = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    letters = [(letter, -3.0) for letter in string.ascii_letters + string.digits + ",.!"]
    extra = [(f"<extra_id_{index}>", 0.0) for index in range(99, -1, -1)]
    made = T5Tokenizer(vocab=[*marks, ("▁", -2.0), *letters, *extra])
    made.model_max_length = 512
    return made


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A token a byte, and those that mark turns and pictures."""
    letters = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    made = Qwen2Tokenizer(vocab=letters, merges=[], additional_special_tokens=list(QWEN_MARKS))
    made.chat_template = CHAT
    made.model_max_length = 4096
    made.padding_side = "right"
    return made


T5_SIZES = {
    "vocab_size": len(t5_tokenizer()),
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_heads": 4,
}


def t5_encoder() -> T5EncoderModel:
    return _audible(T5EncoderModel(T5Config(**T5_SIZES)))


def qwen3_encoder(kind: type, layers: int) -> Any:
    """A Qwen3 of that class."""
    config = Qwen3Config(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=len(qwen_tokenizer()),
        max_position_embeddings=4096,
    )
    return _audible(kind(config))


def qwen_vl_encoder() -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL, which reads pictures as well."""
    words = qwen_tokenizer()
    tokens = {
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
        "vision": "<|vision_pad|>",
        "image": "<|image_pad|>",
        "video": "<|video_pad|>",
    }
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(mark) for name, mark in tokens.items()}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "bos_token_id": None,
            "eos_token_id": words.convert_tokens_to_ids("<|im_end|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1],
        },
        **ids,
    )
    return _audible(Qwen2_5_VLForConditionalGeneration(config).eval())


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and those that mark turns; padded before the text."""
    special = ["<unk>", "<s>", "</s>", *MISTRAL_MARKS, "<pad>"]
    letters = [*special, *sorted(ByteLevel.alphabet())]
    read = Tokenizer(BPE({letter: index for index, letter in enumerate(letters)}, []))
    read.add_special_tokens([AddedToken(token, special=True) for token in special])
    read.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    read.decoder = decoders.ByteLevel()
    begins = [("<s>", special.index("<s>"))]
    read.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", begins)
    return PreTrainedTokenizerFast(
        tokenizer_object=read,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=4096,
    )


def mistral_encoder() -> Mistral3ForConditionalGeneration:
    """A Mistral 3 with eyes, which FLUX.2 does not use."""
    words = mistral_tokenizer()
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": DEV_LAYERS,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(words),
            "max_position_embeddings": 4096,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 14,
            "image_size": 56,
        },
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
    )
    return _audible(Mistral3ForConditionalGeneration(config).eval())


def qwen_vae() -> AutoencoderKLQwenImage:
    """Latents are an eighth of the pixels."""
    built = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[-0.3, 0.2, 0.1, -0.1],
        latents_std=[1.5, 0.8, 1.2, 0.9],
    )
    return _colourful(built, 3)


def klein_vae() -> AutoencoderKLFlux2:
    """Latents are a quarter of the pixels; each has a mean and a variance of its own."""
    built = AutoencoderKLFlux2(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=tiny.SIZE,
    )
    built.bn.running_mean.normal_(0, 0.3)
    built.bn.running_var.uniform_(0.5, 2)
    return _colourful(built, 1.4)


def eighth_vae(latent_channels: int) -> Any:
    """As `tiny.vae`, with a fourth level: for models that enlarge what they are shown."""
    return tiny.vae(
        latent_channels,
        block_out_channels=[8] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )


def flux_transformer(guided: bool, head: int = 16, heads: int = 2) -> FluxTransformer2DModel:
    """Reads its guidance as a number where `guided`; `heads` of `head` numbers each."""
    return _attentive(
        FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=head,
            num_attention_heads=heads,
            joint_attention_dim=32,
            pooled_projection_dim=tiny.HIDDEN,
            axes_dims_rope=(head // 4, head // 4, head // 2),
            guidance_embeds=guided,
        )
    )


def dynamic_shift() -> FlowMatchEulerDiscreteScheduler:
    """FLUX's scheduler, whose shift grows with the picture."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _audible(encoder: Any) -> Any:
    """An encoder whose untrained outputs depend on each word."""
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5)
    return encoder


def _attentive(transformer: Any) -> Any:
    """A transformer to whose untrained layers words and references make a difference."""
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if any(part in name for part in ("context", "txt", "cap_", "add_")):
                weight *= 3
            if "norm_q" in name or "norm_k" in name or "norm_added" in name:
                weight *= 4  # sharp attention, which tells tokens apart
            elif weight.ndim > 1 and "attn" in name:
                weight *= 3
    return transformer


def _colourful(vae: Any, factor: float) -> Any:
    with torch.no_grad():
        vae.decoder.conv_out.weight *= factor  # as `tiny.vae`
    return vae


# --- models --------------------------------------------------------------------------------


def _flux_parts(guided: bool, **parts: Any) -> dict[str, Any]:
    return {
        "transformer": flux_transformer(guided),
        "vae": tiny.vae(scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": tiny.text_encoder(),
        "tokenizer": tiny.tokenizer(),
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": dynamic_shift(),
        **parts,
    }


def flux_dev(folder: Path) -> Path:
    """FLUX.1-dev: guidance is a number that its transformer reads."""
    torch.manual_seed(20)
    return tiny.save(FluxPipeline(**_flux_parts(guided=True)), folder)


def flux_wide(folder: Path) -> Path:
    """As `flux_dev`, of 256 numbers a token: a block of the denser kinds of GGUF."""
    torch.manual_seed(33)
    transformer = flux_transformer(guided=True, head=64, heads=4)
    return tiny.save(FluxPipeline(**_flux_parts(guided=True, transformer=transformer)), folder)


def flux_schnell(folder: Path) -> Path:
    """FLUX.1-schnell: distilled to few steps, no guidance."""
    torch.manual_seed(21)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    return tiny.save(FluxPipeline(**_flux_parts(guided=False, scheduler=scheduler)), folder)


def flux_kontext(folder: Path) -> Path:
    """FLUX.1 Kontext, which edits a picture by words."""
    torch.manual_seed(22)
    return tiny.save(FluxKontextPipeline(**_flux_parts(guided=True, vae=eighth_vae(4))), folder)


def chroma(folder: Path) -> Path:
    """Chroma: FLUX.1 without CLIP and with true guidance."""
    torch.manual_seed(23)
    transformer = ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    pipeline = ChromaPipeline(
        transformer=_attentive(transformer),
        vae=tiny.vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    return tiny.save(pipeline, folder)


def _flux2_transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return _attentive(
        Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=256,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance_embeds,
        )
    )


def _klein(folder: Path, distilled: bool) -> Path:
    pipeline = Flux2KleinPipeline(
        transformer=_flux2_transformer(guidance_embeds=False),
        vae=klein_vae(),
        text_encoder=qwen3_encoder(Qwen3ForCausalLM, KLEIN_LAYERS),
        tokenizer=qwen_tokenizer(),
        scheduler=dynamic_shift(),
        is_distilled=distilled,
    )
    return tiny.save(pipeline, folder)


def flux2_klein(folder: Path) -> Path:
    """FLUX.2 klein's base: true guidance against an empty prompt; takes references."""
    torch.manual_seed(24)
    return _klein(folder, distilled=False)


def flux2_klein_distilled(folder: Path) -> Path:
    """FLUX.2 klein: few steps, no guidance; takes references."""
    torch.manual_seed(25)
    return _klein(folder, distilled=True)


def flux2_dev(folder: Path) -> Path:
    """FLUX.2 dev: guidance is a number that its transformer reads; takes references.

    Its tokenizer is a processor for texts and pictures, whose files are written by hand:
    transformers makes one only where torchvision is.
    """
    torch.manual_seed(31)
    pipeline = Flux2Pipeline(
        transformer=_flux2_transformer(guidance_embeds=True),
        vae=klein_vae(),
        text_encoder=mistral_encoder(),
        tokenizer=None,
        scheduler=dynamic_shift(),
    )
    tiny.save(pipeline, folder)
    index = folder / "model_index.json"
    named = json.loads(index.read_text()) | {"tokenizer": ["transformers", "PixtralProcessor"]}
    index.write_text(json.dumps(named))
    processor = folder / "tokenizer"
    mistral_tokenizer().save_pretrained(processor)
    (processor / "chat_template.jinja").write_text(MISTRAL_CHAT)
    marks = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]"}
    said = {**marks, "image_end_token": "[IMG_END]", "patch_size": 14, "spatial_merge_size": 2}
    (processor / "processor_config.json").write_text(
        json.dumps({**said, "processor_class": "PixtralProcessor"})
    )
    pictures = PixtralImageProcessorPil().to_dict() | {
        "image_processor_type": "PixtralImageProcessorFast",
        "processor_class": "PixtralProcessor",
    }
    (processor / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


def auraflow(folder: Path) -> Path:
    """AuraFlow: true guidance, by two rows in one call; latents as SDXL's."""
    torch.manual_seed(34)
    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=32,
    )
    with torch.no_grad():  # its attention cannot be made sharper: queries and keys are normed
        transformer.time_step_proj.linear_2.weight *= 8
        for name, weight in transformer.named_parameters():
            if "norm1" in name:  # how much a block adds
                weight *= 4
    pipeline = AuraFlowPipeline(
        transformer=_attentive(transformer),
        vae=tiny.vae(scaling_factor=0.13025),
        text_encoder=_audible(UMT5EncoderModel(UMT5Config(**T5_SIZES))),
        tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )
    return tiny.save(pipeline, folder)


def _z_image(folder: Path, shift: float) -> Path:
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 128, 128],
    )
    with torch.no_grad():  # made without values
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    pipeline = ZImagePipeline(
        transformer=_attentive(transformer),
        vae=tiny.vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=qwen3_encoder(Qwen3Model, 2),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
    )
    return tiny.save(pipeline, folder)


def z_image(folder: Path) -> Path:
    """Z-Image: pictures and prompts of all sizes go through its transformer as a list."""
    torch.manual_seed(26)
    return _z_image(folder, shift=6.0)


def z_image_turbo(folder: Path) -> Path:
    """Z-Image-Turbo: the same with another shift, by which alone its folder can be told."""
    torch.manual_seed(27)
    return _z_image(folder, shift=3.0)


def _qwen_parts() -> dict[str, Any]:
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    return {
        "transformer": _attentive(transformer),
        "vae": qwen_vae(),
        "text_encoder": qwen_vl_encoder(),
        "tokenizer": qwen_tokenizer(),
        "scheduler": dynamic_shift(),
    }


def qwen_image(folder: Path) -> Path:
    """Qwen-Image: true guidance, for which it wants a negative prompt."""
    torch.manual_seed(28)
    return tiny.save(QwenImagePipeline(**_qwen_parts()), folder)


def _qwen_edit(folder: Path, kind: type) -> Path:
    """A folder with the processor's files, as the real ones have them.

    They are written by hand: transformers makes the processor only where torchvision is.
    """
    tiny.save(kind(processor=None, **_qwen_parts()), folder)
    index = folder / "model_index.json"
    named = json.loads(index.read_text()) | {"processor": ["transformers", "Qwen2VLProcessor"]}
    index.write_text(json.dumps(named))
    processor = folder / "processor"
    qwen_tokenizer().save_pretrained(processor)
    values = Qwen2VLImageProcessorPil().to_dict() | {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (processor / "preprocessor_config.json").write_text(json.dumps(values))
    del values["image_processor_type"]
    values["video_processor_type"] = "Qwen2VLVideoProcessor"
    (processor / "video_preprocessor_config.json").write_text(json.dumps(values))
    return folder


def qwen_image_edit(folder: Path) -> Path:
    """Qwen-Image-Edit, which edits a picture by words."""
    torch.manual_seed(29)
    return _qwen_edit(folder, QwenImageEditPipeline)


def qwen_image_edit_plus(folder: Path) -> Path:
    """Qwen-Image-Edit-Plus (2509 and later), which reads several pictures."""
    torch.manual_seed(30)
    return _qwen_edit(folder, QwenImageEditPlusPipeline)


BUILDERS: dict[str, tiny.Builder] = {
    builder.__name__: builder
    for builder in (
        tiny.sd3,
        flux_dev,
        flux_schnell,
        flux_kontext,
        chroma,
        auraflow,
        flux2_klein,
        flux2_klein_distilled,
        flux2_dev,
        z_image,
        z_image_turbo,
        qwen_image,
        qwen_image_edit,
        qwen_image_edit_plus,
    )
}


# --- what they are -------------------------------------------------------------------------

KINDS = ("guided", "unguided", "negative")  # of guidance: "negative" by a prompt
# What each can do, and how it can be guided.
MODELS: dict[str, tuple[tuple[Task, ...], tuple[str, ...]]] = {
    "sd3": (MODEL_TASKS, KINDS),
    "flux_dev": (MODEL_TASKS, KINDS),
    "flux_schnell": (MODEL_TASKS, ("unguided", "negative")),
    "flux_kontext": ((Task.TXT2IMG, Task.EDIT), KINDS),
    "chroma": ((Task.TXT2IMG,), KINDS),
    "auraflow": ((Task.TXT2IMG,), KINDS),
    "flux2_klein": ((Task.TXT2IMG, Task.EDIT), ("guided", "unguided")),
    "flux2_klein_distilled": ((Task.TXT2IMG, Task.EDIT), ("unguided",)),
    "flux2_dev": ((Task.TXT2IMG, Task.EDIT), ("guided", "unguided")),
    "z_image": (MODEL_TASKS, KINDS),
    "z_image_turbo": (MODEL_TASKS, ("unguided",)),
    "qwen_image": (MODEL_TASKS, KINDS),
    "qwen_image_edit": ((Task.INPAINT, Task.EDIT), KINDS),
    "qwen_image_edit_plus": ((Task.EDIT,), KINDS),
}
SEVERAL = {  # references
    "flux2_klein": 4,
    "flux2_klein_distilled": 2,
    "flux2_dev": 6,
    "qwen_image_edit_plus": 3,
}
FEW_STEPS = {"flux_schnell", "flux2_klein_distilled", "z_image_turbo"}  # by default
FAMILIES = {
    "sd3": "sd3",
    "flux_dev": "flux",
    "flux_schnell": "flux",
    "flux_kontext": "flux-kontext",
    "chroma": "whole",
    "auraflow": "auraflow",
    "flux2_klein": "flux2-klein",
    "flux2_klein_distilled": "flux2-klein",
    "flux2_dev": "flux2",
    "z_image": "z-image",
    "z_image_turbo": "z-image",
    "qwen_image": "qwen-image",
    "qwen_image_edit": "qwen-image-edit",
    "qwen_image_edit_plus": "qwen-image-edit-plus",
}
TRANSFORMERS = {
    "sd3": "SD3Transformer2DModel",
    "flux_dev": "FluxTransformer2DModel",
    "flux_schnell": "FluxTransformer2DModel",
    "flux_kontext": "FluxTransformer2DModel",
    "chroma": "ChromaTransformer2DModel",
    "auraflow": "AuraFlowTransformer2DModel",
    "flux2_klein": "Flux2Transformer2DModel",
    "flux2_klein_distilled": "Flux2Transformer2DModel",
    "flux2_dev": "Flux2Transformer2DModel",
    "z_image": "ZImageTransformer2DModel",
    "z_image_turbo": "ZImageTransformer2DModel",
    "qwen_image": "QwenImageTransformer2DModel",
    "qwen_image_edit": "QwenImageTransformer2DModel",
    "qwen_image_edit_plus": "QwenImageTransformer2DModel",
}
