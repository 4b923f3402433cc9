"""A whole training, from the included model to one that a server could serve."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from training import captions, data, evaluate, export, noise_predictor, text, vae
from training.__main__ import run
from training.data import TINTYPE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MAX_FILE = 16_000_000  # bytes; larger files do not travel everywhere


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> data.DataSet:
    """A data set of eight things, and trainings of two steps."""
    for stage in (text, noise_predictor, vae):
        monkeypatch.setattr(stage, "STEPS", 2)
    for stage in (text, noise_predictor):
        monkeypatch.setattr(stage, "BATCH", 2)
    monkeypatch.setattr(text, "MEASURED", 4)
    monkeypatch.setattr(captions, "COMPOSED", 4)
    whole = data.load()
    known = export.names_known(ROOT / TINTYPE)
    chosen = [number for number, subject in enumerate(whole.subjects) if subject.name in known]
    some = chosen[:: len(chosen) // 8][:8]  # of all groups
    return data.DataSet(
        tuple(whole.subjects[n] for n in some),
        tuple(whole.pictures[n] for n in some),
        whole.large[:1],
        whole.photographs[:1],
        whole.held_out[:1],
    )


def test_a_run_exports_a_model_that_diffusers_loads(few: data.DataSet, tmp_path: Path) -> None:
    to = tmp_path / "model"

    run(few, tmp_path / "runs", to, ROOT / TINTYPE, None)

    pipeline = StableDiffusionPipeline.from_pretrained(to, safety_checker=None)
    assert isinstance(pipeline, StableDiffusionPipeline)
    files = [path for path in to.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < MAX_FILE
    assert len(json.loads((to / "darkroom.json").read_text())["latent_rgb"]) == 5
    assert few.subjects[0].name in (to / "README.md").read_text()
    words = json.loads((to / "tokenizer" / "tokenizer.json").read_text())
    assert (words["truncation"], words["padding"]) == (None, None)
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md")]
    assert not any(str(ROOT) in found or str(tmp_path) in found for found in texts)


def test_a_fresh_run_trains_every_part(few: data.DataSet, tmp_path: Path) -> None:
    run(few, tmp_path / "runs", tmp_path / "model", None, None)

    for stage in ("vae", "text", "noise_predictor"):
        state = torch.load(tmp_path / "runs" / f"{stage}.pt", weights_only=True)
        assert state["step"] == state["steps"] == 2
    assert (
        sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.safetensors"))
        < export.MAX_BYTES
    )


def test_an_evaluation_measures_and_draws_sheets(
    few: data.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "STEPS", (1,))
    monkeypatch.setattr(evaluate, "SHEET", ("a fox",))
    monkeypatch.setattr(evaluate, "COLOURS_NAMES", 1)
    monkeypatch.setattr(evaluate, "FITTED", 4)
    names = [subject.name for subject in few.subjects]
    lines = {"held_out_pairs.txt": [f"{names[0]} + {names[1]}"],
             "long_prompts.txt": [f"{names[0]} | {names[0]}, 4k"]}  # fmt: skip
    monkeypatch.setattr(evaluate, "lines", lines.__getitem__)

    report = evaluate.report(ROOT / TINTYPE, few, tmp_path)

    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "sheet-1-steps.png").exists()
    assert report["known"] == report["subjects"] == 8
    assert 0 <= report["1_steps"]["retrieval"]["top_1"] <= report["1_steps"]["retrieval"]["top_5"]


def test_a_card_says_what_was_measured_last(
    few: data.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "STEPS", (1,))
    model, card = tmp_path / "model", tmp_path / "model/README.md"
    model.mkdir()
    shutil.copy(ROOT / TINTYPE / "README.md", card)
    known = export.names_known(model)
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet-1-steps.png")

    def measured(share: float) -> str:
        part = {
            "retrieval": {"top_1": share, "top_5": 1.0, "missed": ["ghost"]},
            "background_colour": 1.0,
            "held_out_pairs": {"share": 0.0, "drawn": []},
            "long_prompts": {"share": 1.0, "missed": []},
            "frechet_distance": 3.0,
        }
        coded = {"l1": 0.02, "psnr_db": 32.0}
        report = {"subjects": len(few.subjects), "autoencoder": coded, "layout_r2": 0.96,
                  "1_steps": part}  # fmt: skip
        evaluate.write_card(model, report, tmp_path)
        return card.read_text()

    first, second = measured(0.25), measured(0.5)

    assert "25.0%" in first
    assert "25.0%" not in second
    assert second.replace("50.0%", "25.0%") == first
    assert "Never among the nearest five: ghost." in second
    assert export.names_known(model) == known
    assert (model / "sheet-1-steps.webp").exists()
