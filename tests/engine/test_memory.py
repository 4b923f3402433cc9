"""What takes less memory: weights of 8 bits, weights that wait elsewhere, and tiles.

For a tiny model of each family; every day for the two whose networks are unlike the others'.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from diffusers.hooks.group_offloading import ModuleGroup
from diffusers.models.normalization import RMSNorm
from PIL import Image

from darkroom.catalog.models import ModelCatalog
from darkroom.engine.base import EngineEvent, EngineJob, Failed, Stepped
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.loading import DENOISERS
from darkroom.engine.memory import MemoryLimits, Offload, accelerator_bytes, offload_for
from darkroom.engine.vae import factor_of
from darkroom.requests import Lora, Task
from tests.engine import hardware, lora_files, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import FlowStock, Stock, assert_equal, difference

UNETS = ("sd1", "sdxl")
BUILDERS = {name: tiny.BUILDERS[name] for name in UNETS} | tiny_families.BUILDERS
DAILY = ("sd1", "z_image")


def each(*daily: str) -> list[Any]:
    """The models; slow but for those of every day."""
    return [pytest.param(n, marks=() if n in daily else pytest.mark.slow) for n in BUILDERS]


MODELS = each(*DAILY)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A data folder with a model, built when it is first asked for."""
    folder = tmp_path_factory.mktemp("data")

    def build(name: str) -> Path:
        path = folder / "models" / name
        if not path.exists():
            tiny.small_by_default(BUILDERS[name](path))
        return folder

    return build


@pytest.fixture(scope="module")
def plain(built: Callable[[str], Path]) -> Callable[[str], DiffusersEngine]:
    """The engine, with a model in memory."""
    engines: list[DiffusersEngine] = []

    def engine(name: str) -> DiffusersEngine:
        data_dir = built(name)
        if not engines:
            engines.append(make_engine(data_dir))
        hardware.model(engines[0], name)
        return engines[0]

    return engine


@pytest.fixture(autouse=True)
def _small(small_references: None) -> None:
    """References are small."""


def job(data_dir: Path, model: str, **fields: Any) -> EngineJob:
    """A small job of the first task that the model can do."""
    info = ModelCatalog(data_dir / "models", "tintype").find(model).info
    task = info.tasks[0]
    values: dict[str, Any] = {
        "model": model,
        "width": tiny.SIZE,
        "height": tiny.SIZE,
        "num_inference_steps": 3,
        "scheduler": "euler" if model in UNETS else "native",
        "negative_prompt": "",
    }
    asked = request(task, **values | fields)
    size = (asked.width, asked.height)
    pictures = (Image.new("RGB", size, "grey"), Image.new("L", size, 255))
    references = pictures[:1] if task is Task.EDIT else ()
    return EngineJob("job", asked, *pictures, references=references)


def unlikeness(ours: Image.Image, theirs: Image.Image) -> float:
    """Mean difference of their pixels, of 255."""
    apart = np.asarray(ours, dtype=np.int16) - np.asarray(theirs, dtype=np.int16)
    return float(np.abs(apart).mean())


# --- weights of 8 bits -------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_weights_of_8_bits_give_nearly_the_same_picture(
    built: Callable[[str], Path], plain: Callable[[str], DiffusersEngine], model: str
) -> None:
    data_dir = built(model)
    (exact,) = developed(run(plain(model), job(data_dir, model)))
    (other,) = developed(run(plain(model), job(data_dir, model, seed=8)))
    engine = make_engine(data_dir, layerwise_casting="fp8")

    (ours,) = developed(run(engine, job(data_dir, model)))

    network = hardware.denoiser(engine, model)
    kept = {name: weight.dtype for name, weight in network.named_parameters()}
    assert set(kept.values()) == {torch.float8_e4m3fn, torch.float32}
    assert network.dtype == torch.float32
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.LayerNorm | torch.nn.GroupNorm | RMSNorm):
            assert all(
                kept[f"{name}.{own}"] == torch.float32 for own, _ in layer.named_parameters()
            )
    assert difference(ours, exact) > 0
    assert unlikeness(ours, exact) < unlikeness(other, exact) / 2
    lean, full = engine.resident()[model].bytes, plain(model).resident()[model].bytes
    cast = sum(weight.numel() for weight in network.parameters() if weight.itemsize == 1)
    assert lean == full - 3 * cast


