"""The table of schedulers: their common names, and their classes in diffusers.

Names follow k-diffusers; classes follow the table in diffusers' documentation
(https://huggingface.co/docs/diffusers/api/schedulers/overview).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.errors import DarkroomError, Message, did_you_mean, message
from darkroom.responses import ModelInfo, SchedulerInfo

# Suffix → the diffusers argument that spaces the noise levels that way.
SPACINGS: Mapping[str, dict[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
SIGMAS = ("karras", "exponential", "beta")
NATIVE = "native"  # the scheduler that a model was published with
FLOW = (NATIVE, "euler", "heun", "dpmpp_2m", "unipc")  # of models that learn a flow


@dataclass(frozen=True)
class SchedulerEntry:
    """One row of the table.

    Attributes:
        title: its label in A1111.
        cls: class name in diffusers, without `Scheduler`.
        options: arguments that select it within the class.
        spacings: suffixes it supports.
        automatic: what A1111 takes for its sampler where no schedule is named; None is the plain
            one.
    """

    title: str
    cls: str
    options: dict[str, Any] = field(default_factory=dict)
    spacings: tuple[str, ...] = ("sgm_uniform",)
    automatic: str | None = None


_EVERY = tuple(SPACINGS)
SCHEDULERS: Mapping[str, SchedulerEntry] = {
    "ddim": SchedulerEntry("DDIM", "DDIM"),
    "ddpm": SchedulerEntry("DDPM", "DDPM"),
    "pndm": SchedulerEntry("PLMS", "PNDM", {"skip_prk_steps": True}),
    "lms": SchedulerEntry("LMS", "LMSDiscrete", spacings=_EVERY),
    "euler": SchedulerEntry("Euler", "EulerDiscrete", spacings=_EVERY),
    "euler_a": SchedulerEntry("Euler a", "EulerAncestralDiscrete"),
    "heun": SchedulerEntry("Heun", "HeunDiscrete", spacings=_EVERY),
    "dpm2": SchedulerEntry("DPM2", "KDPM2Discrete", spacings=_EVERY, automatic="karras"),
    "dpm2_a": SchedulerEntry(
        "DPM2 a", "KDPM2AncestralDiscrete", spacings=_EVERY, automatic="karras"
    ),
    "dpmpp_2m": SchedulerEntry(
        "DPM++ 2M", "DPMSolverMultistep", {"algorithm_type": "dpmsolver++"}, _EVERY, "karras"
    ),
    "dpmpp_2m_sde": SchedulerEntry(
        "DPM++ 2M SDE",
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver++"},
        _EVERY,
        "exponential",
    ),
    "dpmpp_sde": SchedulerEntry(
        "DPM++ SDE",
        "DPMSolverSinglestep",
        {"algorithm_type": "sde-dpmsolver++"},
        SIGMAS,
        "karras",
    ),
    "dpmpp_3m_sde": SchedulerEntry(
        "DPM++ 3M SDE",
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        _EVERY,
        "exponential",
    ),
    "unipc": SchedulerEntry("UniPC", "UniPCMultistep", spacings=_EVERY),
    "deis": SchedulerEntry("DEIS", "DEISMultistep", spacings=_EVERY),
    "lcm": SchedulerEntry("LCM", "LCM"),
    "tcd": SchedulerEntry("TCD", "TCD"),
}


class UnknownSchedulerError(DarkroomError, ValueError):
    """No such scheduler, or it does not support that spacing."""


def find(name: str) -> tuple[SchedulerEntry, str | None]:
    """Look up a scheduler by its full name; its spacing suffix, or None, comes with it.

    Raises:
        UnknownSchedulerError: there is none; suggests the closest name.
    """
    if name in SCHEDULERS:
        return SCHEDULERS[name], None
    for spacing in SPACINGS:
        base = SCHEDULERS.get(name.removesuffix(f"_{spacing}"))
        if base is not None and spacing in base.spacings:
            return base, spacing
    close = did_you_mean(name, full_names())
    detail = f"there is no scheduler {name!r}{close} (see GET /schedulers)"
    raise UnknownSchedulerError(Message(detail, "unknown_scheduler", {"name": name}))


def check(name: str, model: ModelInfo) -> None:
    """Check that a model can be sampled with a scheduler.

    Raises:
        UnknownSchedulerError: there is none of that name, or the model does not support it.
    """
    if not model.schedulers:
        find(name)
    elif name not in model.schedulers:
        others = ", ".join(map(repr, model.schedulers))
        raise UnknownSchedulerError(
            message(
                "other_scheduler",
                "{model} takes no other scheduler than {others}",
                model=model.name,
                others=others,
            )
        )


def full_names() -> list[str]:
    """All accepted names."""
    return [name for info in infos() for name in (info.name, *info.variants)]


def infos() -> tuple[SchedulerInfo, ...]:
    return tuple(
        SchedulerInfo(
            name=name,
            title=entry.title,
            variants=tuple(f"{name}_{spacing}" for spacing in entry.spacings),
        )
        for name, entry in SCHEDULERS.items()
    )
