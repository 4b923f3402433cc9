"""A machine with less memory, or with faults, under a real engine: hooks on its real networks."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch

from darkroom.engine import memory
from darkroom.engine.costs import Costs
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.vae import factor_of
from darkroom.requests import Txt2Img


class Clock:
    """Goes on by `step` seconds at each reading: all calls take as long, whatever their rows."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def model(engine: DiffusersEngine, name: str | None = None) -> Any:
    """A model in the engine's memory; the default one if no other is named."""
    with torch.inference_mode():
        while (found := engine._models.get(name)) is None:
            engine._models.wait(60)
        return found


def denoiser(engine: DiffusersEngine, name: str | None = None) -> Any:
    """The UNet or transformer of a model."""
    family = model(engine, name).family
    return family.unet if hasattr(family, "unet") else family._any.transformer


def autoencoder(engine: DiffusersEngine, name: str | None = None) -> Any:
    """The VAE of a model."""
    family = model(engine, name).family
    return family.vae.model if hasattr(family, "vae") else family._any.vae


@contextmanager
def _before(module: torch.nn.Module, look: Any) -> Iterator[None]:
    hook = module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def counting(engine: DiffusersEngine, name: str | None = None) -> Iterator[list[int]]:
    """The rows of each UNet call, of the default model if no other is named."""
    calls: list[int] = []
    unet = model(engine, name).family.unet
    with _before(unet, lambda _m, _a, given: calls.append(len(given["sample"]))):
        yield calls


def parallel(engine: DiffusersEngine, name: str | None = None) -> None:
    """Let rows of a model's calls cost little, whatever was measured while tests run beside."""
    loaded = model(engine, name)
    cheap = Costs(((1, 1.0), (64, 2.0)), 4096 * 4096)  # references make a row large
    engine._models._resident[loaded.name] = replace(loaded, costs=cheap)


@contextmanager
def accelerator(
    engine: DiffusersEngine, capacity: int
) -> Iterator[tuple[MutableMapping[Any, int], list[str]]]:
    """An accelerator with room for so many bytes of weights.

    What is on it, with its bytes, and the classes of the networks that it had no room for.

    `cpu:0` stands for it: it is not the `cpu` that weights wait in. What accelerate brings for one
    call does not count.
    """
    models = engine._models
    models.device, models._accelerated = torch.device("cpu", 0), True
    held: MutableMapping[Any, int] = WeakKeyDictionary()
    refused: list[str] = []
    real = torch.nn.Module.to

    def to(module: Any, *args: Any, **kwargs: Any) -> Any:
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device == torch.device("cpu"):
            held.pop(module, None)
        elif device == models.device and not hasattr(module, "_hf_hook"):
            size = memory.weight_bytes(module)
            if sum(held.values()) - held.get(module, 0) + size > capacity:
                refused.append(type(module).__name__)
                raise torch.OutOfMemoryError("out of memory")
            held[module] = size
        return real(module, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "to", to)
        yield held, refused


@contextmanager
def unet_memory(engine: DiffusersEngine, rows: int, name: str | None = None) -> Iterator[None]:
    """Room for UNet calls of so many rows, of the default model if no other is named."""

    def look(_module: Any, _arguments: Any, given: dict[str, Any]) -> None:
        if len(given["sample"]) > rows:
            raise torch.OutOfMemoryError("out of memory")

    with _before(model(engine, name).family.unet, look):
        yield


@contextmanager
def vae_memory(engine: DiffusersEngine, pixels: int, name: str | None = None) -> Iterator[None]:
    """Room for a VAE's decoder to make so many pixels at a time."""
    vae = autoencoder(engine, name)

    def look(_module: Any, arguments: tuple[torch.Tensor], _given: Any) -> None:
        latents = arguments[0]
        if len(latents) * latents[0, 0].numel() * factor_of(vae) ** 2 > pixels:
            raise torch.OutOfMemoryError("out of memory")

    with _before(vae.decoder, look):
        yield


@contextmanager
def failing_on(engine: DiffusersEngine, request: Txt2Img) -> Iterator[None]:
    """UNet calls fail that have this prompt in them."""
    prompts = model(engine).family._prompts
    words = prompts.encode(request.prompt, clip_skip=0).embeds

    def look(_module: Any, _arguments: Any, given: dict[str, Any]) -> None:
        if any(torch.equal(row, words[0]) for row in given["encoder_hidden_states"]):
            raise RuntimeError("this one cannot be done")

    with _before(model(engine).family.unet, look):
        yield
