"""`darkroom models pull`, run as a person runs it, against a hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darkroom.catalog.downloads import PullError
from darkroom.catalog.hub import choose
from darkroom.catalog.models import ModelCatalog
from tests.catalog.conftest import edit, folder, tensors_of, write
from tests.catalog.hub_server import Hub, serving
from tests.catalog.test_gguf import gguf, tensor
from tests.catalog.test_single_files import Z_IMAGE
from tests.effort import sampled
from tests.test_docs import README, blocks

Pull = Callable[..., subprocess.CompletedProcess[str]]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as started:
        yield started


@pytest.fixture
def published(hub: Hub, tmp_path: Path) -> Path:
    """`studio/sketch` on the hub, a model in the diffusers format; this is its folder."""
    (tmp_path / "elsewhere" / "models").mkdir(parents=True)
    made = folder(tmp_path / "elsewhere", "sketch")
    hub.add("studio/sketch", made)
    return made


@pytest.fixture
def pull(hub: Hub, box: Path) -> Pull:
    def run(*arguments: str, endpoint: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "darkroom",
                "models",
                "pull",
                *arguments,
                "--data-dir",
                str(box),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HF_ENDPOINT": endpoint or hub.url, "HF_HOME": str(box / "hf")},
            check=False,
        )

    return run


def failed(result: subprocess.CompletedProcess[str], box: Path) -> str:
    """The one line that a failed pull ends with; it added no model."""
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert not [path for path in (box / "models").iterdir() if not path.name.startswith(".")]
    return result.stderr.splitlines()[-1]


# --- what arrives --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pulled_model_is_there_at_once(
    pull: Pull, published: Path, box: Path, catalog: ModelCatalog
) -> None:
    result = pull("studio/sketch")

    assert result.returncode == 0, result.stderr
    assert catalog.find("sketch").path == box / "models" / "sketch"
    arrived = {path.relative_to(box / "models" / "sketch") for path in (box / "models").rglob("*")
               if path.is_file() and not path.name.startswith(".")}  # fmt: skip
    assert arrived == {p.relative_to(published) for p in published.rglob("*") if p.is_file()}


def test_the_command_in_the_readme_adds_sdxl(
    hub: Hub, pull: Pull, tmp_path: Path, catalog: ModelCatalog
) -> None:
    (command,) = (block for block in blocks("sh", README) if "models pull" in block)
    (repository,) = command.removeprefix(".venv/bin/darkroom models pull ").split()
    owner, name = repository.split("/")
    (tmp_path / owner / "models").mkdir(parents=True)
    hub.add(repository, folder(tmp_path / owner, name, "sdxl"))

    assert pull(repository).returncode == 0

    assert catalog.find(name).info.family == "sdxl"
    assert f'"model": "{name}"' in README


@pytest.mark.slow
def test_it_may_be_called_otherwise(pull: Pull, published: Path, catalog: ModelCatalog) -> None:
    assert published.is_dir()
    assert pull("studio/sketch", "--name", "draft", "--revision", "main").returncode == 0
    assert catalog.find("draft").path.name == "draft"


@pytest.mark.slow
def test_only_what_it_is_loaded_from_is_fetched(
    hub: Hub, pull: Pull, published: Path, box: Path
) -> None:
    for name in ("README.md", "unet/run.py", "unet/diffusion_pytorch_model.bin", "v1.ckpt"):
        hub.repositories["studio/sketch"][name] = b"x"
    hub.repositories["studio/sketch"]["safety_checker/config.json"] = b"{}"
    hub.repositories["studio/sketch"]["extra/model.safetensors"] = b"x"

    assert pull("studio/sketch").returncode == 0

    arrived = {path.name for path in (box / "models" / "sketch").rglob("*") if path.is_file()}
    assert arrived == {path.name for path in published.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_single_file_becomes_a_model(
    hub: Hub, pull: Pull, tmp_path: Path, catalog: ModelCatalog
) -> None:
    data = write(tmp_path / "x.safetensors", tensors_of("sdxl")).read_bytes()
    hub.repositories["studio/files"] = {"ink.safetensors": data, "old.ckpt": b"PK"}

    assert pull("studio/files:ink.safetensors").returncode == 0
    assert pull("studio/files", "--file", "ink.safetensors", "--name", "pen").returncode == 0

    assert [catalog.find(name).info.family for name in ("ink", "pen")] == ["sdxl", "sdxl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "expected"), [((), "fp16"), (("--variant", "plain"), None)], ids=["default", "plain"]
)
def test_of_two_variants_one_comes(
    hub: Hub,
    pull: Pull,
    published: Path,
    catalog: ModelCatalog,
    asked: tuple[str, ...],
    expected: str | None,
) -> None:
    files = hub.repositories["studio/sketch"]
    for name in [name for name in files if name.endswith(".safetensors")]:
        files[name.replace(".safetensors", ".fp16.safetensors")] = files[name]

    assert pull("studio/sketch", *asked).returncode == 0

    entry = catalog.find("sketch")
    assert entry.variant == expected
    assert len(list(entry.path.glob("*/*.safetensors"))) == len(
        list(published.glob("*/*.safetensors"))
    )


@pytest.mark.slow
def test_an_interrupted_pull_goes_on_where_it_was(
    hub: Hub, pull: Pull, published: Path, box: Path, catalog: ModelCatalog
) -> None:
    chunk = 10 * 2**20  # what the hub's client writes at a time
    large = write(published / UNET, {"x": (chunk,)})  # two bytes each
    hub.add("studio/sketch", published)
    hub.cut[UNET] = chunk * 3 // 2

    first = pull("studio/sketch")
    assert "500" in failed(first, box)
    assert catalog.broken() == ()  # the unfinished one is not among the models

    hub.cut.clear()
    hub.ranges.clear()
    assert pull("studio/sketch").returncode == 0
    assert (catalog.find("sketch").path / UNET).read_bytes() == large.read_bytes()
    assert hub.ranges[UNET] == [f"bytes={chunk}-"]


@pytest.mark.slow
def test_a_file_that_arrives_damaged_is_fetched_again(
    hub: Hub, pull: Pull, published: Path, box: Path, catalog: ModelCatalog
) -> None:
    assert published.is_dir()
    hub.damaged.add(UNET)
    assert "arrived damaged and was dropped; try again" in failed(pull("studio/sketch"), box)

    hub.damaged.clear()
    assert pull("studio/sketch").returncode == 0
    assert catalog.find("sketch").variant is None


# --- what can go wrong ---------------------------------------------------------------------


def test_an_unknown_repository_is_named(pull: Pull, box: Path) -> None:
    assert "no repository studio/nothing on the hub" in failed(pull("studio/nothing"), box)


def test_an_unknown_revision_is_named(pull: Pull, published: Path, box: Path) -> None:
    assert published.is_dir()
    words = failed(pull("studio/sketch", "--revision", "v9"), box)

    assert "no revision 'v9'" in words


def test_a_gated_repository_says_what_to_do(
    hub: Hub, pull: Pull, published: Path, box: Path
) -> None:
    assert published.is_dir()
    hub.gated.add("studio/sketch")

    words = failed(pull("studio/sketch"), box)

    assert "accept its terms" in words
    assert "HF_TOKEN" in words


def test_a_hub_that_is_away_is_said(pull: Pull, box: Path) -> None:
    words = failed(pull("studio/sketch", endpoint="http://127.0.0.1:9"), box)

    assert "cannot be reached" in words


@pytest.mark.parametrize(
    "name", sampled([("sketch/../..",), ("a b",), ("/etc/passwd",), ("https://hub/x",)], one_in=4)
)
def test_what_is_no_hub_id_is_said(pull: Pull, box: Path, name: str) -> None:
    failed(pull(name), box)


@pytest.mark.parametrize("name", sampled([("../up",), (".hidden",), ("a/b",)], one_in=3))
def test_a_name_is_no_path(pull: Pull, published: Path, box: Path, name: str) -> None:
    assert published.is_dir()
    assert "cannot be a name here" in failed(pull("studio/sketch", "--name", name), box)


def test_a_model_of_the_name_stays_as_it_is(pull: Pull, published: Path, box: Path) -> None:
    folder(box, "sketch")
    assert published.is_dir()

    result = pull("studio/sketch")

    assert result.returncode == 1
    assert "models/sketch is there already" in result.stderr


@pytest.mark.slow
def test_a_transformer_is_pulled_though_its_other_parts_are_elsewhere(
    hub: Hub, pull: Pull, box: Path
) -> None:
    lines = [tensor(name.encode(), shape) for name, shape in Z_IMAGE.items()]
    hub.repositories["studio/files"] = {"split/z-turbo.gguf": gguf(lines, data=64)}

    assert pull("studio/files:split/z-turbo.gguf").returncode == 0

    (broken,) = ModelCatalog(box / "models", "tintype").broken()
    assert broken.name == "z-turbo"
    assert "a transformer alone: its part text_encoder is missing" in broken.reason


def test_a_repository_of_checkpoints_says_which(hub: Hub, pull: Pull, box: Path) -> None:
    hub.repositories["studio/files"] = {"ink.safetensors": b"x", "old.ckpt": b"PK"}

    assert "pull one with studio/files:ink.safetensors" in failed(pull("studio/files"), box)


@pytest.mark.parametrize(
    ("files", "asked", "words"),
    sampled(
        [
            (["model.ckpt"], "studio/files", "pickles only (model.ckpt)"),
            (["README.md"], "studio/files", "no model in the diffusers format"),
            (["model.ckpt"], "studio/files:model.ckpt", "is pickled"),
            (["a.safetensors"], "studio/files:b.safetensors", "there is a.safetensors"),
        ]
    ),
)
def test_a_repository_without_safetensors_is_refused(
    hub: Hub, pull: Pull, box: Path, files: list[str], asked: str, words: str
) -> None:
    hub.repositories["studio/files"] = dict.fromkeys(files, b"x")

    assert words in failed(pull(asked), box)


def test_a_part_that_is_pickled_is_refused_before_anything_large_comes(
    hub: Hub, pull: Pull, published: Path, box: Path
) -> None:
    files = hub.repositories["studio/sketch"]
    files["unet/diffusion_pytorch_model.bin"] = files.pop(UNET)
    assert published.is_dir()

    assert "its part unet is there as a pickle only" in failed(pull("studio/sketch"), box)


def test_what_arrives_and_is_no_model_is_thrown_away(
    hub: Hub, pull: Pull, tmp_path: Path, box: Path
) -> None:
    data = write(tmp_path / "x.safetensors", {"lora_unet.lora_down.weight": (1,)}).read_bytes()
    hub.repositories["studio/files"] = {"ink.safetensors": data}

    words = failed(pull("studio/files:ink.safetensors"), box)

    assert "is a LoRA" in words
    assert not (box / "models" / ".pull-ink").exists()


def test_a_disk_without_room_is_said_before(
    hub: Hub, pull: Pull, published: Path, box: Path
) -> None:
    hub.sizes[UNET] = 2**60
    assert published.is_dir()

    assert "GiB are free" in failed(pull("studio/sketch"), box)


def test_a_hub_cannot_write_outside(hub: Hub, pull: Pull, published: Path, box: Path) -> None:
    edit(published / "model_index.json", **{"../..": ["diffusers", "AutoencoderKL"]})
    hub.add("studio/sketch", published)
    hub.repositories["studio/sketch"]["../../evil.json"] = b"{}"

    failed(pull("studio/sketch"), box)

    assert not list(box.rglob("evil.json"))


# --- choosing files ------------------------------------------------------------------------


def parts(*names: str) -> list[str]:
    return ["unet/config.json", *(f"unet/{name}" for name in names)]


SD = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
PLAIN, FP16 = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
SHARDS = [
    "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
]


@pytest.mark.parametrize(
    ("there", "variant", "expected"),
    [
        ([PLAIN], None, [PLAIN]),
        ([PLAIN, FP16], None, [FP16]),
        ([PLAIN, FP16], "plain", [PLAIN]),
        ([PLAIN, *SHARDS], None, SHARDS),
        ([PLAIN, *SHARDS[:1]], None, [PLAIN]),
        ([PLAIN, PLAIN.replace(".s", ".non_ema.s")], None, [PLAIN]),
    ],
)
def test_the_files_of_one_variant_are_chosen(
    there: list[str], variant: str | None, expected: list[str]
) -> None:
    chosen = choose(parts(*there), SD, variant)

    assert chosen == ["model_index.json", "unet/config.json", *(f"unet/{n}" for n in expected)]


def test_a_variant_that_is_not_there_is_named() -> None:
    with pytest.raises(PullError, match="no variant 'int8' of it; there is fp16, plain"):
        choose(parts(PLAIN, FP16), SD, "int8")


def test_a_kind_that_is_not_served_is_refused_first(
    hub: Hub, pull: Pull, published: Path, box: Path
) -> None:
    edit(published / "model_index.json", _class_name="StableVideoDiffusionPipeline")
    hub.add("studio/sketch", published)

    assert "StableVideoDiffusionPipeline is not served" in failed(pull("studio/sketch"), box)
