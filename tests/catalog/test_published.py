"""What a worker publishes is enough to check requests with, where its files are not."""

import json
from pathlib import Path

import pytest

from darkroom.catalog import published
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.published import Has
from darkroom.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def test_a_published_model_is_as_its_own_machine_describes_it(settings: Settings) -> None:
    here = ModelCatalog.of(settings).find("tintype")

    there = published.read(Has(settings, has_gpu=False).text()).models["tintype"]

    assert there.info == here.info
    assert there.spec.family is here.spec.family
    assert there.spec.fields == here.spec.fields
    assert there.text_dim == here.text_dim
    assert there.size_bytes == here.size_bytes
    assert there.numbers() == here.numbers()
    assert there.words == here.words
    assert there.is_elsewhere
    assert not here.is_elsewhere


def test_it_says_no_path(settings: Settings) -> None:
    text = Has(settings, has_gpu=False).text()

    assert str(settings.data_dir) not in text
    assert "models/tintype" not in text
    assert Has(settings, has_gpu=False).text() == text  # so that it is written once


def test_a_model_elsewhere_is_found_and_one_that_no_worker_has_is_refused(
    settings: Settings,
) -> None:
    text = json.loads(Has(settings, has_gpu=False).text())
    text["models"]["there"] = json.loads(
        json.dumps(text["models"]["tintype"]).replace('"name": "tintype"', '"name": "there"')
    )
    models = {"there": published.read(json.dumps(text)).models["there"]}
    catalog = ModelCatalog.of(
        settings, elsewhere=lambda: models, lacks=lambda name: name == "tintype"
    )

    assert catalog.find("there").is_elsewhere
    assert {entry.info.name for entry in catalog.entries()} == {"tintype", "there"}
    with pytest.raises(UnknownModelError, match="no worker that runs now has"):
        catalog.find("tintype")


def test_a_worker_knows_what_it_has(settings: Settings) -> None:
    has = Has(settings, has_gpu=False)

    assert has("tintype", [])
    assert has("upscalers/tintype-x2", [])
    assert not has("tintype", ["a LoRA"])
    assert not has("other", [])
