"""Folders with many files: finding one takes no longer, and what is new is found at once."""

import cProfile
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.catalog.loras import AdapterCatalog, UnknownLoraError

TO_K = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def save(path: Path, width: int = 768, **metadata: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    shapes = {f"{TO_K}.lora_down.weight": (4, width), f"{TO_K}.lora_up.weight": (64, 4)}
    zeros = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file(zeros, path, metadata or None)


def a_while_ago(folder: Path) -> None:
    """Let the folders in it, and it, have been changed long before."""
    for found in (folder, *folder.rglob("*")):
        if found.is_dir() and not found.is_symlink():
            os.utime(found, (1e9, 1e9))


def calls(function: Callable[[], object]) -> int:
    """How many functions a function calls, and those call, which no busy machine changes."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats())


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def catalog(box: Path) -> AdapterCatalog:
    return AdapterCatalog(box, box.parent / "embeddings")


@pytest.mark.parametrize("asked", ["style/ink", "ink", "Ink v2"])
def test_a_lora_is_found_as_quickly_among_many(
    box: Path, catalog: AdapterCatalog, asked: str
) -> None:
    save(box / "style" / "ink.safetensors", ss_output_name="Ink v2")
    effort = []
    for count in (1, 30):
        for number in range(count):
            save(box / f"other-{number}.safetensors")
        a_while_ago(box)
        catalog.loras.find(asked)
        effort.append(calls(lambda: catalog.loras.find(asked)))

    assert effort[0] == effort[1]


def test_what_changes_in_an_old_folder_is_seen_at_once(box: Path, catalog: AdapterCatalog) -> None:
    save(box / "style" / "ink.safetensors")
    save(box / "fog.safetensors")
    a_while_ago(box)
    assert {entry.info.name for entry in catalog.loras.entries()} == {"fog", "style/ink"}

    save(box / "style" / "new.safetensors")
    assert catalog.loras.find("new").info.name == "style/new"

    a_while_ago(box)
    (box / "style" / "new.safetensors").rename(box / "style" / "newer.safetensors")
    assert catalog.loras.find("newer").info.name == "style/newer"
    with pytest.raises(UnknownLoraError, match="no LoRA 'new'"):
        catalog.loras.find("new")

    a_while_ago(box)
    (box / "fog.safetensors").unlink()
    with pytest.raises(UnknownLoraError):
        catalog.loras.find("fog")

    a_while_ago(box)
    (box / "style").rename(box / "styles")
    assert catalog.loras.find("ink").info.name == "styles/ink"

    a_while_ago(box)
    shutil.rmtree(box)
    assert catalog.loras.entries() == ()


def test_a_file_that_changes_in_place_is_read_again(box: Path, catalog: AdapterCatalog) -> None:
    path = box / "ink.safetensors"
    save(path, width=768, ss_output_name="Ink")
    whole = path.read_bytes()
    path.write_bytes(whole[:40])  # another program downloads it
    a_while_ago(box)
    with pytest.raises(UnknownLoraError):
        catalog.loras.find("ink")

    path.write_bytes(whole)
    os.utime(box, (1e9, 1e9))
    assert catalog.loras.find("Ink").info.family == "sd1"

    other = box.parent / "other.safetensors"
    save(other, width=2048, ss_output_name="Paint")
    path.write_bytes(other.read_bytes())
    assert catalog.loras.find("ink").info.family == "sdxl"
    assert catalog.loras.find("Paint").info.name == "ink"
    with pytest.raises(UnknownLoraError):
        catalog.loras.find("Ink")


def test_links_that_lead_nowhere_are_looked_at_again(box: Path, catalog: AdapterCatalog) -> None:
    """As those to a disk that is not mounted."""
    elsewhere = box.parent / "elsewhere"
    box.mkdir()
    (box / "disk").symlink_to(elsewhere)
    a_while_ago(box)
    assert catalog.loras.entries() == ()

    save(elsewhere / "ink.safetensors")
    assert catalog.loras.find("disk/ink").info.name == "disk/ink"

    a_while_ago(elsewhere)
    shutil.rmtree(elsewhere)
    assert catalog.loras.entries() == ()
