"""What is shown and what is said of it: scenes of one or several things, and captions of them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from training.colours import BACKGROUNDS, GREYS, HUES
from training.data import THINGS, Subject, lines

Weighted = tuple[list[int], list[float]]

NEAR = (
    "under",
    "near",
    "behind",
    "in",
    "in front of",
    "holding",
    "sitting on",
    "inside",
    "looking at",
)
FULL = 0.86  # a single thing's side, of the picture's
HALF = 0.47
UNNAMED = "white"  # the background of a caption that names none
UNNAMED_SHARE = 10 / 11  # of captions on it; with half of all on it, half of all name theirs
UNCOUNTABLE = ("face", "hair", "fog", "rice", "people", "scissors", "glasses")

# Where the things of a counted scene are: side, and centres as shares of the picture's side.
PLACES: dict[int, tuple[float, tuple[tuple[float, float], ...]]] = {
    2: (HALF, ((0.265, 0.5), (0.735, 0.5))),
    3: (0.44, ((0.5, 0.27), (0.27, 0.72), (0.73, 0.72))),
    4: (0.44, ((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73))),
}
NUMBERS = {2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4")}
# Of what is shown; "alone" is one thing as it is on a flat colour.
SHARES = {"alone": 0.58, "pair": 0.18, "two": 0.05, "composed": 0.19}
COMPOSED_SHARES = {"coloured": 0.09, "gradient": 0.06, "counted": 0.04}
COMPOSED = 9_000  # such scenes, each shown again and again: their latents are computed once

OPENINGS = ("a picture of ", "a photo of ", "an icon of ", "an image of ", "a drawing of ",
            "photo of ", "cute ", "portrait of ", "a 3d render of ", "an emoji of ", "a beautiful ",
            "draw ", "show me ", "a painting of ", "a cartoon ", "a small ", "a big ",
            "one ")  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A subject in a scene.

    Attributes:
        subject: its number.
        side: as a share of the picture's.
        centre: across and down, as shares of the picture's side.
        colour: that it is turned to, or None for its own.
    """

    subject: int
    side: float = FULL
    centre: tuple[float, float] = (0.5, 0.5)
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """Things on a background: one colour, or two for a soft gradient from top to bottom."""

    things: tuple[Thing, ...]
    background: tuple[str, ...]


@cache
def fillers() -> tuple[str, ...]:
    """Phrases that do not change what is shown."""
    return tuple(lines("fillers.txt"))


@cache
def held_out() -> frozenset[frozenset[str]]:
    """Pairs of names that are never shown together in training."""
    return frozenset(frozenset(line.split(" + ")) for line in lines("held_out_pairs.txt"))


def article(noun: str) -> str:
    """A noun with "a" or "an", unless it is a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """A noun's regular plural."""
    if noun.endswith(("s", "x", "sh", "ch")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun[:-2]}ves" if noun.endswith(("lf", "af")) else f"{noun}s"


def countable(subject: Subject) -> bool:
    """Whether "two …" of a subject's name is something to say."""
    words = subject.name.split()
    regular = words[-1].isalpha() and not words[-1].endswith("s")
    return len(words) <= 2 and regular and words[-1] not in UNCOUNTABLE


