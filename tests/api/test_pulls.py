"""Downloading models over the API, against hubs on this machine, and deleting them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psutil
import pytest

from darkroom.catalog.listing import EMBEDDED
from darkroom.requests import Scope
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.api.test_loras import save
from tests.catalog import civitai_server, hub_server
from tests.catalog.civitai_server import Site
from tests.catalog.conftest import folder, tensors_of, write
from tests.catalog.hub_server import Hub
from tests.effort import sampled
from tests.serving import RunningServer, running
from tests.waiting import eventually

FOX = "studio/fox"
TOKEN = "a-secret-of-civitai"


@dataclass
class House:
    """A server that downloads, and its hubs."""

    server: RunningServer
    hub: Hub
    site: Site

    @property
    def http(self) -> httpx2.Client:
        return self.server.http

    @property
    def models(self) -> Path:
        return self.server.data_dir / "models"

    def pull(self, source: str, **fields: Any) -> httpx2.Response:
        return self.http.post("/models/pull", json={"source": source, **fields})

    def begin(self, source: str, **fields: Any) -> str:
        """Begin a download; its path."""
        answer = self.pull(source, **fields)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def ended(self, path: str) -> dict[str, Any]:
        """A download at its end."""
        eventually(lambda: self.http.get(path).json()["status"] not in ("queued", "running"))
        found: dict[str, Any] = self.http.get(path).json()
        return found

    def names(self) -> set[str]:
        return {model["name"] for model in self.http.get("/models").json()["models"]}

    def process(self) -> psutil.Process:
        """The process that downloads."""
        found: list[psutil.Process] = []

        def runs() -> bool:
            children = psutil.Process(self.server.process.pid).children(recursive=True)
            found[:] = [each for each in children if "darkroom.ops.pull_process" in each.cmdline()]
            return bool(found)

        eventually(runs)
        return found[0]

    def caller(self, scope: Scope) -> dict[str, str]:
        """Headers of another caller."""
        database = Database(self.server.data_dir / "darkroom.db")
        try:
            _, secret = Tokens(database).create(f"{scope} {time.time()}", scope)
        finally:
            database.close()
        return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("pulls")
    comfy = tmp_path_factory.mktemp("comfy")
    (comfy / "models" / "checkpoints").mkdir(parents=True)
    write(comfy / "models" / "checkpoints" / "theirs.safetensors", tensors_of("sd1"))
    with (
        hub_server.serving() as hub,
        civitai_server.serving() as site,
        running(
            data,
            process="web",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(data / "hf"),
            DARKROOM_MODELS__CIVITAI_URL=site.url,
            DARKROOM_MODELS__CIVITAI_TOKEN=TOKEN,
            DARKROOM_MODELS__PATHS=f'["{comfy}"]',
            DARKROOM_LOG_FORMAT="json",
        ) as server,
    ):
        site.token = TOKEN
        yield House(server, hub, site)


@pytest.fixture
def house(shared: House, tmp_path: Path) -> Iterator[House]:
    """It, with two models to download: the folder `studio/fox`, and Civitai's 4384."""
    (tmp_path / "models").mkdir()
    shared.hub.add(FOX, folder(tmp_path, "fox"))
    shared.site.add("1", "ink.safetensors", checkpoint(tmp_path))
    yield shared
    shared.hub.held.set()
    shared.hub.gated.clear()
    for pull in shared.http.get("/pulls").json()["pulls"]:
        shared.http.delete(pull["url"])
    eventually(lambda: not active(shared))
    for pull in shared.http.get("/pulls").json()["pulls"]:
        shared.http.delete(pull["url"])
    for name in shared.names() - {"tintype", "theirs"}:
        assert shared.http.delete(f"/models/{quote(name, safe='')}").status_code == 204


def active(house: House) -> list[dict[str, Any]]:
    pulls = house.http.get("/pulls").json()["pulls"]
    return [each for each in pulls if each["status"] in ("queued", "running")]


