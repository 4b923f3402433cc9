"""A1111's samplers and schedule types, and our scheduler for each.

Labels, aliases and default schedules from `modules/sd_samplers_kdiffusion.py`,
`modules/sd_samplers_timesteps.py` and `modules/sd_schedulers.py`.
"""

from dataclasses import dataclass
from typing import Any

from darkroom.api.errors import ProblemError
from darkroom.catalog import schedulers
from darkroom.responses import ModelInfo

DEFAULT = "Euler"
AUTOMATIC = "automatic"
# What clients send for no schedule in particular.
UNSPECIFIED = ("", "none", "default", "usesamescheduler")
# Ends of samplers' names for a schedule: k_dpmpp_2m_ka before version 1.9, dpmpp_2m_k in InvokeAI.
OLD_ENDINGS = {"ka": "karras", "exp": "exponential", "k": "karras"}


@dataclass(frozen=True)
class Sampler:
    """One of A1111's samplers.

    `ours` is our scheduler that is the same or, unless `same`, the nearest; `automatic` is the
    spacing that the schedule type of this name means.
    """

    label: str
    ours: str
    aliases: tuple[str, ...]
    automatic: str | None = None
    same: bool = True


SAMPLERS = (
    Sampler("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",), "karras"),
    Sampler("DPM++ SDE", "dpmpp_sde", ("k_dpmpp_sde",), "karras"),
    Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",), "exponential"),
    Sampler("DPM++ 2M SDE Heun", "dpmpp_2m_sde", ("k_dpmpp_2m_sde_heun",), "exponential", False),
    Sampler("DPM++ 2S a", "dpmpp_sde", ("k_dpmpp_2s_a", "dpmpp_2s_ancestral"), "karras", False),
    Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", ("k_dpmpp_3m_sde",), "exponential"),
    Sampler("Euler a", "euler_a", ("k_euler_a", "k_euler_ancestral", "euler_ancestral")),
    Sampler("Euler", "euler", ("k_euler",)),
    Sampler("LMS", "lms", ("k_lms",)),
    Sampler("Heun", "heun", ("k_heun",)),
    Sampler("DPM2", "dpm2", ("k_dpm_2", "dpm_2"), "karras"),
    Sampler("DPM2 a", "dpm2_a", ("k_dpm_2_a", "dpm_2_ancestral"), "karras"),
    Sampler("DPM fast", "dpmpp_2m", ("k_dpm_fast",), None, False),
    Sampler("DPM adaptive", "dpmpp_2m", ("k_dpm_ad",), None, False),
    Sampler("Restart", "heun", ("restart",), "karras", False),
    Sampler("DDIM", "ddim", ()),
    Sampler("DDIM CFG++", "ddim", ("ddim_cfgpp",), None, False),
    Sampler("PLMS", "pndm", ()),
    Sampler("UniPC", "unipc", ()),
    Sampler("LCM", "lcm", ("k_lcm",)),
    Sampler("DDPM", "ddpm", ()),
    Sampler("DEIS", "deis", ()),
    Sampler("TCD", "tcd", ()),
)


@dataclass(frozen=True)
class Schedule:
    """One of A1111's schedule types.

    `spacing` is ours that is the same or, unless `same`, the nearest; None is the plain one.
    """

    name: str
    label: str
    spacing: str | None
    same: bool = True
    rho: float = -1.0
    aliases: tuple[str, ...] = ()


SCHEDULES = (
    Schedule(AUTOMATIC, "Automatic", None),
    Schedule("uniform", "Uniform", None),
    Schedule("karras", "Karras", "karras", rho=7.0),
    Schedule("exponential", "Exponential", "exponential"),
    Schedule("polyexponential", "Polyexponential", "exponential", rho=1.0),  # the same at 1
    Schedule("sgm_uniform", "SGM Uniform", "sgm_uniform", aliases=("SGMUniform",)),
    Schedule("kl_optimal", "KL Optimal", "karras", same=False),
    Schedule("align_your_steps", "Align Your Steps", "karras", same=False),
    Schedule("simple", "Simple", None, same=False),
    Schedule("normal", "Normal", None),
    Schedule("ddim", "DDIM", None, same=False, aliases=("ddim_uniform",)),
    Schedule("beta", "Beta", "beta"),
    Schedule("turbo", "Turbo", "sgm_uniform", same=False),
)


def _plain(name: str) -> str:
    """A name without what clients write differently: case, spaces, `_` and `++` for `pp`."""
    return "".join(c for c in name.lower().replace("+", "p") if c.isalnum())


