"""`darkroom models pull civitai:…`, run as a person runs it, against a site on this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from darkroom.catalog.civitai import Place, place
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.cli import main
from tests.catalog.civitai_server import Site, serving
from tests.catalog.conftest import tensors_of, write

Pull = Callable[..., Result]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as started:
        yield started


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """A checkpoint of SDXL."""
    return write(tmp_path / "x.safetensors", tensors_of("sdxl")).read_bytes()


@pytest.fixture
def pull(site: Site, box: Path, monkeypatch: pytest.MonkeyPatch) -> Pull:
    monkeypatch.setenv("DARKROOM_MODELS__CIVITAI_URL", site.url)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(
            main, ["models", "pull", *arguments, "--data-dir", str(box)], catch_exceptions=False
        )

    return run


def files(box: Path, folder: str = "models") -> set[str]:
    """What a pull has left, but for its lock."""
    found = (box / folder).iterdir() if (box / folder).exists() else ()
    return {path.name for path in found if not path.name.endswith(".lock")}


def failed(result: Result, box: Path) -> str:
    """What a failed pull says; it added no model."""
    assert result.exit_code == 1, result.output
    assert not [name for name in files(box) if not name.startswith(".")]
    return result.output.splitlines()[-1]


# --- what arrives --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["civitai:4384", "civitai:4384@128713", "civitai:@128713"])
def test_a_checkpoint_is_there_at_once_with_what_civitai_says(
    site: Site, pull: Pull, data: bytes, catalog: ModelCatalog, asked: str
) -> None:
    site.add("128713", "ink.safetensors", data)

    result = pull(asked)

    assert result.exit_code == 0, result.output
    info = catalog.find("ink").info
    assert (info.family, info.title, info.trigger_words) == ("sdxl", "Ink", ("inkstyle",))
    assert "100 %" in result.output


def test_an_address_of_the_site_names_it_too(
    site: Site, pull: Pull, data: bytes, catalog: ModelCatalog
) -> None:
    site.add("2", "new.safetensors", data)
    site.add("1", "old.safetensors", data)

    pull(f"{site.url}/models/4384/ink?modelVersionId=1")
    pull(f"{site.url}/api/download/models/2?type=Model")

    assert {"old", "new"} <= {info.name for info in catalog.infos()}


def test_a_lora_goes_where_loras_are(site: Site, pull: Pull, box: Path) -> None:
    shapes = {f"lora_te_text_model_x_q_proj.lora_{end}.weight": (4, 4) for end in ("down", "up")}
    site.add("7", "pen.safetensors", write(box / "x", shapes).read_bytes(), "LORA")

    assert pull("civitai:@7", "--name", "quill").exit_code == 0

    (entry,) = AdapterCatalog(box / "loras", box / "embeddings").loras.entries()
    assert (entry.info.name, entry.info.trigger_words) == ("quill", ("inkstyle",))


def test_of_several_files_one_in_half_precision_comes(
    site: Site, pull: Pull, data: bytes, box: Path
) -> None:
    site.add("1", "ink.safetensors", data)
    (half,) = site.versions["1"]["files"]
    full = half | {"name": "full.safetensors", "metadata": {"fp": "fp32"}, "primary": True}
    pickle = half | {"name": "ink.ckpt"}
    extra = half | {"name": "set.safetensors", "type": "Training Data"}
    site.versions["1"]["files"] = [full, pickle, extra, half | {"primary": False}]

    pull("civitai:4384")
    other = pull("civitai:4384", "--variant", "fp8")
    pull("civitai:4384", "--variant", "fp32")

    assert files(box) >= {"ink.safetensors", "full.safetensors"}
    assert "there is no variant 'fp8' of it; there is fp32, fp16" in other.output


# --- interruptions -------------------------------------------------------------------------


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(
    site: Site, pull: Pull, data: bytes, box: Path
) -> None:
    site.add("1", "ink.safetensors", data)
    site.cut = [100, 200]

    assert pull("civitai:4384").exit_code == 0

    assert site.ranges == ["bytes=100-", "bytes=200-"]
    assert (box / "models" / "ink.safetensors").read_bytes() == data


def test_one_that_brings_nothing_more_ends_and_is_gone_on_with_later(
    site: Site, pull: Pull, data: bytes, box: Path
) -> None:
    site.add("1", "ink.safetensors", data)
    site.cut = [100] * 10

    assert "again" in failed(pull("civitai:4384"), box)
    site.cut.clear()
    site.ranges.clear()
    assert pull("civitai:4384").exit_code == 0

    assert site.ranges == ["bytes=100-"]
    assert files(box) == {"ink.safetensors", "ink.civitai.info"}


def test_a_file_that_arrives_damaged_is_not_kept(
    site: Site, pull: Pull, data: bytes, box: Path
) -> None:
    site.add("1", "ink.safetensors", data)
    site.damaged.add("1")

    assert "ink.safetensors arrived damaged" in failed(pull("civitai:4384"), box)
    assert files(box) == set()


def test_what_is_no_checkpoint_is_not_kept(site: Site, pull: Pull, box: Path) -> None:
    site.add("1", "ink.safetensors", b"<html>")

    assert "cannot be used: ink.safetensors is a web page" in failed(pull("civitai:4384"), box)
    assert files(box) == set()


# --- refusals ------------------------------------------------------------------------------


def test_a_file_for_accounts_says_how_to_get_it(
    site: Site, pull: Pull, data: bytes, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host of the files, which refuses to be told the token, is not."""
    site.add("1", "ink.safetensors", data)
    site.needs_token.add("1")

    assert "set models.civitai_token" in failed(pull("civitai:4384"), box)
    monkeypatch.setenv("DARKROOM_MODELS__CIVITAI_TOKEN", "old")
    assert "refuses this file to the account" in failed(pull("civitai:4384"), box)
    monkeypatch.setenv("DARKROOM_MODELS__CIVITAI_TOKEN", "key")
    assert pull("civitai:4384").exit_code == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "ink.ckpt"}, "no safetensors file"),
        ({"hashes": {}}, "publishes no SHA-256"),
        ({"name": "../ink.safetensors"}, "cannot be a name here"),
        ({"name": ".safetensors"}, "cannot be a name here"),
        ({"sizeKB": 1e15}, "are free"),
        ({"type": "Training Data"}, "no weights"),
    ],
)
def test_what_cannot_be_taken_says_why(
    site: Site, pull: Pull, data: bytes, box: Path, change: dict[str, object], why: str
) -> None:
    site.add("1", "ink.safetensors", data)
    site.versions["1"]["files"][0] |= change

    assert why in failed(pull("civitai:4384"), box)


