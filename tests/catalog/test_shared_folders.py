"""Models in sub-folders, and in folders of other programs, which are read in place."""

import json
from pathlib import Path

import pytest

from darkroom.catalog.listing import SharedFolders
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.upscalers import UpscalerCatalog
from tests.catalog.conftest import checkpoint, folder, tensors_of, write
from tests.catalog.test_adapters import kohya, save


def names(catalog: ModelCatalog) -> set[str]:
    return {info.name for info in catalog.infos()} - {"tintype"}


def broken(catalog: ModelCatalog) -> dict[str, str]:
    return {found.name: found.reason for found in catalog.broken()}


def put(path: Path, kind: str = "sd1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, tensors_of(kind))


def catalog_of(box: Path, *shared: Path) -> ModelCatalog:
    return ModelCatalog(box / "models", "tintype", SharedFolders(shared))


# --- sub-folders -----------------------------------------------------------------------------


def test_a_sub_folder_is_part_of_the_name(box: Path, catalog: ModelCatalog) -> None:
    put(box / "models" / "sdxl" / "juggernaut.safetensors", "sdxl")
    put(box / "models" / "sd" / "old" / "v1.5.safetensors")
    folder(box, "whole").rename(box / "models" / "sd" / "whole")

    assert names(catalog) == {"sdxl/juggernaut", "sd/old/v1.5", "sd/whole"}
    assert catalog.find("sdxl/juggernaut").info.family == "sdxl"
    assert broken(catalog) == {}


def test_names_in_sub_folders_are_compared_and_never_paths(
    box: Path, catalog: ModelCatalog
) -> None:
    put(box / "models" / "sdxl" / "juggernaut.safetensors")

    for name in ("sdxl/../sdxl/juggernaut", "sdxl//juggernaut", "/sdxl/juggernaut", "juggernaut"):
        with pytest.raises(UnknownModelError):
            catalog.find(name)


def test_notes_and_pictures_are_found_in_sub_folders(box: Path, catalog: ModelCatalog) -> None:
    path = put(box / "models" / "sdxl" / "juggernaut.safetensors")
    path.with_suffix(".json").write_text('{"description": "mine"}')
    path.with_name("juggernaut.preview.png").write_bytes(b"PNG")

    entry = catalog.find("sdxl/juggernaut")

    assert entry.info.description == "mine"
    assert entry.picture == path.with_name("juggernaut.preview.png")


def test_a_folder_called_upscalers_is_refused(box: Path, catalog: ModelCatalog) -> None:
    """Their names stand where models' do, with that in front."""
    put(box / "models" / "upscalers" / "x.safetensors")

    assert "rename the folder" in broken(catalog)["upscalers/x"]


def test_links_in_a_circle_end(box: Path, catalog: ModelCatalog) -> None:
    put(box / "models" / "sd" / "a.safetensors")
    (box / "models" / "sd" / "again").symlink_to(box / "models")

    assert "sd/a" in names(catalog)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("flux1-dev-Q4_K_S.gguf", "GGUF"),
        ("x.ckpt", "pickled checkpoint"),
        ("x.sft", "rename it to .safetensors"),
        ("x.safetensors.part", "a download that was not finished"),
        ("x.safetensors.crdownload", "a download that was not finished"),
        ("x.zip", "unpack it"),
        ("x.onnx", "compiled for another program"),
        ("x.xyz", ".xyz is not read"),
    ],
)
def test_what_is_not_read_is_listed_with_the_reason(
    box: Path, catalog: ModelCatalog, file: str, words: str
) -> None:
    (box / "models" / "sd").mkdir()
    (box / "models" / "sd" / file).write_bytes(b"GGUF")

    ((name, reason),) = broken(catalog).items()

    assert name == f"sd/{Path(file).stem}"
    assert words in reason


def test_a_link_that_leads_nowhere_is_listed(box: Path, catalog: ModelCatalog) -> None:
    (box / "models" / "x.safetensors").symlink_to(box / "away")

    assert "No such file" in broken(catalog)["x"]


# --- other programs --------------------------------------------------------------------------


def fill(
    models: Path, checkpoints: str, loras: str, vae: str, upscalers: str, embeddings: str
) -> None:
    """One file of each kind, in folders of these names."""
    put(models / checkpoints / "sdxl" / "juggernaut.safetensors", "sdxl")
    (models / loras / "style").mkdir(parents=True)
    save(models / loras / "style" / "ink.safetensors", kohya(768))
    put_vae(models / vae)
    (models / embeddings).mkdir()
    save(models / embeddings / "velvia.safetensors", {"emb_params": (2, 768)})
    put_upscaler(models / upscalers)


