"""Schedulers of models that learn a flow (arXiv 2210.02747), one for each image.

All of them go down the noise levels of the model's own scheduler, with its shift: that one says
`sigmas` and `timesteps`, and the others only solve differently between them.
"""

from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from darkroom.catalog.schedulers import NATIVE

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


class _Levels:
    """Gives a solver the noise levels of a `FlowMatchEulerDiscreteScheduler`."""

    native: Any
    order: int

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        if sigmas is None and self.order == 1:
            # Left to itself the native scheduler ends with a leap to nearly no noise, which solvers
            # that look back at earlier steps do not bear.
            assert num_inference_steps is not None
            sigmas = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
        self.native.set_timesteps(
            num_inference_steps, device=device, sigmas=sigmas, mu=mu, timesteps=timesteps
        )
        levels, times = self.native.sigmas, self.native.timesteps
        solver: Any = self
        super().set_timesteps(len(times), device=device)  # type: ignore[misc]
        if solver.order == 2:  # each level but the first and the last comes twice
            levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
            times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
        solver.sigmas, solver.timesteps = levels, times

    def scale_noise(self, sample: Any, timestep: Any, noise: Any) -> Any:
        """A sample with the noise of a timestep."""
        return self.native.scale_noise(sample, timestep, noise)


class _Heun(_Levels, FlowMatchHeunDiscreteScheduler):
    pass


class _DPMSolver(_Levels, DPMSolverMultistepScheduler):
    pass


class _UniPC(_Levels, UniPCMultistepScheduler):
    pass


def build(name: str, native: Any) -> Any:
    """A scheduler for one image; it keeps state and cannot be shared.

    Args:
        name: `native` is the model's own; others are for models whose own is `euler`.
        native: the model's own scheduler.

    Raises:
        ValueError: the model cannot be stepped by that scheduler.
    """
    own: Any = type(native).from_config(native.config)
    if name == NATIVE:
        return own
    if not isinstance(own, FlowMatchEulerDiscreteScheduler):
        raise ValueError(f"this model is stepped by its own scheduler only, not by {name}")
    shared = {"num_train_timesteps": native.config.num_train_timesteps}
    solver: Any
    match name:
        case "euler":
            return own
        case "heun":
            solver = _Heun(**shared)
        case "dpmpp_2m":
            solver = _DPMSolver(**shared, **_FLOW, algorithm_type="dpmsolver++")
        case "unipc":
            solver = _UniPC(**shared, **_FLOW)
        case _:
            raise ValueError(f"models that learn a flow have no scheduler {name}")
    solver.native = own
    return solver
