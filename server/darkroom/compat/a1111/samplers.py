"""A1111's samplers and schedule types, and which of our schedulers each is.

Labels, aliases and default schedules from `modules/sd_samplers_kdiffusion.py`,
`modules/sd_samplers_timesteps.py` and `modules/sd_schedulers.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from darkroom.api.errors import ProblemError
from darkroom.catalog import schedulers
from darkroom.responses import ModelInfo

DEFAULT = "Euler"
AUTOMATIC = "automatic"


@dataclass(frozen=True)
class Sampler:
    """One of A1111's samplers.

    Attributes:
        label: its name there.
        ours: the scheduler that does the same, or about the same.
        aliases: names it goes by.
        automatic: the spacing that schedule type `automatic` stands for.
        same: whether ours does the same.
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
    Sampler("DPM++ 2S a", "dpmpp_sde", ("k_dpmpp_2s_a",), "karras", False),
    Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", ("k_dpmpp_3m_sde",), "exponential"),
    Sampler("Euler a", "euler_a", ("k_euler_a", "k_euler_ancestral")),
    Sampler("Euler", "euler", ("k_euler",)),
    Sampler("LMS", "lms", ("k_lms",)),
    Sampler("Heun", "heun", ("k_heun",)),
    Sampler("DPM2", "dpm2", ("k_dpm_2",), "karras"),
    Sampler("DPM2 a", "dpm2_a", ("k_dpm_2_a",), "karras"),
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

    Attributes:
        name: in requests.
        label: for people, and in requests too.
        spacing: ours; None is the plain one.
        same: whether ours is the same.
        rho: that it is made with when nobody says otherwise.
        aliases: names it goes by.
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


@dataclass(frozen=True)
class Choice:
    """What a request's sampler and schedule come to.

    Attributes:
        scheduler: ours, by its full name.
        ignored: names of the fields that it is not quite.
    """

    scheduler: str
    ignored: tuple[str, ...]


def choose(sampler: str | None, schedule: str | None, model: ModelInfo, prefix: str = "") -> Choice:
    """Our scheduler for A1111's words.

    Args:
        sampler: a label, with or without a schedule behind it, an alias, or one of our names.
        schedule: a name or label.
        model: that is to be sampled with it.
        prefix: of the fields' names.

    Raises:
        ProblemError: 400, there is no such sampler or schedule.
    """
    found, spoken = _sampler(sampler or DEFAULT)
    wanted = _schedule(schedule or AUTOMATIC)
    ignored = [] if found.same else [f"{prefix}sampler_name"]
    if model.defaults.scheduler == schedulers.NATIVE:
        asked = [] if sampler is None else [f"{prefix}sampler_name"]
        return Choice(schedulers.NATIVE, tuple(asked))
    spacing = wanted.spacing
    if wanted.name == AUTOMATIC:
        spacing = spoken or found.automatic
    elif not wanted.same:
        ignored.append(f"{prefix}scheduler")
    if spacing is not None and spacing not in schedulers.SCHEDULERS[found.ours].spacings:
        if wanted.name != AUTOMATIC:
            ignored.append(f"{prefix}scheduler")
        elif spoken is not None:
            ignored.append(f"{prefix}sampler_name")
        spacing = None
    full = found.ours if spacing is None else f"{found.ours}_{spacing}"
    return Choice(full, tuple(dict.fromkeys(ignored)))


def _sampler(name: str) -> tuple[Sampler, str | None]:
    """A sampler, and the spacing that its name has at the end."""
    wanted = name.strip().lower()
    known = {alias.lower(): sampler for sampler in reversed(SAMPLERS) for alias in _names(sampler)}
    if wanted in known:
        return known[wanted], None
    for schedule in SCHEDULES:
        for ending in (schedule.label, schedule.name):
            base = wanted.removesuffix(ending.lower()).rstrip(" _")
            if base != wanted and schedule.spacing is not None and base in known:
                return known[base], schedule.spacing
    raise ProblemError(
        400, "sampler", "Sampler not found", f"there is no sampler {name!r}; see GET samplers"
    )


def _names(sampler: Sampler) -> Iterator[str]:
    yield sampler.label
    yield from sampler.aliases
    if sampler.same:
        yield sampler.ours


def _schedule(name: str) -> Schedule:
    wanted = name.strip().lower()
    for schedule in SCHEDULES:
        names = (schedule.name, schedule.label, *schedule.aliases)
        if wanted in (known.lower() for known in names):
            return schedule
    raise ProblemError(
        400,
        "scheduler",
        "Scheduler not found",
        f"there is no schedule {name!r}; see GET schedulers",
    )


def label(scheduler: str) -> str:
    """What A1111 calls one of our schedulers, without its spacing."""
    if scheduler == schedulers.NATIVE:
        return scheduler
    return schedulers.find(scheduler)[0].title


def sampler_list() -> list[dict[str, Any]]:
    """As `GET samplers` answers; values of options are strings there."""
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
    """As `GET schedulers` answers."""
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