def lives(process: psutil.Process) -> bool:
    """Whether it runs; who is dead and not yet buried does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def checkpoint(box: Path) -> bytes:
    return write(box / "x.safetensors", tensors_of("sdxl")).read_bytes()


# --- what it will be -----------------------------------------------------------------------


def test_a_plan_tells_size_and_room_and_downloads_nothing(house: House) -> None:
    answer = house.pull(FOX, dry_run=True)

    assert answer.status_code == 200, answer.text
    plan = answer.json()
    size = sum(len(data) for data in house.hub.repositories[FOX].values())
    assert (plan["name"], plan["kind"], plan["family"]) == ("fox", "models", "sd")
    assert (plan["total_bytes"], plan["done_bytes"]) == (size, 0)
    assert plan["fits_on_disk"]
    assert plan["free_bytes"] > size
    assert house.http.get("/pulls").json() == {"pulls": []}
    assert not list(house.models.glob(".pull*"))


def test_a_plan_for_civitai_tells_the_same(house: House) -> None:
    plan = house.pull("civitai:4384", dry_run=True).json()

    assert (plan["name"], plan["title"], plan["family"]) == ("ink", "Ink v1", "sdxl")
    assert plan["total_bytes"] == len(house.site.contents["1"])


@pytest.mark.slow
def test_a_plan_says_which_part_is_missing(house: House, tmp_path: Path) -> None:
    from tests.catalog.test_single_files import Z_IMAGE

    data = write(tmp_path / "x.safetensors", dict(Z_IMAGE)).read_bytes()
    house.hub.repositories["studio/z"] = {"z.safetensors": data}

    plan = house.pull("studio/z:z.safetensors", dry_run=True).json()

    assert "its part text_encoder is missing" in plan["lacks"]


@pytest.mark.slow
def test_what_could_not_be_used_is_refused_before_it_is_downloaded(
    house: House, tmp_path: Path
) -> None:
    data = write(tmp_path / "x.safetensors", {"lora_unet.lora_down.weight": (1,)}).read_bytes()
    house.hub.repositories["studio/files"] = {"ink.safetensors": data}

    answer = house.pull("studio/files:ink.safetensors")

    assert answer.status_code == 422
    assert "is a LoRA" in answer.json()["detail"]
    assert house.http.get("/pulls").json() == {"pulls": []}


@pytest.mark.parametrize(
    ("source", "words"),
    sampled(
        [
            ("http://127.0.0.1:1/a/b?token=abc", "names no model on the hubs"),
            ("studio/nothing", "no repository studio/nothing"),
            ("https://elsewhere.example/a/b", "names no model on the hubs"),
            ("file:///etc/passwd", "names no model on the hubs"),
            ("civitai:5", "no such model"),
            ("../../etc", "is no hub id"),
        ],
        one_in=6,
    ),
)
def test_what_is_on_no_hub_of_this_server_is_refused(house: House, source: str, words: str) -> None:
    answer = house.pull(source)

    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert "abc" not in answer.text


@pytest.mark.parametrize(
    "name", sampled([("tintype",), ("../up",), (".hidden",), ("a/b",)], one_in=4)
)
def test_a_name_is_no_path_and_no_other_models(house: House, name: str) -> None:
    answer = house.pull(FOX, name=name)

    assert answer.status_code in (409, 422)
    assert "choose another" in answer.json()["detail"]


@pytest.mark.slow
def test_a_gated_model_says_what_to_do(house: House) -> None:
    house.hub.gated.add(FOX)

    answer = house.pull(FOX)

    assert answer.status_code == 422
    assert answer.json()["code"] == "pull_gated"
    assert "accept its terms" in answer.json()["detail"]


def test_a_disk_without_room_is_said_before(house: House) -> None:
    house.hub.sizes["unet/diffusion_pytorch_model.safetensors"] = 2**60
    try:
        plan = house.pull(FOX, dry_run=True).json()
        answer = house.pull(FOX)
    finally:
        house.hub.sizes.clear()

    assert not plan["fits_on_disk"]
    assert answer.status_code == 507
    assert answer.json()["code"] == "pull_room"


# --- downloading ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_is_listed_as_soon_as_it_has_arrived(house: House) -> None:
    page = f"{house.hub.url}/{FOX}/tree/main"

    ended = house.ended(house.begin(page))

    assert ended["status"] == "succeeded", ended
    assert ended["done_bytes"] == ended["total_bytes"]
    assert "fox" in house.names()
    assert house.pull(FOX).status_code == 409


@pytest.mark.slow
def test_loras_go_to_their_folder(house: House, tmp_path: Path) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    data = write(
        tmp_path / "l.safetensors",
        {f"{layer}.lora_down.weight": (4, 768), f"{layer}.lora_up.weight": (320, 4)},
    ).read_bytes()
    house.site.add("2", "brush.safetensors", data, "LORA")

    assert house.ended(house.begin("civitai:@2"))["status"] == "succeeded"

    (lora,) = house.http.get("/loras").json()["loras"]
    assert lora["name"] == "brush"
    assert house.http.delete("/loras/brush").status_code == 204
    assert house.http.get("/loras").json()["loras"] == []
    assert not list((house.server.data_dir / "loras").glob("brush*"))


def test_progress_is_told_and_a_second_pull_is_the_first(house: House) -> None:
    house.hub.held.clear()
    path = house.begin(FOX)
    eventually(lambda: house.http.get(path).json()["done_bytes"] > 0)

    again = house.pull(FOX).json()

    assert again["url"] == path
    assert [each["url"] for each in active(house)] == [path]
    running = house.http.get(path).json()
    assert 0 < running["done_bytes"] < running["total_bytes"]
    house.hub.held.set()
    assert house.ended(path)["status"] == "succeeded"


@pytest.mark.slow
def test_a_cancelled_pull_leaves_nothing(house: House) -> None:
    house.hub.held.clear()
    path = house.begin(FOX)
    eventually(lambda: house.http.get(path).json()["done_bytes"] > 0)
    waits = house.begin("civitai:4384")

    assert house.http.delete(waits).json()["status"] == "cancelled"
    assert house.http.delete(path).status_code == 200
    assert house.ended(path)["status"] == "cancelled"

    left = [each.name for each in house.models.iterdir() if not each.name.endswith(".lock")]
    assert left == []
    assert house.http.delete(path).status_code == 200
    assert house.http.get(path).status_code == 404


@pytest.mark.slow
def test_a_pull_goes_on_when_its_process_is_killed(house: House) -> None:
    house.hub.held.clear()
    path = house.begin(FOX)
    eventually(lambda: house.http.get(path).json()["done_bytes"] > 0)

    house.process().send_signal(signal.SIGKILL)
    house.hub.held.set()

    assert house.ended(path)["status"] == "succeeded"


@pytest.mark.slow
def test_a_failed_pull_keeps_what_has_arrived_and_goes_on(house: House) -> None:
    data = house.site.contents["1"]
    house.site.cut = [100] * 10
    path = house.begin("civitai:4384")
    failed = house.ended(path)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "hub_away"
    assert 0 < house.http.get(path).json()["done_bytes"] < len(data)

    house.site.cut.clear()
    house.site.ranges.clear()
    again = house.begin("civitai:4384")
    assert house.ended(again)["status"] == "succeeded"

    assert house.site.ranges == ["bytes=100-"]
    assert (house.models / "ink.safetensors").read_bytes() == data
    assert [each["url"] for each in house.http.get("/pulls").json()["pulls"]] == [again]


def test_no_token_is_in_an_answer_or_the_log(house: House) -> None:
    house.site.needs_token.add("1")
    page = f"{house.site.url}/api/download/models/1?token=of-the-address"

    path = house.begin(page)
    assert house.ended(path)["status"] == "succeeded"

    shown = house.http.get("/pulls").text + house.server.log.read_text()
    assert TOKEN not in shown
    assert "of-the-address" not in shown
    assert TOKEN.encode() not in (house.server.data_dir / "darkroom.db").read_bytes()


@pytest.mark.slow
def test_a_pull_survives_a_restart_of_web(tmp_path: Path) -> None:
    (tmp_path / "away" / "models").mkdir(parents=True)
    with hub_server.serving() as hub:
        hub.add(FOX, folder(tmp_path / "away", "fox"))
        hub.held.clear()
        where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        data = tmp_path / "data"
        with running(data, process="web", **where) as server:
            house = House(server, hub, Site())
            path = house.begin(FOX)
            eventually(lambda: server.http.get(path).json()["done_bytes"] > 0)
            process = house.process()
            os.kill(server.process.pid, signal.SIGKILL)
            eventually(lambda: not lives(process))
        hub.held.set()
        with running(data, process="web", **where) as server:
            house = House(server, hub, Site())
            assert house.ended(path)["status"] == "succeeded"
            assert "fox" in house.names()


# --- deleting ------------------------------------------------------------------------------


def test_a_model_is_deleted_with_what_lies_beside_it(house: House) -> None:
    (house.models / "sdxl").mkdir(exist_ok=True)
    write(house.models / "sdxl" / "jugger naut.safetensors", tensors_of("sdxl"))
    (house.models / "sdxl" / "jugger naut.preview.png").write_bytes(b"x")
    write(house.models / "sdxl" / "other.safetensors", tensors_of("sdxl"))
    assert "sdxl/jugger naut" in house.names()

    assert house.http.delete("/models/sdxl%2Fjugger%20naut").status_code == 204

    assert house.names() >= {"sdxl/other"}
    assert [each.name for each in (house.models / "sdxl").iterdir()] == ["other.safetensors"]
    assert house.http.delete("/models/sdxl%2Fjugger%20naut").status_code == 404


def test_what_comes_with_the_server_or_is_the_default_stays(house: House) -> None:
    for path in ("/models/tintype", "/upscalers/tintype-x2"):
        answer = house.http.delete(path)
        assert answer.status_code == 409, answer.text
    assert (EMBEDDED / "tintype").is_dir()


def test_files_of_other_programs_are_not_deleted(house: House, tmp_path: Path) -> None:
    elsewhere = tmp_path / "nas"
    elsewhere.mkdir()
    write(elsewhere / "far.safetensors", tensors_of("sd1"))
    (house.models / "nas").symlink_to(elsewhere)
    try:
        for name in ("theirs", "nas%2Ffar"):
            answer = house.http.delete(f"/models/{name}")
            assert answer.status_code == 409
            assert answer.json()["code"] == "delete_elsewhere"
        assert (elsewhere / "far.safetensors").exists()
    finally:
        (house.models / "nas").unlink()


def test_of_a_link_only_the_link_is_deleted(house: House, tmp_path: Path) -> None:
    real = write(tmp_path / "real.safetensors", tensors_of("sd1"))
    (house.models / "linked.safetensors").symlink_to(real)

    assert house.http.delete("/models/linked").status_code == 204

    assert real.exists()
    assert "linked" not in house.names()


def test_a_model_that_jobs_wait_for_stays(house: House) -> None:
    write(house.models / "wanted.safetensors", tensors_of("sd1"))
    job = house.server.submit(model="wanted")

    answer = house.http.delete("/models/wanted")

    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["values"]) == ("delete_in_use", {"jobs": 1})
    house.http.delete(job["url"])
    assert house.http.delete("/models/wanted").status_code == 204


def test_an_embedding_that_jobs_wait_for_stays_however_they_write_it(house: House) -> None:
    folder = house.server.data_dir / "embeddings"
    folder.mkdir(exist_ok=True)
    save(folder / "easynegative.safetensors", {"emb_params": (2, 192)})
    job = house.server.submit(prompt="a cat", negative_prompt="EasyNegative, blur")

    assert house.http.delete("/embeddings/easynegative").status_code == 409
    house.http.delete(job["url"])
    assert house.http.delete("/embeddings/easynegative").status_code == 204


@pytest.mark.parametrize("name", ["../darkroom.db", "%2e%2e%2fdarkroom.db", "..%2Fdarkroom.db"])
def test_a_name_reaches_nothing_else(house: House, name: str) -> None:
    assert house.http.delete(f"/models/{name}").status_code in (404, 405)
    assert (house.server.data_dir / "darkroom.db").exists()


def test_all_of_it_is_the_owners(house: House) -> None:
    guest = house.caller(Scope.USE)
    path = "/pulls/" + "0" * 24
    for method, address, body in (
        ("POST", "/models/pull", {"source": FOX}),
        ("GET", "/pulls", None),
        ("GET", path, None),
        ("DELETE", path, None),
        *(("DELETE", f"/{kind}/x", None) for kind in ("models", "loras", "embeddings")),
        ("DELETE", "/upscalers/x", None),
    ):
        answer = house.http.request(method, address, json=body, headers=guest)
        assert answer.status_code == 403, address
    owner = house.caller(Scope.OWN)
    assert house.http.get("/pulls", headers=owner).status_code == 200
