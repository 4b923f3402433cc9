"""The lists of models and add-ons: how long they take for a collection of some years."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2
import numpy as np
from safetensors.numpy import save_file

from benchmarks import servers
from benchmarks.figure import Figure, at_most
from benchmarks.suite import Effort, Suite
from darkroom.catalog import checkpoints

HOW = """\
300 files in a folder that `models.paths` names: 60 checkpoints of SD 1.x and 40 of SDXL, 110
LoRAs of SDXL and SD 1.x, 50 embeddings, and 40 that are not read (pickles, GGUF, links that lead
nowhere, downloads that were not finished), in sub-folders; half of the checkpoints and LoRAs
have Civitai's JSON and a preview beside them. Headers have as many tensors as those of published
files, and LoRAs the tags of their training set; the tensors are one number wide, for only
headers are read. `GET /models`, `/loras`, `/embeddings` and `/upscalers` are asked one after the
other by an owner's program, while nothing is drawn: once after the start, then again. Hashes are
off (`models.hashes`): they are made in the background."""

TENSORS = {"sd1": 1130, "sdxl": 2515}
LAYERS = {768: 264, 2048: 722}  # of a LoRA, by the width of the text
LISTS = ("models", "loras", "embeddings", "upscalers")
CHECKPOINTS = {"sd1": 60, "sdxl": 40}
LORAS = {768: 50, 2048: 60}
EMBEDDINGS = {768: 30, 2048: 20}
UNREAD = (".ckpt", ".pt", ".gguf", ".safetensors.part")


def measure(effort: Effort) -> list[Figure]:
    first, second = [], []
    with tempfile.TemporaryDirectory(prefix="darkroom-collection-") as name:
        collection = Path(name)
        build(collection)
        settings = {
            "DARKROOM_MODELS__PATHS": json.dumps([str(collection)]),
            "DARKROOM_MODELS__HASHES": "false",
        }
        for _ in range(effort.starts):
            with servers.darkroom(**settings) as server:
                server.until("/readyz")
                first.append(_seconds(server.http))
                second.append(_seconds(server.http))
    return [
        Figure("all lists for 300 files, first time", tuple(first), "s", at_most(5)),
        Figure("all lists for 300 files, second time", tuple(second), "s", at_most(1)),
    ]


def _seconds(http: httpx2.Client) -> float:
    began = time.monotonic()
    for name in LISTS:
        http.get(f"/{name}").raise_for_status()
    return time.monotonic() - began


def build(folder: Path) -> None:
    """Make the collection in an empty folder, as A1111 lays it out."""
    models, loras, embeddings = (
        folder / name for name in ("models/Stable-diffusion", "models/Lora", "embeddings")
    )
    for kind, count in CHECKPOINTS.items():
        template = folder / f"{kind}.template"
        save_file(_zeros(_checkpoint(kind)), template)
        _copies(template, models / kind, count)
    for width, count in LORAS.items():
        template = folder / f"{width}.template"
        tags = {"img": {f"tag number {number}": number for number in range(3000)}}
        save_file(_zeros(_lora(width)), template, {"ss_tag_frequency": json.dumps(tags)})
        _copies(template, loras / str(width), count)
    for width, count in EMBEDDINGS.items():
        shapes = (
            {"emb_params": (8, 768)} if width == 768 else {"clip_l": (8, 768), "clip_g": (8, 1280)}
        )
        template = folder / f"embedding-{width}.template"
        save_file(_zeros(shapes), template)
        _copies(template, embeddings / str(width), count, pictured=False)
    for number in range(40):
        path = (models, loras, embeddings)[number % 3] / f"unread {number}{UNREAD[number % 4]}"
        path.symlink_to("nowhere") if number % 8 == 7 else path.write_bytes(b"PK\x03\x04")


def _copies(template: Path, folder: Path, count: int, *, pictured: bool = True) -> None:
    """Files like the template, which goes; every second with what a downloader keeps beside it."""
    folder.mkdir(parents=True)
    about = {
        "model": {"name": "A style"},
        "description": "<p>Long.</p>" * 500,
        "trainedWords": ["ink"],
    }
    for number in range(count):
        shutil.copy(template, folder / f"style {number}.safetensors")
        if pictured and number % 2:
            (folder / f"style {number}.civitai.info").write_text(json.dumps(about))
            (folder / f"style {number}.preview.png").write_bytes(bytes(2**20))
    template.unlink()


def _zeros(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def _checkpoint(kind: str) -> dict[str, tuple[int, ...]]:
    """Names by which a checkpoint is recognised, and as many others as it has."""
    names = (
        [checkpoints.CLIP_L]
        if kind == "sd1"
        else [checkpoints.SDXL_CLIP_L, checkpoints.SDXL_CLIP_G]
    )
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (1, 1))
    shapes |= {
        checkpoints.FIRST_LAYER: (2, 4, 3, 3),
        f"{checkpoints.VAE}decoder.conv_in.weight": (1,),
    }
    block = f"{checkpoints.UNET}output_blocks.{{}}.1.transformer_blocks.0.attn1.to_q.weight"
    return shapes | {block.format(number): (1,) for number in range(TENSORS[kind] - len(shapes))}


def _lora(width: int) -> dict[str, tuple[int, ...]]:
    layer = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(LAYERS[width]):
        name = layer.format(number)
        shapes[f"{name}.lora_down.weight"] = (1, width if number == 0 else 1)
        shapes[f"{name}.lora_up.weight"] = (1, 1)
        shapes[f"{name}.alpha"] = ()
    return shapes


SUITE = Suite("listing", "Lists", HOW, measure)
