"""Schedulers of flows solve one whose end is known, over the model's own noise levels."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from darkroom.engine import flow_schedulers

SPREAD = 0.5  # of the data: a normal distribution, whose flow has a closed form


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The flow from noise to data at x = (1 − σ)·data + σ·noise, as a perfect model predicts it."""
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    return x * (sigma - (1 - sigma) * SPREAD**2) / variance


def distance(name: str, steps: int) -> float:
    """How far from the exact end a scheduler comes, from one noise."""
    native = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler = flow_schedulers.build(name, native)
    scheduler.set_timesteps(steps, device="cpu")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x = noise
    for timestep in scheduler.timesteps:
        output = velocity(x, timestep / native.config.num_train_timesteps)
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
    return float((x - SPREAD * noise).abs().max())


@pytest.mark.parametrize("name", ["native", "euler", "heun", "dpmpp_2m", "unipc"])
def test_more_steps_come_closer(name: str) -> None:
    assert distance(name, 40) < distance(name, 10) / 2 < 0.3


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "unipc"])
def test_better_solvers_come_closer_than_euler(name: str) -> None:
    assert distance(name, 20) < distance("euler", 20) / 2


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "unipc"])
def test_the_models_own_shift_decides_the_noise_levels(name: str) -> None:
    native = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    even = np.linspace(1, 1 / 6, 6)  # as the pipelines ask for them
    native.set_timesteps(sigmas=even, device="cpu", mu=0.9)
    scheduler = flow_schedulers.build(name, native)

    scheduler.set_timesteps(sigmas=even, device="cpu", mu=0.9)

    assert torch.equal(scheduler.timesteps.unique(), native.timesteps.unique())


def test_a_model_of_another_kind_keeps_its_own() -> None:
    with pytest.raises(ValueError, match="its own scheduler"):
        flow_schedulers.build("heun", DDIMScheduler())