# By each plain name. If several samplers have a name, it means the first.
SAMPLERS_BY_NAME = {
    _plain(name): sampler
    for sampler in reversed(SAMPLERS)
    for name in (sampler.label, *sampler.aliases, *([sampler.ours] if sampler.same else []))
}
SCHEDULES_BY_NAME = {
    _plain(name): schedule
    for schedule in SCHEDULES
    for name in (schedule.name, schedule.label, *schedule.aliases)
}
# The longest first: “SGM Uniform” ends in “Uniform”.
ENDINGS = dict(
    sorted(
        [
            *SCHEDULES_BY_NAME.items(),
            *((end, SCHEDULES_BY_NAME[name]) for end, name in OLD_ENDINGS.items()),
        ],
        key=lambda ending: -len(ending[0]),
    )
)


@dataclass(frozen=True)
class Choice:
    """Our scheduler by its full name, and the fields of which it is not exactly what they ask."""

    scheduler: str
    ignored: tuple[str, ...]


def choose(sampler: str | None, schedule: str | None, model: ModelInfo, prefix: str = "") -> Choice:
    """Our scheduler for a sampler and a schedule type; a model's own scheduler stays.

    Args:
        sampler: a label, with or without a schedule's at its end, an alias, or our own name.
        schedule: a name, label or alias; another word counts as automatic, and as ignored.
        model: the model to sample.
        prefix: of the names of the request's fields.

    Raises:
        ProblemError: 400, there is no such sampler.
    """
    named = _find(sampler or DEFAULT)
    if named is None:
        detail = f"there is no sampler {sampler!r}; see GET samplers"
        raise ProblemError(400, "sampler", "Sampler not found", detail)
    found, suffix = named
    automatic = SCHEDULES_BY_NAME[AUTOMATIC]
    word = _plain(schedule or AUTOMATIC)
    wanted = automatic if word in UNSPECIFIED else SCHEDULES_BY_NAME.get(word)
    ignored = [] if found.same else [f"{prefix}sampler_name"]
    field = f"{prefix}scheduler"
    if wanted is None:
        ignored.append(field)
        wanted = automatic
    if wanted is automatic and suffix is not None:
        wanted, field = suffix, f"{prefix}sampler_name"
    if model.schedulers:
        if sampler is not None and found.ours in model.schedulers:
            if wanted is not automatic and not (wanted.spacing is None and wanted.same):
                ignored.append(field)
            return Choice(found.ours, tuple(dict.fromkeys(ignored)))
        if sampler is not None:
            ignored.append(f"{prefix}sampler_name")
        elif wanted is not automatic:
            ignored.append(field)
        return Choice(schedulers.NATIVE, tuple(dict.fromkeys(ignored)))
    spacing = found.automatic if wanted is automatic else wanted.spacing
    fits = spacing is None or spacing in schedulers.SCHEDULERS[found.ours].spacings
    if wanted is not automatic and not (wanted.same and fits):
        ignored.append(field)
    full = f"{found.ours}_{spacing}" if spacing is not None and fits else found.ours
    return Choice(full, tuple(dict.fromkeys(ignored)))


def _find(name: str) -> tuple[Sampler, Schedule | None] | None:
    """The sampler of a name, and the schedule at the name's end if it has one."""
    wanted = _plain(name)
    if wanted in SAMPLERS_BY_NAME:
        return SAMPLERS_BY_NAME[wanted], None
    for ending, schedule in ENDINGS.items():
        base = wanted.removesuffix(ending)
        if base != wanted and base in SAMPLERS_BY_NAME:
            return SAMPLERS_BY_NAME[base], schedule
    return None


def label(scheduler: str) -> str:
    """A1111's name of one of our schedulers, without its spacing."""
    if scheduler == schedulers.NATIVE:
        return scheduler
    return schedulers.find(scheduler)[0].title


def labels(sampler: str, schedule: str | None = None) -> tuple[str, str | None]:
    """A1111's labels of a sampler and a schedule, or their names where it knows none."""
    found = _find(sampler)
    label = sampler if found is None else found[0].label
    if found is not None and found[1] is not None:
        return label, found[1].label
    wanted = SCHEDULES_BY_NAME.get(_plain(schedule or ""))
    return label, schedule if wanted is None else wanted.label


def sampler_list() -> list[dict[str, Any]]:
    """The answer to `GET samplers`, in which values of options are strings."""
    return [
        {
            "name": sampler.label,
            "aliases": [*sampler.aliases, sampler.ours],
            "options": {} if sampler.automatic is None else {"scheduler": sampler.automatic},
        }
        for sampler in SAMPLERS
        if sampler.same
    ]


def schedule_list() -> list[dict[str, Any]]:
    """The answer to `GET schedulers`."""
    return [
        {
            "name": schedule.name,
            "label": schedule.label,
            "aliases": list(schedule.aliases) or None,
            "default_rho": schedule.rho,
            "need_inner_model": False,
        }
        for schedule in SCHEDULES
    ]
