"""What a name says of a model or LoRA that was distilled to few steps. Its tensors do not say it.

Sources: the model cards of LCM-LoRA, TCD, Hyper-SD, SDXL-Lightning, DMD2, FLUX.1-Turbo-Alpha and
Qwen-Image-Lightning.
"""

import re
from dataclasses import dataclass

LCM, TCD, EULER = "lcm", "tcd", "euler_a_sgm_uniform"

_BEGIN, _END = r"(?<![a-z])", r"(?![a-z])"
# Schedulers of UNets by the method's name. Transformers keep their own.
_METHODS = (
    (f"{_BEGIN}(?:lcm|dmd2?){_END}", LCM),
    (f"{_BEGIN}tcd{_END}", TCD),
    (rf"(?<!de)(?<!de[-_ ])(?:turbo|schnell|lightning|hyper(?:-?sd|{_END}))", EULER),
)
_STEPS = re.compile(r"(?<!\d)([1-9]\d?)[-_ ]?steps?(?![a-z])", re.IGNORECASE)
# The last methods are words, too, of which a LoRA may be: a sports car, a storm. They are believed
# beside a number of steps, or where the whole name is known.
_KNOWN = re.compile(r"hyper-?sd|turbo-alpha", re.IGNORECASE)
_USUAL_STEPS = {LCM: 4, TCD: 4, EULER: 8}  # of a LoRA whose name has no number
_GUIDED = re.compile(f"{_BEGIN}cfg{_END}", re.IGNORECASE)  # some of Hyper-SD keep guidance


@dataclass(frozen=True)
class FewSteps:
    """How a model with a LoRA is sampled that distils it.

    Attributes:
        scheduler: of UNets.
        guided: whether it takes guidance as before.
    """

    scheduler: str
    steps: int
    guided: bool


def scheduler_of(name: str) -> str | None:
    """The scheduler of a distilled model, by its name; None if that says nothing."""
    found = (scheduler for method, scheduler in _METHODS if re.search(method, name, re.IGNORECASE))
    return next(found, None)


def steps(name: str) -> int | None:
    """The number of steps in a name, such as `lightning-4step`; None if there is none."""
    said = _STEPS.search(name)
    return int(said[1]) if said else None


def of_lora(*names: str) -> FewSteps | None:
    """How a LoRA is sampled, by the first of its names that says it; None if none does."""
    for name in names:
        scheduler, count = scheduler_of(name), steps(name)
        sure = scheduler in (LCM, TCD) or count is not None or _KNOWN.search(name)
        if scheduler is not None and sure:
            return FewSteps(scheduler, count or _USUAL_STEPS[scheduler], bool(_GUIDED.search(name)))
    return None
