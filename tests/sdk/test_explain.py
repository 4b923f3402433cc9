"""`job.explain()`, and what it saves."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from darkroom_client import AsyncClient, Client, Job, NotFoundError
from darkroom_client.terminal.commands import cli
from tests.serving import RunningServer


@pytest.fixture(scope="module")
def job(server: RunningServer) -> Job:
    """With two pictures that are explained."""
    with Client(server.url) as client:
        return client.txt2img(
            "a fox", explain=True, num_images=2, num_inference_steps=3, seed=7
        ).wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_is_read(server: RunningServer, job: Job) -> None:
    with Client(server.url) as client:
        told = client.job(job.id).explain()

    assert [image.index for image in told.images] == [0, 1]
    image = told.images[0]
    assert [token.text for token in image.tokens] == [
        "<|startoftext|>",
        "a",
        "fox",
        "<|endoftext|>",
        "",
    ]
    assert image.words == (("a", (1,)), ("fox", (2,)))
    assert set(image.maps) == {"carried_back", "all_steps", "last_quarter"}
    for maps in image.maps.values():
        tokens, height, width = maps.shape
        assert tokens == len(image.tokens) == len(maps.peaks)
        assert max(maps.of(2)) == 255
        assert len(maps.of(2)) == height * width
    assert [step.index for step in image.steps] == [0, 1, 2]


def test_all_ways_save_the_same_files(server: RunningServer, job: Job, tmp_path: Path) -> None:
    with Client(server.url) as client:
        assert client.job(job.id).explain().save(tmp_path / "blocking") == tmp_path / "blocking"

    async def save() -> None:
        async with AsyncClient(server.url) as client:
            explanation = await (await client.job(job.id)).explain()
            await explanation.save(tmp_path / "async")

    asyncio.run(save())
    done = CliRunner().invoke(
        cli, ["explain", job.id, "-o", str(tmp_path / "cli"), "--url", server.url]
    )

    assert done.exit_code == 0, done.output
    made = contents(tmp_path / "blocking")
    assert made == contents(tmp_path / "async") == contents(tmp_path / "cli")
    told = json.loads(made["1/explanation.json"])
    for kind in ("carried_back", "all_steps", "last_quarter"):
        assert told["maps"][kind]["files"][2] == f"{kind}-002-fox.png"
        for file in told["maps"][kind]["files"]:
            with Image.open(tmp_path / "cli" / "1" / file) as picture:
                assert picture.size == (128, 128)
    assert told["steps"][0]["guess"] == "step-000-guess.webp"
    assert made["1/step-000-guess.webp"][8:12] == b"WEBP"
    assert (tmp_path / "cli" / "2" / "picture.png").read_bytes() == made["2/picture.png"]


def test_a_job_that_was_not_asked_says_how_to(server: RunningServer, tmp_path: Path) -> None:
    with Client(server.url) as client:
        plain = client.txt2img("a fox", num_inference_steps=1).wait()
        with pytest.raises(NotFoundError, match='"explain": true'):
            plain.explain()
    done = CliRunner().invoke(
        cli, ["explain", plain.id, "-o", str(tmp_path / "none"), "--url", server.url]
    )

    assert done.exit_code == 5
    assert not (tmp_path / "none").exists()