def a1111(root: Path) -> None:
    fill(root / "models", "Stable-diffusion", "Lora", "VAE", "ESRGAN", "../embeddings")
    (root / "models" / "Stable-diffusion" / "Put Stable Diffusion checkpoints here.txt").touch()


def comfyui(root: Path) -> None:
    fill(root / "models", "checkpoints", "loras", "vae", "upscale_models", "embeddings")
    (root / "models" / "checkpoints" / "put_checkpoints_here").touch()


def swarmui(root: Path) -> None:
    comfyui(root)
    models = (root / "models").rename(root / "Models")
    (models / "checkpoints").rename(models / "Stable-Diffusion")
    (models / "loras").rename(models / "Lora")
    (models / "vae").rename(models / "VAE")
    (models / "embeddings").rename(models / "Embeddings")


def put_vae(where: Path) -> None:
    where.mkdir(parents=True)
    write(where / "better.safetensors", {"x": (1,)})


def put_upscaler(where: Path) -> None:
    where.mkdir(parents=True)
    shapes = {"conv_first.weight": (64, 3, 3, 3), "conv_last.weight": (3, 64, 3, 3)}
    save(where / "x4.safetensors", shapes | {f"conv_up{n}.weight": (64, 64, 3, 3) for n in (1, 2)})


@pytest.mark.parametrize("program", [a1111, comfyui, swarmui])
@pytest.mark.parametrize("within", ["", "models"])
def test_the_folders_of_other_programs_are_read_in_place(
    box: Path, tmp_path: Path, program: object, within: str
) -> None:
    assert callable(program)
    root = tmp_path / "theirs"
    program(root)
    if within and program is not comfyui:
        pytest.skip("only ComfyUI keeps all in one folder of that name")
    shared = SharedFolders((root / within,))
    adapters = AdapterCatalog(box / "loras", box / "embeddings", shared)
    (box / "models").joinpath("mine.json").write_text("{}")
    checkpoint(box, "mine", vae="better")
    catalog = ModelCatalog(box / "models", "tintype", shared)

    assert names(catalog) == {"mine", "sdxl/juggernaut"}
    assert catalog.broken() == ()
    assert [entry.info.name for entry in adapters.loras.entries()] == ["style/ink"]
    assert adapters.loras.find("ink").info.name == "style/ink"
    assert [entry.info.name for entry in adapters.embeddings.entries()] == ["velvia"]
    upscalers = UpscalerCatalog(box / "upscalers", shared)
    known = [entry.info.name for entry in upscalers.entries()]
    assert "x4" in known or "spandrel" in upscalers.broken()[0].reason


def test_a_plain_folder_of_models_is_one(box: Path, tmp_path: Path) -> None:
    put(tmp_path / "disk" / "a.safetensors")

    assert names(catalog_of(box, tmp_path / "disk")) == {"a"}


def test_the_data_folder_of_another_darkroom_is_read(box: Path, tmp_path: Path) -> None:
    put(tmp_path / "other" / "models" / "a.safetensors")
    (tmp_path / "other" / "loras").mkdir()

    assert names(catalog_of(box, tmp_path / "other")) == {"a"}


@pytest.mark.parametrize("within", ["", "hub"])
def test_a_cache_of_hugging_face_is_read(box: Path, tmp_path: Path, within: str) -> None:
    """Of each repository the version that its main branch has; those that are no models are not."""
    cached = tmp_path / "huggingface" / within / "models--stabilityai--sdxl-turbo"
    for version in ("aaa", "bbb"):
        (cached / "snapshots").mkdir(parents=True, exist_ok=True)
        folder(box, "moved").rename(cached / "snapshots" / version)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("aaa")
    other = cached.with_name("models--openai--whisper") / "snapshots" / "ccc"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")

    catalog = catalog_of(box, tmp_path / "huggingface")

    assert names(catalog) == {"stabilityai/sdxl-turbo"}
    assert catalog.find("stabilityai/sdxl-turbo").path.name == "aaa"
    assert broken(catalog) == {}