class Captions:
    """Draws scenes and captions; the same generator gives the same ones.

    Args:
        subjects: of the data set.

    Attributes:
        scenes: whose latents are needed. Things on each background, alone and twice, then composed
            scenes. Pairs are not among them: their halves are (`halves`).
    """

    def __init__(self, subjects: tuple[Subject, ...]) -> None:
        self.subjects = subjects
        numbers = range(len(subjects))
        things = [n for n in numbers if subjects[n].group in THINGS]
        self._names = [subjects[n].name for n in things]
        self._all = self._weighted(numbers)
        self._counted = self._weighted(n for n in numbers if countable(subjects[n]))
        self._paired = self._weighted(things)
        self._coloured = self._weighted(n for n in things if subjects[n].colours)
        rng = random.Random(0)
        self._composed = tuple(self._compose(rng) for _ in range(COMPOSED))
        alone = (single(number, colour) for number in numbers for colour in BACKGROUNDS)
        twice = sorted({*self._counted[0], *self._paired[0]})
        doubled = (counted(number, 2, colour) for number in twice for colour in BACKGROUNDS)
        self.scenes = (*alone, *doubled, *self._composed)

    def batch(self, rng: random.Random, count: int) -> tuple[list[Scene], list[str]]:
        """Scenes, and a caption of each."""
        drawn = [self.draw(rng) for _ in range(count)]
        return [scene for scene, _ in drawn], [said for _, said in drawn]

    def draw(self, rng: random.Random) -> tuple[Scene, str]:
        """A scene and what a person might type to get it."""
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        if kind == "alone":
            scene = single(self._one(rng, self._all), _background(rng))
        elif kind == "two":
            scene = counted(self._one(rng, self._counted), 2, _background(rng))
        elif kind == "pair":
            scene = pair(*self._pair(rng), _background(rng))
        else:
            scene = rng.choice(self._composed)
        return scene, self.caption(scene, rng)

    def caption(self, scene: Scene, rng: random.Random) -> str:
        """What a person might type to get a scene."""
        first, last = scene.things[0], scene.things[-1]
        if len(scene.things) == 1:
            noun = self._noun(first.subject, rng, first.colour or self._own_colour(first, rng))
            noun = article(noun) if rng.random() < 0.7 else noun
        elif first.subject == last.subject:
            count = len(scene.things)
            noun = f"{rng.choice(NUMBERS[count])} {plural(self.subjects[first.subject].name)}"
        else:
            left, right = (article(self._noun(t.subject, rng)) for t in (first, last))
            noun = rng.choice(("{} and {}", "{} and {}", "{} next to {}", "{} beside {}",
                               "{} with {}", "{}, {}")).format(left, right)  # fmt: skip
        return dressed(noun, _where(scene.background, rng), self._names, rng)

    def _compose(self, rng: random.Random) -> Scene:
        """A thing in another colour or on a gradient, or three or four of it."""
        kind = rng.choices(list(COMPOSED_SHARES), list(COMPOSED_SHARES.values()))[0]
        if kind == "coloured":
            number, colour = self._one(rng, self._coloured), rng.choice((*HUES, *GREYS))
            return single(number, _background(rng), colour)
        if kind == "gradient":
            first, second = rng.sample(list(HUES), 2)
            return Scene((Thing(self._one(rng, self._all)),), (first, second))
        return counted(self._one(rng, self._counted), rng.choice((3, 4)), _background(rng))

    def _own_colour(self, thing: Thing, rng: random.Random) -> str:
        """A word for the colour that a thing has, seldom; else nothing."""
        subject = self.subjects[thing.subject]
        said = subject.group in THINGS and rng.random() < 0.15
        return rng.choice((*subject.colours, "")) if said else ""

    def _noun(self, number: int, rng: random.Random, colour: str = "") -> str:
        subject = self.subjects[number]
        noun = subject.name
        if subject.words and rng.random() < 0.4:
            noun = rng.choice(subject.words)
        return f"{colour} {noun}" if colour and colour not in noun.split() else noun

    def _weighted(self, numbers: Iterable[int]) -> Weighted:
        """Subjects' numbers, with their weights summed up to each."""
        chosen = list(numbers)
        return chosen, list(accumulate(self.subjects[n].weight for n in chosen))

    def _one(self, rng: random.Random, among: Weighted) -> int:
        return rng.choices(among[0], cum_weights=among[1])[0]

    def _pair(self, rng: random.Random) -> tuple[int, int]:
        while True:
            left, right = self._one(rng, self._paired), self._one(rng, self._paired)
            names = frozenset((self.subjects[left].name, self.subjects[right].name))
            if len(names) == 2 and names not in held_out():
                return left, right


def _background(rng: random.Random) -> str:
    """A flat colour that a caption names, or, half of the time, the one that it need not name."""
    return UNNAMED if rng.random() < 0.5 else rng.choice(list(BACKGROUNDS))


def _where(background: tuple[str, ...], rng: random.Random) -> str:
    """The words for a background."""
    if len(background) == 2:
        first, second = background
        ways = (
            f" on {article(first)} and {second} gradient",
            f" on a gradient from {first} to {second}",
            f", {first} to {second} gradient background",
        )
        return rng.choice(ways)
    named = background[0]
    if named == UNNAMED and rng.random() < UNNAMED_SHARE:
        return ""
    ways = (
        f" on {article(named)} background",
        f" on {article(named)} background",
        f", {named} background",
        f" on {named}",
        f" with {article(named)} background",
        f" in front of {article(named)} wall",
    )
    return rng.choice(ways)


def single(number: int, background: str = UNNAMED, colour: str | None = None) -> Scene:
    """One thing on a flat colour."""
    return Scene((Thing(number, colour=colour),), (background,))


def counted(number: int, count: int, background: str = UNNAMED) -> Scene:
    """Two to four times the same thing."""
    side, centres = PLACES[count]
    return Scene(tuple(Thing(number, side, centre) for centre in centres), (background,))


def pair(left: int, right: int, background: str = UNNAMED) -> Scene:
    """Two things side by side."""
    side, centres = PLACES[2]
    places = zip((left, right), centres, strict=True)
    return Scene(tuple(Thing(number, side, centre) for number, centre in places), (background,))


def halves(scene: Scene) -> tuple[Scene, Scene] | None:
    """Of a pair, as `pair` makes it: the scenes whose left and whose right half make it.

    None for other scenes.
    """
    first, last = scene.things[0], scene.things[-1]
    if len(scene.things) != 2 or first.subject == last.subject:
        return None
    (background,) = scene.background
    return counted(first.subject, 2, background), counted(last.subject, 2, background)


def dressed(noun: str, where: str, elsewhere: Sequence[str], rng: random.Random) -> str:
    """A noun and its background among words that do not matter, as in prompts that people paste.

    Args:
        noun: what is shown.
        where: the background, or nothing.
        elsewhere: names of things that are only mentioned, as in "a fox under a tree".
        rng: chooses.
    """
    text = noun
    if rng.random() < 0.2:
        opening = rng.choice(OPENINGS)
        bare = noun.split(" ", 1)[-1] if noun.startswith(("a ", "an ")) else noun
        text = opening + (noun if opening.endswith((" of ", "me ")) else bare)
    text += where
    if rng.random() < 0.06:
        text += f" {rng.choice(NEAR)} {article(rng.choice(elsewhere))}"
    if rng.random() < 0.4:
        count = rng.choice((1, 1, 2, 3, 4, 6, 9, 14))
        chosen = rng.sample(fillers(), count)
        text = ", ".join((text, *chosen)) if rng.random() < 0.8 else " ".join((text, *chosen[:3]))
    if rng.random() < 0.05:
        text = f"{rng.choice(fillers())}, {text}"
    return text
