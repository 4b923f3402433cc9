"""Asking for pictures and getting them."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image

from darkroom_client import (
    Client,
    ImageEvent,
    Img2Img,
    InvalidRequestError,
    Job,
    JobStatus,
    Lora,
    NotFoundError,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    SucceededEvent,
    Task,
    Txt2Img,
)
from darkroom_client.core import sources
from tests.serving import RunningServer


@pytest.fixture(scope="module")
def job(client: Client) -> Job:
    """A finished job of two pictures."""
    return client.txt2img(
        "a red fox", num_inference_steps=2, num_images=2, seed=7, exact=True
    ).wait(120)


def test_a_finished_job_tells_everything(job: Job) -> None:
    assert (job.task, job.status, job.error) == (Task.TXT2IMG, JobStatus.SUCCEEDED, None)
    assert job.status.terminal
    assert job.progress.fraction == 1
    assert job.request["seed"] == 7
    assert [image.seed for image in job.images] == [7, 8]
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at


def test_events_come_in_order_and_typed(job: Job) -> None:
    events = list(job)
    assert [event.id for event in events] == sorted({event.id for event in events})
    kinds = [type(event) for event in events]
    assert kinds[:2] == [QueuedEvent, StartedEvent]
    assert kinds[-1] is SucceededEvent
    assert [e.image for e in events if isinstance(e, ImageEvent)] == list(job.images)
    steps = [e.progress for e in events if isinstance(e, ProgressEvent)]
    assert steps[-1].fraction == 1
    preview = next(e for e in events if isinstance(e, PreviewEvent))
    with Image.open(io.BytesIO(preview.data)) as picture:
        assert picture.get_format_mimetype() == preview.content_type


def test_a_job_shows_how_its_picture_developed(job: Job) -> None:
    with Image.open(io.BytesIO(job.timeline())) as film:
        assert film.format == "WEBP"
        assert film.n_frames > 1


def test_each_picture_of_a_job_shows_how_it_developed(job: Job) -> None:
    films = [job.timeline(index) for index in range(2)]
    assert films[0] == job.timeline()
    assert films[0] != films[1]
    with pytest.raises(NotFoundError, match="there is no picture 2"):
        job.timeline(2)


def test_a_job_followed_live_is_renewed_by_its_last_event(client: Client) -> None:
    followed = client.txt2img("a red fox", num_inference_steps=2)
    assert not followed.status.terminal
    for event in followed:
        if event.terminal:
            assert followed.status is JobStatus.SUCCEEDED
    assert len(followed.images) == 1


def test_a_request_sent_again_makes_the_same_picture(client: Client, job: Job) -> None:
    again = client.txt2img(**job.request).wait(120)
    assert again.id != job.id
    assert [image.sha256 for image in again.images] == [image.sha256 for image in job.images]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("fox.png", "PNG"), ("fox.JPG", "JPEG"), ("fox.webp", "WEBP"), ("fox", "PNG")],
)
def test_the_suffix_chooses_the_format(job: Job, tmp_path: Path, name: str, kind: str) -> None:
    saved = job.images[0].save(tmp_path / name)
    with Image.open(saved) as picture:
        assert picture.format == kind
        assert picture.size == (job.images[0].width, job.images[0].height)


def test_a_notebook_shows_the_picture(job: Job) -> None:
    with Image.open(io.BytesIO(job.images[0]._repr_png_())) as picture:
        assert picture.format == "PNG"


def test_an_unknown_suffix_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.gif"):
        job.images[0].save(tmp_path / "fox.gif")
    assert not list(tmp_path.iterdir())


def test_bytes_are_as_stored(client: Client, job: Job) -> None:
    image = job.images[1]
    assert len(image.bytes()) == image.size_bytes
    assert client.image(image.id).bytes() == image.bytes()
    with Image.open(io.BytesIO(image.thumbnail(32))) as small:
        assert small.width == 32


def test_inpainting_with_files(client: Client, photo: Path, mask: Path) -> None:
    job = client.inpaint(
        "a red fox",
        image=photo,
        mask_image=mask,
        num_inference_steps=2,
        guidance_scale=1.0,
        mask_blur=2,
        keep_unmasked=True,
        output_format="webp",
    ).wait(120)
    assert job.task is Task.INPAINT
    assert job.request["guidance_scale"] == 1
    assert job.images[0].content_type == "image/webp"


SOURCES: dict[str, Callable[[Path], object]] = {
    "path": lambda photo: photo,
    "string": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda photo: bytearray(photo.read_bytes()),
    "file": lambda photo: io.BytesIO(photo.read_bytes()),
    "Pillow": lambda photo: Image.open(photo).convert("RGB"),
    "array": lambda photo: numpy.asarray(Image.open(photo).convert("RGB")),
    "array of floats": lambda photo: numpy.asarray(Image.open(photo).convert("RGB")) / 255,
}


@pytest.mark.parametrize("form", SOURCES)
def test_a_picture_is_taken_in_any_form(idle_client: Client, photo: Path, form: str) -> None:
    job = idle_client.img2img("a fox", image=SOURCES[form](photo), strength=0.5)  # type: ignore[arg-type]
    stored = idle_client.image(job.request["image"].removeprefix("image:"))
    with Image.open(photo) as original:
        assert stored.pil().tobytes() == original.convert("RGB").tobytes()
    job.cancel()


def test_a_stored_picture_is_not_sent_again(idle_client: Client, photo: Path) -> None:
    first = idle_client.img2img("a fox", image=photo)
    reference = first.request["image"]
    stored = idle_client.image(reference.removeprefix("image:"))
    for source in (reference, stored):
        job = idle_client.img2img("a fox", image=source)
        assert job.request["image"] == reference
        job.cancel()
    first.cancel()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "HSV", "F"])
def test_any_pillow_image_can_be_sent(idle_client: Client, mode: str) -> None:
    picture = Image.new("RGB", (64, 64), "red").convert(mode if mode != "HSV" else "RGB")
    picture = picture.convert("HSV") if mode == "HSV" else picture
    idle_client.img2img("a fox", image=picture).cancel()


def test_a_mask_may_be_an_array_of_truths(idle_client: Client, photo: Path) -> None:
    mask = numpy.zeros((300, 451), dtype=bool)
    mask[50:100] = True
    job = idle_client.inpaint("a fox", image=photo, mask_image=mask)
    stored = idle_client.image(job.request["mask_image"].removeprefix("image:"))
    assert (numpy.asarray(stored.pil().convert("L")) == mask * 255).all()
    job.cancel()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_keep_every_level_and_alpha(channels: int) -> None:
    levels = numpy.arange(256 * channels, dtype="uint8").reshape(8, 32, channels)
    with Image.open(io.BytesIO(sources.read(levels))) as picture:  # type: ignore[arg-type]
        assert (numpy.asarray(picture).reshape(levels.shape) == levels).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (numpy.zeros((3, 64, 65), "uint8"), "channels come last"),
        (numpy.zeros(5, "uint8"), "height × width"),
        (numpy.zeros((0, 64), "uint8"), "height × width"),
        (numpy.zeros((64, 64), "int64"), "not int64"),
        (numpy.full((64, 64), 1.5), "from 0 to 1"),
        (numpy.full((64, 64), numpy.nan), "from 0 to 1"),
    ],
)
def test_other_arrays_are_refused(array: sources.PixelArray, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        sources.read(array)


def test_what_is_no_picture_is_refused(idle_client: Client, photo: Path) -> None:
    with pytest.raises(TypeError, match="not int"):
        idle_client.img2img("a fox", image=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rb"), photo.open(encoding="latin-1") as text:
        idle_client.img2img("a fox", image=text)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        idle_client.img2img("a fox", image="nowhere.png")
    with pytest.raises(InvalidRequestError) as caught:
        idle_client.img2img("a fox", image=b"not a picture")
    assert [error.pointer for error in caught.value.errors] == ["#/image"]


@pytest.mark.parametrize("upload", [False, True], ids=["JSON", "multipart"])
def test_every_field_reaches_the_server(idle_client: Client, photo: Path, upload: bool) -> None:
    asked = {
        "prompt": "a “fox”\nin two lines",
        "negative_prompt": "a dog",
        "width": 128,
        "height": 136,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "num_images": 2,
        "seed": 2**32 - 1,
        "scheduler": "euler_karras",
        "model": "tintype",
        "clip_skip": 1,
        "output_format": "jpeg",
        "exact": True,
    }
    if upload:
        drawn = {
            "mask_blur": 3,
            "padding_mask_crop": 8,
            "invert_mask": True,
            "keep_unmasked": False,
            "strength": 0.9,
        }
        job = idle_client.inpaint(**asked, **drawn, image=photo, mask_image=photo)  # type: ignore[arg-type]
        asked |= drawn
    else:
        job = idle_client.txt2img(**asked)  # type: ignore[arg-type]
    assert {name: job.request[name] for name in asked} == asked
    job.cancel()


@pytest.mark.parametrize("upload", [False, True], ids=["JSON", "multipart"])
def test_loras_reach_the_server(idle_client: Client, photo: Path, upload: bool) -> None:
    loras = [Lora("nobody"), Lora("nothing", 0.5)]
    request = (
        Img2Img("a fox", image=photo, loras=loras) if upload else Txt2Img("a fox", loras=loras)
    )
    with pytest.raises(InvalidRequestError) as caught:
        idle_client.submit(request)
    pointers = [error.pointer for error in caught.value.errors]
    assert pointers == ["#/loras/0/name", "#/loras/1/name"]


def test_the_readme_example(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = Path(__file__).parents[2] / "sdk" / "README.md"
    example = re.search(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_URL", server.url)
    exec(compile(example.group(1), str(readme), "exec"), {})
    assert len(list(tmp_path.glob("fox-*.png"))) == 2
