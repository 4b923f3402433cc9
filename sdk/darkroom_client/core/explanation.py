"""How a job's pictures were made, as the server tells it, and as files."""

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import PIL.Image

DARKEST = 64  # of 255: what is left of a picture where nobody looked
MAPS = ("carried_back", "all_steps", "last_quarter")
PICTURES = ("latents", "predicted_noise", "guess")


@dataclass(frozen=True)
class Token:
    """A token of the prompt.

    Attributes:
        kind: start, text, end, template or padding.
        word: index of its word, or None.
    """

    text: str
    kind: str
    word: int | None


@dataclass(frozen=True)
class Maps:
    """Where the network looked for each token: bytes, (tokens, height, width), row by row.

    Attributes:
        peaks: the greatest number of each token's map: a number is byte / 255 × peak, the share of
            its attention that a place of the picture gives to that token.
    """

    shape: tuple[int, int, int]
    data: bytes
    peaks: tuple[float, ...]

    def of(self, token: int) -> bytes:
        """One token's map, height × width bytes; its peak is 255."""
        size = self.shape[1] * self.shape[2]
        return self.data[token * size : (token + 1) * size]


@dataclass(frozen=True)
class Step:
    """A denoising step. Its pictures are WebP, or None where none can be shown.

    Attributes:
        index: among the picture's own steps, from 0.
        signal: how much of the latents is picture; `noise` is how much is noise.
        latents: what the network was given.
        predicted_noise: the noise that it found there.
        guess: the picture that would be left without that noise.
    """

    index: int
    timestep: float
    signal: float
    noise: float
    latents: bytes | None
    predicted_noise: bytes | None
    guess: bytes | None


@dataclass(frozen=True)
class ExplainedImage:
    """How a picture was made.

    Attributes:
        crop: left, top, right and bottom of the part that maps and steps show; None is all of it.
        words: each with the indices of its tokens. A word's map is the sum of theirs.
        maps: `all_steps`, `last_quarter`, and of models with CLIP alone `carried_back`, which is
            carried back through the text encoder.
        seconds: by part: prepare, denoise, decode.
    """

    index: int
    seed: int
    crop: tuple[int, int, int, int] | None
    tokens: tuple[Token, ...]
    words: tuple[tuple[str, tuple[int, ...]], ...]
    maps: Mapping[str, Maps]
    steps: tuple[Step, ...]
    seconds: Mapping[str, float]

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            index=data["index"],
            seed=data["seed"],
            crop=None if data["crop"] is None else tuple(data["crop"]),
            tokens=tuple(
                Token(each["text"], each["kind"], each["word"]) for each in data["tokens"]
            ),
            words=tuple((each["text"], tuple(each["tokens"])) for each in data["words"]),
            maps={name: _maps(data["maps"][name]) for name in MAPS if data["maps"][name]},
            steps=tuple(_step(each) for each in data["steps"]),
            seconds=dict(data["seconds"]),
        )

    def files(self, stored: bytes, suffix: str) -> Iterator[tuple[str, bytes]]:
        """Everything as files, by their names: each map over the picture, and the rest as JSON.

        Args:
            stored: the picture's file, of this suffix.

        Raises:
            ImportError: Pillow is not installed; `pip install darkroom-client[pil]`.
        """
        import PIL.Image

        with PIL.Image.open(io.BytesIO(stored)) as opened:
            picture = opened.convert("RGB").crop(self.crop)
        told: dict[str, Any] = {
            "index": self.index,
            "seed": self.seed,
            "crop": self.crop,
            "tokens": [vars(token) for token in self.tokens],
            "words": [{"text": text, "tokens": tokens} for text, tokens in self.words],
            "seconds": self.seconds,
            "maps": {},
            "steps": [],
        }
        yield f"picture{suffix}", stored
        for name, maps in self.maps.items():
            names = [
                f"{name}-{_name(number, each.text or each.kind)}.png"
                for number, each in enumerate(self.tokens)
            ]
            told["maps"][name] = {"peaks": maps.peaks, "files": names}
            for number, file in enumerate(names):
                yield file, _lit(picture, maps.of(number), (maps.shape[2], maps.shape[1]))
        for step in self.steps:
            shown = {}
            for which in PICTURES:
                data = getattr(step, which)
                shown[which] = None if data is None else f"step-{_name(step.index, which)}.webp"
                if data is not None:
                    yield f"step-{_name(step.index, which)}.webp", data
            told["steps"].append({**vars(step), **shown})
        yield "explanation.json", json.dumps(told, ensure_ascii=False, indent=1).encode()


def images_of(data: Mapping[str, Any]) -> Sequence[ExplainedImage]:
    """The pictures in the server's answer."""
    return tuple(ExplainedImage.from_wire(image) for image in data["images"])


def _maps(data: Mapping[str, Any]) -> Maps:
    tokens, height, width = data["shape"]
    return Maps((tokens, height, width), base64.b64decode(data["data"]), tuple(data["peaks"]))


def _step(data: Mapping[str, Any]) -> Step:
    pictures = {
        which: None if data[which] is None else base64.b64decode(data[which].partition(",")[2])
        for which in PICTURES
    }
    return Step(
        index=data["index"],
        timestep=data["timestep"],
        signal=data["signal"],
        noise=data["noise"],
        latents=pictures["latents"],
        predicted_noise=pictures["predicted_noise"],
        guess=pictures["guess"],
    )


def _name(number: int, text: str) -> str:
    """Part of a file's name, in order and without what file systems take amiss."""
    plain = re.sub(r"[^\w-]+", "", text)[:40]
    return f"{number:03}-{plain}" if plain else f"{number:03}"


def _lit(picture: "PIL.Image.Image", maps: bytes, size: tuple[int, int]) -> bytes:
    """A picture that is dark where a map is low, as PNG."""
    import PIL.Image
    import PIL.ImageChops

    light = PIL.Image.frombytes("L", size, maps).resize(picture.size, PIL.Image.Resampling.BILINEAR)
    light = light.point([DARKEST + (255 - DARKEST) * value // 255 for value in range(256)])
    buffer = io.BytesIO()
    PIL.ImageChops.multiply(picture, light.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()
