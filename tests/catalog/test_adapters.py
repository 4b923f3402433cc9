"""What lies in the folders of LoRAs and embeddings, told from the files' headers."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.catalog.loras import (
    AdapterCatalog,
    UnknownLoraError,
    group_by_layer,
    misfit,
)
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.weight_files import UnusableAddonError
from tests.catalog.conftest import QWEN_VAE, folder, transformer_folder
from tests.catalog.test_broken import hostile, many_tensors

ATTN2 = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture
def catalog(tmp_path: Path) -> AdapterCatalog:
    (tmp_path / "loras").mkdir()
    (tmp_path / "embeddings").mkdir()
    return AdapterCatalog(tmp_path / "loras", tmp_path / "embeddings")


@pytest.fixture
def loras(catalog: AdapterCatalog, tmp_path: Path) -> Path:
    assert catalog.loras.entries() == ()
    return tmp_path / "loras"


@pytest.fixture
def embeddings(catalog: AdapterCatalog, tmp_path: Path) -> Path:
    assert catalog.embeddings.entries() == ()
    return tmp_path / "embeddings"


def save(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    tensors = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file(tensors, path, {key.replace("__", "."): value for key, value in metadata.items()})
    return path


def kohya(width: int, layer: str = f"lora_unet_{ATTN2.replace('.', '_')}_to_k") -> dict[str, tuple]:
    return {
        f"{layer}.lora_down.weight": (4, width),
        f"{layer}.lora_up.weight": (320, 4),
        f"{layer}.alpha": (),
    }


def halves(layer: str, width: int, out: int = 320) -> dict[str, tuple]:
    return {f"{layer}.lora_A.weight": (4, width), f"{layer}.lora_B.weight": (out, 4)}


def diffusers(width: int, down: str, up: str) -> dict[str, tuple]:
    return {down.format(ATTN2): (4, width), up.format(ATTN2): (320, 4)}


# --- telling them apart --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (192, "width-192")]
)
@pytest.mark.parametrize("naming", ["kohya", "peft", "diffusers", "processors"])
def test_the_family_is_told_by_the_width_of_text(
    catalog: AdapterCatalog, loras: Path, naming: str, width: int, family: str
) -> None:
    shapes = {
        "kohya": kohya(width),
        "peft": diffusers(width, "unet.{}.to_k.lora_A.weight", "unet.{}.to_k.lora_B.weight"),
        "diffusers": diffusers(
            width, "unet.{}.to_k.lora.down.weight", "unet.{}.to_k.lora.up.weight"
        ),
        "processors": diffusers(
            width, "{}.processor.to_k_lora.down.weight", "{}.processor.to_k_lora.up.weight"
        ),
    }[naming]
    save(loras / "ink.safetensors", shapes)

    (entry,) = catalog.loras.entries()

    assert (entry.info.name, entry.info.family, entry.info.text_dim) == ("ink", family, width)
    assert catalog.loras.broken() == ()


@pytest.mark.parametrize(
    ("layer", "width", "family"),
    [
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768, "sd1"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 1024, "sd2"),
        ("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 1280, "sdxl"),
        ("lora_unet_down_blocks_0_resnets_0_conv1", 320, "unknown"),
    ],
)
def test_layers_that_read_no_text_tell_what_they_can(
    catalog: AdapterCatalog, loras: Path, layer: str, width: int, family: str
) -> None:
    save(loras / "ink.safetensors", kohya(width, layer))

    (entry,) = catalog.loras.entries()

    assert entry.info.family == family


def test_a_locon_is_a_lora(catalog: AdapterCatalog, loras: Path) -> None:
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    halves = {f"{conv}.lora_down.weight": (4, 320, 3, 3), f"{conv}.lora_up.weight": (320, 4, 1, 1)}
    save(loras / "ink.safetensors", kohya(768) | halves)

    assert [entry.info.family for entry in catalog.loras.entries()] == ["sd1"]


def test_what_the_author_says_is_shown(catalog: AdapterCatalog, loras: Path) -> None:
    about = {"modelspec__title": "Ink", "modelspec__description": "Drawn with a brush."}
    save(loras / "a.safetensors", kohya(768), **about, modelspec__trigger_phrase="inkwash")

    (entry,) = catalog.loras.entries()

    assert (entry.info.title, entry.info.description) == ("Ink", "Drawn with a brush.")
    assert entry.info.trigger_words == ("inkwash",)


def test_trigger_words_are_the_most_frequent_tags(catalog: AdapterCatalog, loras: Path) -> None:
    tags = {"10_ink": {"inkwash": 40, " fox": 7}, "5_more": {"inkwash": 2, "snow": 9}}
    about = {"ss_output_name": "ink_v2", "ss_tag_frequency": json.dumps(tags)}
    save(loras / "a.safetensors", kohya(768), **about)

    (entry,) = catalog.loras.entries()

    assert entry.info.title == "ink_v2"
    assert entry.info.trigger_words == ("inkwash", "snow", "fox")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', '{"a": {"b": "c"}}', "null"])
def test_odd_tags_do_no_harm(catalog: AdapterCatalog, loras: Path, text: str) -> None:
    save(loras / "a.safetensors", kohya(768), ss_tag_frequency=text)

    assert [entry.info.trigger_words for entry in catalog.loras.entries()] == [()]


@pytest.mark.parametrize(
    ("shapes", "family", "vectors", "widths"),
    [
        ({"emb_params": (3, 768)}, "sd1", 3, (768,)),
        ({"emb_params": (1024,)}, "sd2", 1, (1024,)),
        ({"<cat-toy>": (768,)}, "sd1", 1, (768,)),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "sdxl", 2, (768, 1280)),
    ],
)
def test_embeddings_are_told_by_their_widths(
    catalog: AdapterCatalog,
    embeddings: Path,
    shapes: dict[str, tuple[int, ...]],
    family: str,
    vectors: int,
    widths: tuple[int, ...],
) -> None:
    save(embeddings / "velvia.safetensors", shapes)

    (entry,) = catalog.embeddings.entries()

    assert (entry.info.name, entry.info.family, entry.info.vectors) == ("velvia", family, vectors)
    assert entry.widths == widths


# --- what cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"lora_unet_mid_block_x.hada_w1_a": (4, 4)}, "half of lora_unet_mid_block_x"),
        ({"lora_unet_mid_block_x.lokr_w1": (4, 4)}, "half of"),
        (kohya(768) | {"lora_unet_mid_block_x.dora_scale": (4, 1)}, "half of"),
        (kohya(768) | {"lora_unet_mid_block_x.lora_mid.weight": (4, 4, 3, 3)}, "half of"),
        (kohya(768) | {"lora_unet_mid_block_x.a1.weight": (4, 8)}, "half of"),
        (
            {
                "lora_unet_mid_block_x.oft_blocks": (4, 8, 8),
                "lora_unet_mid_block_x.dora_scale": (4,),
            },
            "is a DoRA of a kind",
        ),
        ({"base_model.model.mid_block.x.boft_R": (4, 8)}, "is a BOFT that was saved by peft"),
        (kohya(768) | {"bundle_emb.a.clip_l": (2, 8), "bundle_emb.a.clip_g": (3, 8)}, "do not fit"),
        ({"base_model.model.mid_block.x.oft_R.weight": (4, 8)}, "is an OFT that was saved by peft"),
        ({"base_model.model.mid_block.x.lora_A.weight": (4, 4)}, "saved by peft"),
        ({"emb_params": (3, 768)}, "among the embeddings"),
        ({"first_stage_model.encoder.conv_in.weight": (4, 3, 3, 3)}, "among the models"),
        ({"base_model.model.layers.0.attention.to_q.lora_A.weight": (4, 4)}, "saved by peft"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 9)}, "half of"),
        (halves("transformer.single_blocks.0.proj", 9), "no LoRA for"),
        (halves("language_model.layers.0.self_attn.q_proj", 9), "no LoRA for"),
        (kohya(9, "lora_unet_joint_blocks_0_x_block_attn_qkv"), "no LoRA for"),
        (kohya(768) | halves("transformer.layers.0.attention.to_q", 9), "no LoRA for"),
        ({"blocks.0.attn.to_q.weight": (4, 9)}, "no LoRA for"),
        ({"lora_unet_mid_block_x.lora_down.weight": (4, 9)}, "half of lora_unet_mid_block_x"),
        ({"lora_unet_mid_block_x.alpha": ()}, "half of"),
        (
            {
                "lora_unet_mid_block_x.lora_down.weight": (4, 9),
                "lora_unet_mid_block_x.lora_up.weight": (9, 5),
            },
            "do not fit together",
        ),
    ],
)
def test_what_is_no_lora_is_listed_with_the_reason(
    catalog: AdapterCatalog, loras: Path, shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    save(loras / "odd.safetensors", shapes)

    (broken,) = catalog.loras.broken()

    assert broken.file == "odd.safetensors"
    assert reason in broken.reason
    assert catalog.loras.entries() == ()
    with pytest.raises(UnknownLoraError, match="cannot be used"):
        catalog.loras.find("odd")


LAYER = f"lora_unet_{ATTN2.replace('.', '_')}_to_k"


@pytest.mark.parametrize(
    "tensors",
    [
        {
            "hada_w1_a": (320, 4),
            "hada_w1_b": (4, 768),
            "hada_w2_a": (320, 4),
            "hada_w2_b": (4, 768),
        },
        {"lokr_w1": (16, 24), "lokr_w2": (20, 32)},
        {"lokr_w1": (16, 24), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 32), "alpha": ()},
        {"lora_down.weight": (4, 768), "lora_up.weight": (320, 4), "dora_scale": (320, 1)},
        {"diff": (320, 768), "diff_b": (320,)},
        {
            "a1.weight": (768, 4),
            "a2.weight": (4, 768),
            "b1.weight": (320, 4),
            "b2.weight": (4, 768),
        },
    ],
)
def test_every_kind_of_change_is_listed_with_its_family(
    catalog: AdapterCatalog, loras: Path, tensors: dict[str, tuple[int, ...]]
) -> None:
    norm = {"lora_unet_mid_block_attentions_0_norm.w_norm": (64,)}
    save(loras / "ink.safetensors", {f"{LAYER}.{end}": s for end, s in tensors.items()} | norm)

    (entry,) = catalog.loras.entries()

    assert entry.info.family == "sd1"
    assert entry.expected_bytes(2) >= 2 * 64


@pytest.mark.parametrize("tensors", [{"oft_blocks": (4, 8, 8)}, {"weight": (4,), "on_input": ()}])
def test_so_are_those_that_do_not_show_a_width(
    catalog: AdapterCatalog, loras: Path, tensors: dict[str, tuple[int, ...]]
) -> None:
    save(loras / "ink.safetensors", {f"{LAYER}.{end}": shape for end, shape in tensors.items()})

    (entry,) = catalog.loras.entries()

    assert (entry.kinds, entry.info.family) == (("unet",), "unknown")


@pytest.mark.parametrize("kept", ["string_to_param.*", "emb_params", "clip_l", "<a word>"])
def test_a_lora_may_have_embeddings_bundled_with_it(
    catalog: AdapterCatalog, loras: Path, kept: str
) -> None:
    bundle = {f"bundle_emb.some one.{kept}": (2, 768)}
    save(loras / "ink.safetensors", kohya(768) | bundle)

    (entry,) = catalog.loras.entries()

    assert entry.bundled == {"some one": 768}
    assert entry.info.trigger_words == ("some one",)


def test_pairs_may_be_bundled_with_a_lora(catalog: AdapterCatalog, loras: Path) -> None:
    pair = {"bundle_emb.some one.clip_g": (2, 1280), "bundle_emb.some one.clip_l": (2, 768)}
    save(loras / "ink.safetensors", kohya(2048) | pair)

    assert catalog.loras.find("ink").bundled == {"some one": 2048}


def test_a_file_without_layers_is_no_lora() -> None:
    with pytest.raises(UnusableAddonError, match="is empty"):
        group_by_layer([])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pt", b"PK\x03\x04", "is a pickle"),
        ("a.ckpt", b"", "is a pickle"),
        ("a.safetensors", b"PK\x03\x04" + bytes(100), "pickle under another name"),
        ("a.safetensors", b"\x80\x02" + bytes(100), "pickle under another name"),
        ("a.safetensors", b"", "is not a safetensors file"),
        ("a.safetensors", b"<!doctype html><title>404</title>", "is not a safetensors file"),
        ("a.safetensors", (50).to_bytes(8, "little") + b"{" * 50, "cut off or damaged"),
        ("a.safetensors", (2**31).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_listed_with_the_reason(
    catalog: AdapterCatalog, loras: Path, name: str, data: bytes, reason: str
) -> None:
    (loras / name).write_bytes(data)

    (broken,) = catalog.loras.broken()

    assert broken.file == name
    assert reason in broken.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hostile(many_tensors(100_000)), "its header lists 100000 tensors"),
        (hostile(b"[" * 10**6), "is cut off or damaged"),
        (hostile(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"\0" * 8), "damaged"),
        ((2**62).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
    ],
    ids=["tensors", "nested", "past the end", "length"],
)
@pytest.mark.parametrize("kind", ["loras", "embeddings"])
def test_a_header_that_is_made_to_harm_is_listed_with_the_reason(
    catalog: AdapterCatalog, loras: Path, kind: str, content: bytes, reason: str
) -> None:
    path = loras.with_name(kind) / "odd.safetensors"
    path.write_bytes(content)

    (broken,) = getattr(catalog, kind).broken()

    assert reason in broken.reason


def test_a_file_cut_off_is_listed_with_the_reason(catalog: AdapterCatalog, loras: Path) -> None:
    path = save(loras / "a.safetensors", kohya(768))
    path.write_bytes(path.read_bytes()[:-10])

    assert "cut off" in catalog.loras.broken()[0].reason


@pytest.mark.parametrize(
    "shapes",
    [
        {"clip_l": (2, 768), "clip_g": (3, 1280)},
        {"emb_params": (0, 768)},
        {"x.weight": (2, 768)},
        {"a": (768,), "b": (768,)},
        kohya(768),
    ],
)
def test_what_is_no_embedding_is_listed(
    catalog: AdapterCatalog, embeddings: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    save(embeddings / "odd.safetensors", shapes)

    assert [broken.file for broken in catalog.embeddings.broken()] == ["odd.safetensors"]
    assert catalog.embeddings.entries() == ()


# --- looking up ----------------------------------------------------------------------------


def test_a_lora_is_found_by_name(catalog: AdapterCatalog, loras: Path) -> None:
    path = save(loras / "v1.5 ink.safetensors", kohya(768))

    assert catalog.loras.find("v1.5 ink").path == path


def test_an_unknown_name_is_met_with_a_hint(catalog: AdapterCatalog, loras: Path) -> None:
    save(loras / "watercolour.safetensors", kohya(768))

    with pytest.raises(UnknownLoraError, match="did you mean watercolour"):
        catalog.loras.find("watercolor")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", ".", "sub/../sub/ink"])
def test_a_name_is_no_path(catalog: AdapterCatalog, loras: Path, name: str) -> None:
    save(loras.parent / "outside.safetensors", kohya(768))
    (loras / "sub").mkdir()
    save(loras / "sub" / "ink.safetensors", kohya(768))

    with pytest.raises(UnknownLoraError):
        catalog.loras.find(name)


def test_folders_need_not_exist(tmp_path: Path) -> None:
    catalog = AdapterCatalog(tmp_path / "a", tmp_path / "b")

    assert (catalog.loras.entries(), catalog.loras.broken(), catalog.embeddings.entries()) == (
        (),
        (),
        (),
    )


def test_files_may_come_change_and_go(catalog: AdapterCatalog, loras: Path) -> None:
    path = save(loras / "ink.safetensors", kohya(768))
    (loras / "notes.txt").write_text("mine")
    (first,) = catalog.loras.entries()
    assert catalog.loras.entries()[0] is first  # not read again

    save(path, kohya(1024))
    os.utime(path, ns=(1, 1))
    assert catalog.loras.entries()[0].info.family == "sd2"
    path.unlink()
    assert catalog.loras.entries() == ()
    assert catalog.loras.broken() == ()


def test_a_link_that_leads_nowhere_is_listed(catalog: AdapterCatalog, loras: Path) -> None:
    (loras / "gone.safetensors").symlink_to(loras / "nowhere")

    (broken,) = catalog.loras.broken()

    assert (broken.file, "No such file" in broken.reason) == ("gone.safetensors", True)


def test_a_lora_is_found_by_its_trainers_name_and_without_its_folder(
    catalog: AdapterCatalog, loras: Path
) -> None:
    (loras / "style").mkdir()
    save(loras / "style" / "ink.safetensors", kohya(768), ss_output_name="Ink Style")

    (entry,) = catalog.loras.entries()

    assert (entry.info.name, entry.info.aliases) == ("style/ink", ("ink", "Ink Style"))
    for name in ("style/ink", "ink", "Ink Style"):
        assert catalog.loras.find(name) is entry


def test_a_name_that_several_have_is_refused_with_theirs(
    catalog: AdapterCatalog, loras: Path
) -> None:
    for name in ("a", "b"):
        save(loras / f"{name}.safetensors", kohya(768), ss_output_name="last")

    with pytest.raises(UnknownLoraError, match="several LoRAs are called 'last': a, b"):
        catalog.loras.find("last")


# --- fitting a model -----------------------------------------------------------------------


def test_tintype_has_a_width_of_its_own(models: ModelCatalog) -> None:
    assert models.find("tintype").text_dim == 192


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cross_attention_dim": [768, 768]}'])
def test_a_model_that_does_not_tell_has_no_known_width(
    models: ModelCatalog, tmp_path: Path, text: str
) -> None:
    tintype = models.find("tintype")
    assert replace(tintype, config=tmp_path).text_dim is None
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(text)
    assert replace(tintype, config=tmp_path).text_dim is None


@pytest.fixture
def models(tmp_path: Path) -> ModelCatalog:
    """Of the families that take LoRAs, at their real widths, and one that takes none."""
    folder(tmp_path, "photon")
    folder(tmp_path, "xl", "sdxl")
    heads = {"attention_head_dim": 128, "num_attention_heads": 24}  # 3072
    transformer_folder(tmp_path, "FluxPipeline", "flux", heads)
    transformer_folder(tmp_path, "FluxKontextPipeline", "kontext", heads)
    transformer_folder(tmp_path, "ChromaPipeline", "chroma", heads)
    nine = heads | {"num_attention_heads": 32}  # 4096
    transformer_folder(tmp_path, "Flux2KleinPipeline", "klein-9b", nine)
    transformer_folder(tmp_path, "Flux2KleinPipeline", "klein-4b", heads)
    large = {"attention_head_dim": 64, "num_attention_heads": 38}  # 2432
    transformer_folder(tmp_path, "StableDiffusion3Pipeline", "sd35", large)
    transformer_folder(tmp_path, "ZImagePipeline", "z", {"dim": 3840})
    transformer_folder(tmp_path, "QwenImagePipeline", "qwen", heads, QWEN_VAE)
    transformer_folder(tmp_path, "QwenImageEditPlusPipeline", "qwen-edit", heads, QWEN_VAE)
    transformer_folder(tmp_path, "PixArtSigmaPipeline", "pixart")
    return ModelCatalog(tmp_path / "models", "tintype")


FLUXES = {"flux", "kontext", "chroma"}
QWENS = {"qwen", "qwen-edit"}


@pytest.mark.parametrize(
    ("shapes", "family", "fits"),
    [
        (kohya(768), "sd1", {"photon"}),
        (kohya(2048), "sdxl", {"xl"}),
        (kohya(192), "width-192", {"tintype"}),
        (
            kohya(320, "lora_unet_down_blocks_0_resnets_0_conv1"),
            "unknown",
            {"photon", "xl", "tintype"},
        ),
        (halves("transformer.single_transformer_blocks.7.proj_mlp", 3072), "flux", FLUXES),
        (
            halves("transformer.transformer_blocks.0.ff.net.0.proj", 3072),
            "unknown",
            FLUXES | {"sd35"},
        ),
        (kohya(3072, "lora_unet_double_blocks_0_img_mod_lin"), "flux", FLUXES),
        (kohya(3072, "lora_unet_double_blocks_0_img_attn_qkv"), "unknown", FLUXES | {"klein-4b"}),
        (halves("base_model.model.single_blocks.3.modulation.lin", 3072), "flux", FLUXES),
        (
            {
                "double_blocks.0.processor.qkv_lora1.down.weight": (16, 3072),
                "double_blocks.0.processor.qkv_lora1.up.weight": (9216, 16),
            },
            "flux",
            FLUXES,
        ),
        (
            halves("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 4096),
            "flux2",
            {"klein-9b"},
        ),
        (
            halves("diffusion_model.double_stream_modulation_img.lin", 3072),
            "flux2",
            {"klein-4b", "klein-9b"},
        ),
        (halves("diffusion_model.layers.3.attention.to_q", 3840), "z-image", {"z"}),
        (kohya(3840, "lora_unet_layers_3_feed_forward_w1"), "z-image", {"z"}),
        (halves("transformer.layers.3.attention.to_out.0", 3840), "z-image", {"z"}),
        (halves("transformer_blocks.59.img_mlp.net.2", 12288), "qwen-image", QWENS),
        (halves("transformer.transformer_blocks.0.attn.to_q", 2432), "unknown", {"sd35"}),
        (
            halves("transformer.transformer_blocks.0.attn.to_k", 3072),
            "unknown",
            FLUXES | QWENS | {"klein-4b"},
        ),
        (halves("transformer.transformer_blocks.0.attn2.to_q", 1536), "sd3", set()),
    ],
)
def test_names_and_widths_of_layers_tell_which_models_a_lora_fits(
    catalog: AdapterCatalog,
    loras: Path,
    models: ModelCatalog,
    shapes: dict[str, tuple[int, ...]],
    family: str,
    fits: set[str],
) -> None:
    save(loras / "ink.safetensors", shapes)

    (entry,) = catalog.loras.entries()

    assert entry.info.family == family
    assert {each.info.name for each in models.entries() if misfit(entry, each) is None} == fits


@pytest.mark.parametrize(
    ("shapes", "model", "why"),
    [
        (
            kohya(768),
            "tintype",
            "ink is for Stable Diffusion 1.x (text width 768), "
            "but tintype is a model of its own (text width 192)",
        ),
        (kohya(768), "flux", "ink is for Stable Diffusion, but flux is of the family flux"),
        (
            halves("transformer.layers.3.attention.to_q", 3840),
            "photon",
            "ink is for Z-Image, but photon is of the family sd",
        ),
        (
            halves("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 4096),
            "klein-4b",
            "ink is for a model that is 4096 wide, but klein-4b is 3072 wide",
        ),
    ],
)
def test_a_misfit_is_told_in_words(
    catalog: AdapterCatalog,
    loras: Path,
    models: ModelCatalog,
    shapes: dict[str, tuple[int, ...]],
    model: str,
    why: str,
) -> None:
    save(loras / "ink.safetensors", shapes)

    assert misfit(catalog.loras.find("ink"), models.find(model)) == why