def test_weights_of_8_bits_are_counted_before_a_model_is_loaded(
    built: Callable[[str], Path],
) -> None:
    """So that two models may stay in memory where they fit only so."""
    data_dir = built("sd1")
    sizes = {}
    for how in ("none", "fp8"):
        engine = make_engine(data_dir, layerwise_casting=how)
        entry = engine._models._find("sd1")
        sizes[how] = engine._models._expected_bytes(entry)

    numbers = ModelCatalog(data_dir / "models", "tintype").find("sd1").numbers()
    assert sizes["none"] == 4 * sum(numbers.values())
    assert sizes["fp8"] == sizes["none"] - 3 * numbers["unet"]


@pytest.mark.parametrize("model", each("z_image"))
def test_loras_on_weights_of_8_bits_lose_nothing_themselves(
    built: Callable[[str], Path], model: str
) -> None:
    """Pictures equal stock diffusers with the LoRA on the rounded weights; so do those without."""
    data_dir = built(model)
    engine = make_engine(data_dir, layerwise_casting="fp8")
    network = hardware.denoiser(engine, model)
    folder = data_dir / "models" / model
    stock = Stock(folder) if model in UNETS else FlowStock(folder)
    part = "unet" if model in UNETS else "transformer"
    theirs = stock._loaded.components[part]
    theirs.load_state_dict({name: weight.float() for name, weight in network.state_dict().items()})
    drawn = lora_files.draw(
        SimpleNamespace(**{part: theirs}), layers=lora_files.EVERYTHING, parts=(part,)
    )
    (data_dir / "loras").mkdir(exist_ok=True)
    lora_files.peft(data_dir / "loras" / f"{model}.safetensors", drawn)
    scales = (0.0, 1.0, -0.5)
    asked = [
        replace(job(data_dir, model, loras=(Lora(name=model, scale=scale),)), id=f"{scale}")
        for scale in scales
    ]

    events = run(engine, *asked)

    pictures = [developed(events, one.id)[0] for one in asked]
    for one, ours in zip(asked, pictures, strict=True):
        assert_equal(ours, stock.picture(one))
    assert min(difference(pictures[0], other) for other in pictures[1:]) > 4


# --- weights that wait -------------------------------------------------------------------------

PARTS = {"text_encoder": 8, "text_encoder_2": 4, "unet": 6, "vae": 1}


@pytest.mark.parametrize(
    ("budget", "offload", "taken"),
    [(19, Offload.NONE, 19), (18, Offload.ENCODERS, 7), (5, Offload.ENCODERS, 7)],
)
def test_text_encoders_wait_where_a_model_does_not_fit_with_them(
    budget: int, offload: Offload, taken: int
) -> None:
    assert offload_for(PARTS, budget) is offload
    assert accelerator_bytes(PARTS, offload) == taken


def test_a_model_without_text_encoders_has_none_that_wait() -> None:
    assert offload_for({"unet": 6}, 5) is Offload.NONE


def test_weights_wait_when_nothing_else_helps() -> None:
    limits = MemoryLimits(most_coded=1, widest_tile=256, can_offload=True)

    notes = [limits.shrink_denoising(1, 64), limits.shrink_coding(1, 64)]

    assert notes == [
        "memory was short: text encoders wait in the CPU's memory",
        "memory was short: weights wait in the CPU's memory",
    ]
    assert limits.offload is Offload.MODEL
    assert limits.shrink_denoising(1, 64) is None


def test_on_a_cpu_nothing_waits(built: Callable[[str], Path]) -> None:
    engine = make_engine(built("sd1"), memory_budget_bytes=2**20, offload="group")
    model = hardware.model(engine, "sd1")

    assert model.limits.offload is Offload.NONE
    assert model.limits.shrink_denoising(1, 64) is None


