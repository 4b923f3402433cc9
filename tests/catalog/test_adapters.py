"""What lies in the folders of LoRAs and embeddings, told from the files' headers."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.catalog.loras import (
    AdapterCatalog,
    UnknownLoraError,
    family,
    group_by_layer,
    misfit,
    model_text_dim,
)
from darkroom.catalog.models import EMBEDDED
from darkroom.catalog.weight_files import UnusableAddonError
from darkroom.responses import LoraInfo

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
        ({"lora_unet_mid_block_x.hada_w1_a": (4, 4)}, "LoHa"),
        ({"lora_unet_mid_block_x.lokr_w1": (4, 4)}, "LoKr"),
        (kohya(768) | {"lora_unet_mid_block_x.dora_scale": (4, 1)}, "DoRA"),
        (kohya(768) | {"lora_unet_mid_block_x.lora_mid.weight": (4, 4, 3, 3)}, "Tucker"),
        ({"base_model.model.mid_block.x.lora_A.weight": (4, 4)}, "saved by peft"),
        ({"emb_params": (3, 768)}, "among the embeddings"),
        ({"first_stage_model.encoder.conv_in.weight": (4, 3, 3, 3)}, "among the models"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 9)}, "no LoRA for"),
        ({"transformer.single_blocks.0.proj.lora_A.weight": (4, 9)}, "no LoRA for"),
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


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", ".", "sub/ink"])
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
    (loras / "gone.safetensors").symlink_to(loras / "nowhere")
    (first,) = catalog.loras.entries()
    assert catalog.loras.entries()[0] is first  # not read again

    save(path, kohya(1024))
    os.utime(path, ns=(1, 1))
    assert catalog.loras.entries()[0].info.family == "sd2"
    path.unlink()
    assert catalog.loras.entries() == ()
    assert catalog.loras.broken() == ()


# --- fitting a model -----------------------------------------------------------------------


def lora(text_dim: int | None) -> LoraInfo:
    found = family(text_dim)
    words = {"title": "", "description": "", "trigger_words": ()}
    return LoraInfo(name="ink", family=found, text_dim=text_dim, **words)


def test_tintype_has_a_width_of_its_own() -> None:
    assert model_text_dim(EMBEDDED / "tintype") == 192


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cross_attention_dim": [768, 768]}'])
def test_a_model_that_does_not_tell_has_no_known_width(tmp_path: Path, text: str) -> None:
    assert model_text_dim(tmp_path) is None
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(text)
    assert model_text_dim(tmp_path) is None


def test_widths_decide_whether_it_fits() -> None:
    assert misfit(lora(768), "photon", 768) is None
    assert misfit(lora(None), "photon", 768) is None
    assert misfit(lora(768), "photon", None) is None
    assert misfit(lora(768), "tintype", 192) == (
        "ink is for Stable Diffusion 1.x (text width 768), "
        "but tintype is a model of its own (text width 192)"
    )
