"""Runs a pipeline of diffusers as it is, suspended at each call of its denoiser and its decoder.

A pipeline's `__call__` is one long loop. Here it runs in a greenlet, a thread of control that gives
way only where it says so. Stand-ins for the denoiser and for the VAE's decoder give way: the
arguments of a call come out of `PipelineRun`, and its output goes in. So the engine decides when a
call is made and which others share it, and all the rest is the pipeline's own: the order of random
draws, schedules, guidance and the packing of latents.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from greenlet import GreenletExit, getcurrent, greenlet
from PIL import Image

from darkroom.engine import calls
from darkroom.engine.calls import Call
from darkroom.engine.vae import finite

DENOISERS = ("transformer", "unet", "prior", "decoder")  # what pipelines call their denoiser


@dataclass(frozen=True)
class Suspended:
    """A call that a pipeline waits for.

    Attributes:
        decodes: whether it is that of the VAE's decoder.
        kind: what the pipeline calls it where it has several, such as `cond` and `uncond`.
    """

    network: Any
    decodes: bool
    call: Call
    kind: str = ""


class _Network:
    """Stands for a network in a pipeline; calling it gives way to the engine."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._kind = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = calls.take_apart(self._network, args, kwargs)
        return _give_way(Suspended(self._network, False, call, self._kind))

    @contextmanager
    def cache_context(self, name: str, **_where: Any) -> Iterator[None]:
        """Calls in this context are of this kind; others may come in between."""
        self._kind = name
        try:
            yield
        finally:
            self._kind = ""

    def _reset_stateful_cache(self) -> None:
        """Nothing: a pipeline at its end would have the network forget what others go on with."""


class _Vae:
    """Stands for a VAE in a pipeline; its decoder gives way to the engine.

    Args:
        dtype: what the pipeline sees, whatever the VAE works in: one that overflows in half
            precision goes on in float32.
    """

    def __init__(self, vae: Any, dtype: torch.dtype) -> None:
        self._vae = vae
        self.dtype = dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        vae = self._vae
        made = finite(vae, lambda: vae.encode(pixels.to(vae.dtype), *args, **kwargs))
        if self._vae.dtype != self.dtype and hasattr(made, "latent_dist"):
            parameters = made.latent_dist.parameters.to(self.dtype)
            made.latent_dist = DiagonalGaussianDistribution(parameters)
        return made

    def decode(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self._vae.decode(latents, *args, **kwargs)
        call = Call(len(latents), {"z": latents}, kwargs)
        return _give_way(Suspended(self._vae, True, call))


def _give_way(suspended: Suspended) -> Any:
    parent = getcurrent().parent
    assert parent is not None
    return parent.switch(suspended)


class PipelineRun:
    """One image by one pipeline, from noise to picture.

    Used from one thread. One that is not at its end has to be closed: a suspended greenlet, and
    with it the pipeline's networks, is never collected as garbage.

    Args:
        pipeline: of its own, around shared networks; its scheduler is not shared.
        arguments: of the pipeline's `__call__`, for one image.
        stepped: is called after each step of the scheduler, with the model's output, the timestep,
            and the latents before it.
        vae_dtype: of the VAE when the model was loaded.
    """

    def __init__(
        self,
        pipeline: Any,
        arguments: Mapping[str, Any],
        stepped: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None],
        vae_dtype: torch.dtype,
    ) -> None:
        for name in DENOISERS:
            network = getattr(pipeline, name, None)
            if isinstance(network, torch.nn.Module):
                _put(pipeline, name, _Network(network))
        if isinstance(getattr(pipeline, "vae", None), torch.nn.Module):
            _put(pipeline, "vae", _Vae(pipeline.vae, vae_dtype))
        _record(pipeline.scheduler, stepped)
        self._greenlet = greenlet(lambda: _run(pipeline, arguments))
        self.suspended: Suspended | None = None
        self.picture: Image.Image | None = None

    def resume(self, output: Any = None) -> None:
        """Go on with the output of the suspended call, to the next one or to the picture.

        Raises what the pipeline raises; then it has ended.
        """
        self.suspended = None
        with _grad_mode_kept():
            came = self._greenlet.switch() if output is None else self._greenlet.switch(output)
        if isinstance(came, Suspended):
            self.suspended = came
        else:
            self.picture = came

    def close(self) -> None:
        """End the pipeline where it is, and free what it holds."""
        if self._greenlet and not self._greenlet.dead:
            with _grad_mode_kept():
                self._greenlet.throw(GreenletExit)
        self.suspended = None


def _run(pipeline: Any, arguments: Mapping[str, Any]) -> Image.Image:
    # The pipeline turns gradients off, and at its end puts back what it found. It may end anywhere,
    # and must not leave them off then.
    torch.set_grad_enabled(True)
    picture: Image.Image = pipeline(**arguments).images[0]
    return picture


@contextmanager
def _grad_mode_kept() -> Iterator[None]:
    """Keep the thread's grad mode from what a suspended pipeline has set."""
    enabled = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(enabled)


def _put(pipeline: Any, name: str, value: Any) -> None:
    """Set a part of a pipeline, past diffusers' `__setattr__`, which notes it in its config."""
    object.__setattr__(pipeline, name, value)


def _record(
    scheduler: Any, stepped: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
) -> None:
    """Call `stepped` after each step of a scheduler."""
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at what it takes
    def recorded(output: Any, timestep: Any, latents: Any, *args: Any, **kwargs: Any) -> Any:
        made = step(output, timestep, latents, *args, **kwargs)
        stepped(output, timestep, latents)
        return made

    scheduler.step = recorded