@contextmanager
def moves(encoder: torch.nn.Module) -> Iterator[list[str]]:
    """Where an encoder goes meanwhile, and its calls, in order."""
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = torch.nn.Module.to

        def to(module: Any, *args: Any, **kwargs: Any) -> Any:
            if module is encoder:
                found.append(f"to {args[0]}")
            return real(module, *args, **kwargs)

        patch.setattr(torch.nn.Module, "to", to)
        hooks = [
            child.register_forward_pre_hook(lambda *_: found.append("encodes"))
            for child in encoder.children()
        ]
        yield found
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("model", MODELS)
def test_text_encoders_that_wait_come_for_a_prompt_and_go_back(
    built: Callable[[str], Path], plain: Callable[[str], DiffusersEngine], model: str
) -> None:
    """`cpu:0` stands for an accelerator here: it is not the `cpu` that weights wait in."""
    data_dir = built(model)
    asked = job(data_dir, model, prompt="a very red fox")
    (expected,) = developed(run(plain(model), asked))
    engine = make_engine(data_dir)
    family = hardware.model(engine, model).family
    family._offloading._device = torch.device("cpu", 0)
    encoder = family._offloading._pipeline.text_encoder

    with moves(encoder) as found:
        family.offload(Offload.ENCODERS)
        (ours,) = developed(run(engine, asked))

    assert found[0] == found[-1] == "to cpu"
    there = [found[i - 1] for i, move in enumerate(found) if move == "encodes" != found[i - 1]]
    assert there
    assert set(there) == {"to cpu:0"}
    assert difference(ours, expected) <= 1


@pytest.mark.parametrize("model", MODELS)
def test_groups_of_layers_that_wait_give_the_same_picture(
    built: Callable[[str], Path], plain: Callable[[str], DiffusersEngine], model: str
) -> None:
    """Each layer's weights are brought before it is called, whatever calls it."""
    data_dir = built(model)
    asked = job(data_dir, model, prompt="a very red fox")
    (expected,) = developed(run(plain(model), asked))
    engine = make_engine(data_dir)
    family = hardware.model(engine, model).family
    called: list[torch.nn.Module] = []
    for part in family._offloading._pipeline.components.values():
        for layer in part.modules() if isinstance(part, torch.nn.Module) else ():
            layer.register_forward_hook(lambda module, *_: called.append(module))
    brought: set[int] = set()
    real = ModuleGroup.onload_

    def onload(group: Any) -> None:
        weights = [weight for module in group.modules for weight in module.parameters()]
        brought.update(map(id, (*weights, *group.parameters)))
        real(group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModuleGroup, "onload_", onload)
        family.offload(Offload.GROUP)
        (ours,) = developed(run(engine, asked))

    assert difference(ours, expected) <= 1
    assert called
    for layer in called:
        assert all(id(weight) in brought for weight in layer.parameters(recurse=False)), layer


# --- a model that does not fit while it is loaded ----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", each("sd1"))
@pytest.mark.parametrize("offload", [Offload.ENCODERS, Offload.MODEL])
def test_a_model_that_does_not_fit_while_it_is_loaded_is_loaded_with_less(
    built: Callable[[str], Path],
    plain: Callable[[str], DiffusersEngine],
    model: str,
    offload: Offload,
) -> None:
    data_dir = built(model)
    asked = job(data_dir, model)
    (expected,) = developed(run(plain(model), asked))
    sizes = plain(model).resident()[model].bytes
    engine = make_engine(data_dir)
    room = sizes - 1 if offload is Offload.ENCODERS else 0

    with hardware.accelerator(engine, room) as (held, _):
        (ours,) = developed(run(engine, asked))
        (again,) = developed(run(engine, asked))

    assert hardware.model(engine, model).limits.offload is offload
    assert (sum(held.values()) > 0) == (room > 0)
    assert difference(ours, expected) <= 1  # calls of other rows round otherwise
    assert difference(again, expected) <= 1


@pytest.mark.parametrize("model", MODELS)
def test_prompts_are_encoded_without_the_denoiser_on_the_accelerator(
    built: Callable[[str], Path], model: str
) -> None:
    """Where one network alone has room, and another job's picture is being denoised."""
    data_dir = built(model)
    engine = make_engine(data_dir)
    waits, there = torch.device("cpu"), set[Any]()
    crowds: list[set[str]] = []

    with hardware.accelerator(engine, 0), pytest.MonkeyPatch.context() as patch:
        pipeline = hardware.model(engine, model).family._offloading._pipeline
        parts = {p: n for n, p in pipeline.components.items() if isinstance(p, torch.nn.Module)}
        real = torch.nn.Module.to

        def to(module: Any, *args: Any, **kwargs: Any) -> Any:
            if module in parts:
                device = torch._C._nn._parse_to(*args, **kwargs)[0]
                (there.discard if device == waits else there.add)(module)
                crowds.append({parts[each] for each in there})
            return real(module, *args, **kwargs)

        patch.setattr(torch.nn.Module, "to", to)
        engine.submit(replace(job(data_dir, model), id="first"))
        while not any(isinstance(event, Stepped) for event in engine.tick()):
            pass
        second = replace(job(data_dir, model, prompt="an owl"), id="second")
        assert developed(run(engine, second), "second")

    assert hardware.model(engine, model).limits.offload is Offload.MODEL
    encoding = [crowd for crowd in crowds if "text_encoder" in crowd]
    assert len(encoding) > 1
    assert not any(crowd & set(DENOISERS) for crowd in encoding)