def test_what_is_not_there_or_of_another_kind_says_so(
    site: Site, pull: Pull, data: bytes, box: Path
) -> None:
    site.add("1", "pose.safetensors", data, "Poses")

    assert "has no such model or version" in failed(pull("civitai:5"), box)
    assert "it is a Poses" in failed(pull("civitai:4384"), box)
    assert "names no model" in failed(pull("civitai:ink"), box)
    assert "names no model" in failed(pull("https://elsewhere.org/models/1"), box)


def test_the_hub_that_cannot_be_reached_is_said_to_be(
    pull: Pull, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_MODELS__CIVITAI_URL", "http://127.0.0.1:9")

    assert "cannot be reached" in failed(pull("civitai:1"), box)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("civitai:12", Place("12", None)),
        ("civitai:12@34", Place("12", "34")),
        ("https://civitai.com/models/12", Place("12", None)),
        ("https://civitai.com/models/12/a-name?modelVersionId=34", Place("12", "34")),
        ("https://civitai.com/api/download/models/34?type=Model", Place(None, "34")),
        ("civitai:", None),
        ("civitai:12@", None),
        ("https://civitai.com.evil.org/models/12", None),
        ("https://civitai.com@evil.org/models/12", None),
        ("https://civitai.com/user/12", None),
        ("owner/name", None),
    ],
)
def test_a_place_is_read_in_every_form(text: str, expected: Place | None) -> None:
    assert place(text, "https://civitai.com") == expected