def test_of_two_with_one_name_the_first_has_it(box: Path, tmp_path: Path) -> None:
    first = put(tmp_path / "first" / "sdxl" / "a.safetensors", "sdxl")
    put(tmp_path / "second" / "sdxl" / "a.safetensors")
    for name in ("first", "second"):
        (tmp_path / name / "loras").mkdir()
        (tmp_path / name / "models").mkdir()
        (tmp_path / name / "sdxl").rename(tmp_path / name / "models" / "sdxl")
        save(tmp_path / name / "loras" / "ink.safetensors", kohya(768))
    shared = SharedFolders((tmp_path / "first", tmp_path / "second"))
    catalog = ModelCatalog(box / "models", "tintype", shared)
    loras = AdapterCatalog(box / "loras", box / "embeddings", shared).loras

    assert catalog.find("sdxl/a").info.family == "sdxl"
    assert first.parts[-1] == "a.safetensors"
    assert "another model has the name" in broken(catalog)["sdxl/a.safetensors"]
    assert len(loras.entries()) == 1
    assert [(file.file, "rename" in file.reason) for file in loras.broken()] == [
        ("ink.safetensors", True)
    ]


def test_a_disk_that_is_away_harms_nobody(box: Path, tmp_path: Path) -> None:
    shared = SharedFolders((tmp_path / "away",))

    assert ModelCatalog(box / "models", "tintype", shared).infos()[0].name == "tintype"
    assert shared.missing() == [tmp_path / "away"]


# --- facts -----------------------------------------------------------------------------------

CIVITAI = {
    "name": "v2",
    "trainedWords": ["inkwash", " brush "],
    "description": "<p>Drawn&nbsp;with <b>ink</b></p>",
    "model": {"name": "Ink", "type": "Checkpoint"},
}


def test_what_other_programs_say_of_a_model_is_told(box: Path, catalog: ModelCatalog) -> None:
    path = checkpoint(box)
    path.with_name("model.civitai.info").write_text(json.dumps(CIVITAI))
    path.with_name("model.jpeg").write_bytes(b"JPEG")

    entry = catalog.find("model")

    assert entry.info.title == "Ink"
    assert entry.info.trigger_words == ("inkwash", "brush")
    assert entry.info.description == "Drawn with ink"
    assert entry.picture == path.with_name("model.jpeg")


def test_a_file_tells_of_itself(box: Path, catalog: ModelCatalog) -> None:
    about = {
        "modelspec.title": "Ink",
        "modelspec.license": "CreativeML Open RAIL++-M",
        "modelspec.trigger_phrase": "inkwash",
        "modelspec.thumbnail": "data:image/png;base64,AA==",
    }
    path = write(box / "models" / "model.safetensors", tensors_of("sd1"), **about)

    entry = catalog.find("model")

    assert (entry.info.title, entry.info.licence) == ("Ink", "CreativeML Open RAIL++-M")
    assert entry.info.trigger_words == ("inkwash",)
    assert entry.picture == path


def test_notes_have_the_last_word_on_what_a_model_is(box: Path, catalog: ModelCatalog) -> None:
    path = checkpoint(box, description="mine")
    path.with_name("model.civitai.info").write_text(json.dumps(CIVITAI))

    assert catalog.find("model").info.description == "mine"


def test_a_card_tells_the_licence(box: Path, catalog: ModelCatalog) -> None:
    card = '---\nlicense: other\nlicense_name: "flux-1-dev"\n---\n# license: mit\n'
    (folder(box) / "README.md").write_text(card)

    assert catalog.find("model").info.licence == "flux-1-dev"


def test_what_is_beside_a_lora_tells_its_trigger_words(box: Path) -> None:
    (box / "loras").mkdir()
    save(box / "loras" / "ink.safetensors", kohya(768))
    catalog = AdapterCatalog(box / "loras", box / "embeddings")
    assert catalog.loras.entries()[0].info.trigger_words == ()

    (box / "loras" / "ink.json").write_text('{"activation text": "inkwash, brush", "notes": ""}')

    assert catalog.loras.entries()[0].info.trigger_words == ("inkwash, brush",)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe", b'{"model": []}', b"[" * 10**5]
)
def test_what_cannot_be_read_beside_a_model_does_no_harm(
    box: Path, catalog: ModelCatalog, content: bytes
) -> None:
    checkpoint(box).with_name("model.civitai.info").write_bytes(content)

    assert catalog.find("model").info.title == ""