@pytest.mark.slow
def test_idle_models_go_before_weights_wait(built: Callable[[str], Path]) -> None:
    """Those in use do not: then the load is tried again when their jobs have ended, once."""
    data_dir = built("sd1")
    built("z_image")
    engine = make_engine(data_dir)
    asked = [replace(job(data_dir, name), id=name) for name in ("sd1", "z_image")] * 2
    asked[2] = replace(job(data_dir, "sd1", num_inference_steps=50), id="sd1")
    for name in ("sd1", "z_image"):
        hardware.model(engine, name)
    room = max(model.bytes for model in engine.resident().values())
    assert engine.unload("sd1")
    assert engine.unload("z_image")

    with hardware.accelerator(engine, room) as (held, refused):
        one_by_one = [event for one in asked[:2] for event in run(engine, one)]
        assert engine.unload("z_image")
        hardware.model(engine, "sd1")
        refused.clear()
        for one in asked[2:]:
            engine.submit(one)
        together: list[EngineEvent] = []
        while not refused and engine.in_flight():
            together += engine.tick()
        while "sd1" in engine.resident():
            assert engine.fits("z_image") == engine._models.loading
            together += engine.tick()
        while engine.in_flight():
            together += engine.tick()

        assert len(refused) == 1
        assert sum(held.values()) <= room

    for events in (one_by_one, together):
        assert all(developed(events, name) for name in ("sd1", "z_image"))
    assert hardware.model(engine, "z_image").limits.offload is Offload.NONE


def test_a_model_that_fits_in_no_way_fails_its_jobs_and_no_others(
    built: Callable[[str], Path],
) -> None:
    """It is not broken: it is tried again for the next job."""
    data_dir = built("z_image")
    engine = make_engine(data_dir)
    tried: list[weakref.ref[Any]] = []

    def full(network: Any, *_arguments: Any, **_named: Any) -> None:
        tried.append(weakref.ref(network))
        raise torch.OutOfMemoryError("out of memory")

    with hardware.accelerator(engine, 2**40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ZImageTransformer2DModel, "forward", full)
            events = run(engine, job(data_dir, "z_image"))
            other = run(engine, job(built("sd1"), "sd1"))
        after = run(engine, job(data_dir, "z_image"))

    assert events[-1] == Failed("job", "out-of-memory", "there is not enough memory for this job")
    assert len(tried) == 3  # with all weights there, without text encoders, one network at a time
    gc.collect()
    assert not any(network() for network in tried)
    assert engine.broken() == {}
    assert developed(other)
    assert developed(after)


# --- tiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("model", MODELS)
def test_large_pictures_go_through_the_vae_in_tiles(
    built: Callable[[str], Path],
    plain: Callable[[str], DiffusersEngine],
    model: str,
    side: int,
) -> None:
    data_dir, engine = built(model), plain(model)
    fields = {"width": 2 * tiny.SIZE, "height": 3 * tiny.SIZE // 2, "num_inference_steps": 1}
    asked = job(data_dir, model, **fields)
    (whole,) = developed(run(engine, asked))
    (other,) = developed(run(engine, job(data_dir, model, **fields, seed=8)))
    family = hardware.model(engine, model).family
    sides: set[int] = set()

    def look(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        sides.update(args[0].shape[-2:])

    vae = hardware.autoencoder(engine, model)
    hook = vae.decoder.register_forward_pre_hook(look)
    family.tile(side)
    (tiled,) = developed(run(engine, asked))
    hook.remove()
    family.tile(2**14)

    assert max(sides) * factor_of(vae) <= side
    assert tiled.size == whole.size
    assert 0 < unlikeness(tiled, whole) < unlikeness(other, whole) / 2
