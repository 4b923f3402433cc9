"""The data set: things with names, and photographs, in one file."""

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

PACK = Path(__file__).with_name("pictures.zip")
TINTYPE = Path("server/darkroom/models/tintype")
INDEX, SMALL, LARGER, PHOTOGRAPH = "index.json", "small/", "large/", "photographs/"
HELD_OUT = "held_out/"
SIDE = 110  # pixels of a thing's picture, which fills 86 % of a training picture
SIZE = 128  # pixels a side of a training picture
# Unicode's groups of what has a plain noun for a name, unlike faces, people and signs.
THINGS = ("Animals & Nature", "Food & Drink", "Objects", "Travel & Places", "Activities")


def lines(name: str) -> list[str]:
    """The lines of a list beside this file."""
    return PACK.with_name(name).read_text().splitlines()


@dataclass(frozen=True)
class Subject:
    """A thing that tintype learns to draw.

    Attributes:
        name: what a person calls it, lower case.
        group: of Unicode, such as "Food & Drink".
        words: others that mean it.
        colours: words for its main colour, possibly none.
        weight: how often it is shown, relative to others.
    """

    name: str
    group: str
    words: tuple[str, ...]
    colours: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class DataSet:
    """What tintype and its upscalers learn from.

    Attributes:
        subjects: what has a name.
        pictures: one of each, RGBA, 110×110.
        large: of some of them, RGBA, 256×256.
        photographs: RGB, 512 pixels on the shorter side.
        held_out: of others, RGBA, 256×256; nothing learns from them.
    """

    subjects: tuple[Subject, ...]
    pictures: tuple[Image.Image, ...]
    large: tuple[Image.Image, ...]
    photographs: tuple[Image.Image, ...]
    held_out: tuple[Image.Image, ...] = ()

    def number(self, name: str) -> int:
        """The position of the subject with a name.

        Raises:
            StopIteration: there is none.
        """
        return next(n for n, subject in enumerate(self.subjects) if subject.name == name)


@cache
def load(path: Path = PACK) -> DataSet:
    """Read the data set."""
    with zipfile.ZipFile(path) as pack:
        subjects = tuple(
            Subject(
                entry["name"],
                entry["group"],
                tuple(entry["words"]),
                tuple(entry["colours"]),
                entry["weight"],
            )
            for entry in json.loads(pack.read(INDEX))
        )

        def pictures(folder: str, mode: str) -> tuple[Image.Image, ...]:
            names = sorted(name for name in pack.namelist() if name.startswith(folder))
            opened = (Image.open(io.BytesIO(pack.read(name))) for name in names)
            return tuple(image.convert(mode) for image in opened)

        return DataSet(
            subjects,
            pictures(SMALL, "RGBA"),
            pictures(LARGER, "RGBA"),
            pictures(PHOTOGRAPH, "RGB"),
            pictures(HELD_OUT, "RGBA"),
        )
