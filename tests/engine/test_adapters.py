"""A LoRA through our engine is what diffusers makes of it, and what its numbers say."""

import json
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from darkroom.catalog.listing import EMBEDDED
from darkroom.catalog.loras import AdapterCatalog
from darkroom.engine.adapters import AdapterError, Adapters
from darkroom.requests import Lora
from tests.effort import sampled
from tests.engine import lora_files
from tests.engine.lora_files import EVERYTHING, draw, merge, outputs, tiny_sd, tiny_sdxl

PIPELINES = {"sd": tiny_sd, "sdxl": tiny_sdxl}


@pytest.fixture
def loras_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "loras"
    folder.mkdir()
    return folder


class Equipped:
    """A pipeline as the engine holds it, all of whose calls have the same LoRAs."""

    def __init__(self, pipeline: Any, loras_dir: Path, **options: Any) -> None:
        encoder = pipeline.text_encoder
        if not hasattr(encoder, "text_model"):
            object.__setattr__(encoder, "text_model", encoder)  # transformers 5 took it out
        catalog = AdapterCatalog(loras_dir, loras_dir / "none")
        self.adapters = Adapters(pipeline, catalog, torch.device("cpu"), **options)
        self._active = ExitStack()
        object.__setattr__(pipeline, "_equipped", self)  # as long as the pipeline lives

    @property
    def loaded(self) -> tuple[str, ...]:
        return self.adapters.loaded

    def activate(self, loras: tuple[Lora, ...]) -> None:
        """Apply these from now on; none after an error."""
        self._active.close()
        found = self.adapters.find(loras)
        self._active.enter_context(self.adapters.applied([found]))


equip = Equipped


def stock(make: Callable[[], Any], files: list[tuple[Path, float]]) -> list[torch.Tensor]:
    """diffusers' own pipeline, used as its documentation says."""
    pipeline = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of a second adapter
        for path, _ in files:
            pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=path.stem)
    pipeline.set_adapters([path.stem for path, _ in files], [scale for _, scale in files])
    return outputs(pipeline)


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


def same_bytes(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


# --- equality ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", sampled([(1.0,), (0.4,), (-0.7,)], one_in=3, first=1))
@pytest.mark.parametrize("naming", ["kohya", "peft", "old_diffusers"])
@pytest.mark.parametrize("family", PIPELINES)
def test_every_naming_equals_stock_diffusers(
    loras_dir: Path, family: str, naming: str, scale: float
) -> None:
    make = PIPELINES[family]
    pipeline = make()
    alpha = 2.0 if naming == "kohya" else 4.0  # the others say nothing of alpha
    path = getattr(lora_files, naming)(loras_dir / "ink.safetensors", draw(pipeline, alpha=alpha))
    base = outputs(pipeline)

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=scale),))
    ours = outputs(pipeline)

    assert_close(ours, stock(make, [(path, scale)]))
    for mine, plain in zip(ours, base, strict=True):  # the UNet and every encoder take part
        assert (mine - plain).abs().max() > 1e-3


@pytest.mark.parametrize("family", PIPELINES)
def test_two_loras_add_up(loras_dir: Path, family: str) -> None:
    make = PIPELINES[family]
    pipeline = make()
    ink = lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline, seed=1, alpha=1.0))
    fog = lora_files.peft(loras_dir / "fog.safetensors", draw(pipeline, seed=2, rank=2, alpha=2.0))

    adapters = equip(pipeline, loras_dir)
    adapters.activate((Lora(name="ink", scale=0.8), Lora(name="fog", scale=-0.5)))
    ours = outputs(pipeline)
    adapters.activate((Lora(name="fog", scale=-0.5), Lora(name="ink", scale=0.8)))

    assert_close(ours, stock(make, [(ink, 0.8), (fog, -0.5)]))
    assert same_bytes(outputs(pipeline), ours)  # a set has no order


@pytest.mark.parametrize("family", PIPELINES)
def test_text_encoders_may_have_a_scale_of_their_own(loras_dir: Path, family: str) -> None:
    pipeline, merged = PIPELINES[family](), PIPELINES[family]()
    lora = draw(pipeline)
    lora_files.kohya(loras_dir / "ink.safetensors", lora)

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.7, text_scale=-0.2),))
    merge(merged, {part: lora[part] for part in lora if part == "unet"}, 0.7)
    merge(merged, {part: lora[part] for part in lora if part != "unet"}, -0.2)

    assert_close(outputs(pipeline), outputs(merged))


def test_a_lora_may_change_text_encoders_alone(loras_dir: Path) -> None:
    pipeline, merged = tiny_sd(), tiny_sd()
    lora = draw(pipeline)
    lora_files.kohya(loras_dir / "ink.safetensors", lora)

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.0, text_scale=0.5),))
    merge(merged, {"text_encoder": lora["text_encoder"]}, 0.5)

    assert_close(outputs(pipeline), outputs(merged))


@pytest.mark.parametrize("naming", ["kohya", "peft"])
@pytest.mark.parametrize("family", PIPELINES)
def test_every_layer_of_a_locon_has_its_own_strength(
    loras_dir: Path, family: str, naming: str
) -> None:
    make = PIPELINES[family]
    pipeline, merged = make(), make()
    alphas = {"alpha": 1.0, "conv_alpha": 3.0} if naming == "kohya" else {}
    lora = draw(pipeline, layers=EVERYTHING, **alphas)
    getattr(lora_files, naming)(loras_dir / "ink.safetensors", lora)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in pipeline.unet.modules()) > 10

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.3),))
    merge(merged, lora, 0.3)

    assert_close(outputs(pipeline), outputs(merged))


def test_ranks_and_alphas_may_differ_from_layer_to_layer(loras_dir: Path) -> None:
    pipeline, merged = tiny_sd(), tiny_sd()
    first = draw(pipeline, rank=2, alpha=2.0, layers=r"attn1\.to_[qk]$|q_proj$")
    other = draw(pipeline, rank=5, alpha=1.0, layers=r"attn[12]\.to_v$|v_proj$|ff\.")
    lora = {part: first[part] | other[part] for part in first}
    lora_files.kohya(loras_dir / "ink.safetensors", lora)

    equip(pipeline, loras_dir).activate((Lora(name="ink"),))
    merge(merged, lora, 1.0)

    assert_close(outputs(pipeline), outputs(merged))


def test_strengths_in_the_metadata_of_diffusers_count(loras_dir: Path) -> None:
    pipeline, merged = tiny_sd(), tiny_sd()
    lora = draw(pipeline, alpha=2.0, parts=("unet",))
    loud = [name for name in lora["unet"] if name.endswith("attn2.to_k")]
    for name in loud:
        layer = lora["unet"][name]
        lora["unet"][name] = lora_files.Layer(layer.down, layer.up, 8.0)
    config = {"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": dict.fromkeys(loud, 8)}
    # Were this obeyed, the base model's weights would change for good.
    config["unet.init_lora_weights"] = "pissa"
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    lora_files.peft(loras_dir / "ink.safetensors", lora, metadata)

    equip(pipeline, loras_dir).activate((Lora(name="ink"),))
    merge(merged, lora, 1.0)

    assert_close(outputs(pipeline), outputs(merged))


def test_the_original_names_of_sdxl_blocks_are_known(loras_dir: Path) -> None:
    pipeline = tiny_sdxl()
    lora = draw(pipeline, parts=("unet",), layers=r"down_blocks\.1\.attentions.*attn")
    ours = lora_files.kohya(loras_dir / "ours.safetensors", lora)
    theirs = {
        key.replace("down_blocks_1_attentions_0", "input_blocks_3_1"): tensor
        for key, tensor in load_file(ours).items()
    }
    save_file(theirs, loras_dir / "theirs.safetensors")
    adapters = equip(pipeline, loras_dir)

    adapters.activate((Lora(name="ours"),))
    expected = outputs(pipeline)
    adapters.activate((Lora(name="theirs"),))

    assert same_bytes(outputs(pipeline), expected)


def test_processors_that_do_not_name_the_unet_are_known(loras_dir: Path) -> None:
    pipeline, merged = tiny_sd(), tiny_sd()
    lora = draw(pipeline, parts=("unet",))
    lora_files.old_diffusers(loras_dir / "ink.safetensors", lora, prefix="")

    equip(pipeline, loras_dir).activate((Lora(name="ink"),))
    merge(merged, lora, 1.0)

    assert_close(outputs(pipeline), outputs(merged))


def test_tintype_takes_loras_of_its_width(loras_dir: Path) -> None:
    def tintype() -> Any:
        folder = EMBEDDED / "tintype"
        options = {"safety_checker": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    pipeline = tintype()
    path = lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline, alpha=1.0))

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.7),))

    assert_close(outputs(pipeline), stock(tintype, [(path, 0.7)]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_take_the_dtype_of_the_model(loras_dir: Path, dtype: torch.dtype) -> None:
    pipeline = tiny_sd().to(dtype=dtype)
    lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline))

    adapters = equip(pipeline, loras_dir).adapters
    found = adapters.find((Lora(name="ink"),))

    (lora,) = found.scales
    dtypes = {half.dtype for each in lora.layers.values() for half in (each.down, each.up)}
    assert dtypes == {dtype}
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {dtype}


# --- packed layers -------------------------------------------------------------------------


class PackedLinear(torch.nn.Linear):
    """A layer whose weight lies where nobody finds it, and an empty one where it is looked for."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.hidden = [plain]
        self.weight = torch.nn.Parameter(plain.weight.new_empty(0), requires_grad=False)
        self.bias = plain.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.hidden[0](inputs)
        return result


class PackedConv2d(torch.nn.Conv2d):
    """The same of a convolution."""

    def __init__(self, plain: torch.nn.Conv2d) -> None:
        size = (plain.in_channels, plain.out_channels, plain.kernel_size)
        super().__init__(*size, stride=plain.stride, padding=plain.padding)
        self.hidden = [plain]
        self.weight = torch.nn.Parameter(plain.weight.new_empty(0), requires_grad=False)
        self.bias = plain.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.hidden[0](inputs)
        return result


def pack(model: torch.nn.Module) -> None:
    for name, module in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if type(module) is torch.nn.Linear:
            setattr(model.get_submodule(parent), child, PackedLinear(module))
        elif type(module) is torch.nn.Conv2d:
            setattr(model.get_submodule(parent), child, PackedConv2d(module))


def test_layers_may_hide_their_weights(loras_dir: Path) -> None:
    plain, packed = tiny_sd(), tiny_sd()
    pack(packed.unet)
    base = outputs(packed)
    lora_files.kohya(loras_dir / "ink.safetensors", draw(plain, layers=EVERYTHING))

    equip(plain, loras_dir).activate((Lora(name="ink"),))
    adapters = equip(packed, loras_dir)
    adapters.activate((Lora(name="ink"),))

    assert same_bytes(outputs(packed), outputs(plain))
    adapters.activate(())
    assert same_bytes(outputs(packed), base)


# --- switching -----------------------------------------------------------------------------


def test_without_loras_the_base_model_s_bytes_come(loras_dir: Path) -> None:
    pipeline = tiny_sdxl()
    base = outputs(pipeline)
    lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline, layers=EVERYTHING))
    adapters = equip(pipeline, loras_dir)

    adapters.activate((Lora(name="ink"),))
    assert not same_bytes(outputs(pipeline), base)
    adapters.activate((Lora(name="ink", scale=0.0),))
    assert same_bytes(outputs(pipeline), base)
    adapters.activate((Lora(name="ink"),))
    adapters.activate(())
    assert same_bytes(outputs(pipeline), base)


def test_who_else_is_loaded_does_not_show(loras_dir: Path) -> None:
    alone, company = tiny_sd(), tiny_sd()
    lora_files.kohya(loras_dir / "ink.safetensors", draw(alone, seed=1))
    lora_files.kohya(loras_dir / "fog.safetensors", draw(alone, seed=2, layers=EVERYTHING))

    equip(alone, loras_dir).activate((Lora(name="ink"),))
    adapters = equip(company, loras_dir)
    for _ in range(2):
        adapters.activate((Lora(name="fog"),))
        adapters.activate((Lora(name="ink"),))

    assert adapters.loaded == ("fog", "ink")
    assert same_bytes(outputs(company), outputs(alone))


def test_models_loaded_in_inference_mode_take_loras(loras_dir: Path) -> None:
    with torch.inference_mode():
        pipeline = tiny_sd()
    lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline))
    base = outputs(pipeline)
    adapters = equip(pipeline, loras_dir)

    with torch.inference_mode():
        adapters.activate((Lora(name="ink"),))
    assert not same_bytes(outputs(pipeline), base)
    adapters.activate(())
    assert same_bytes(outputs(pipeline), base)


def test_engine_and_caller_may_be_in_inference_mode_or_not(loras_dir: Path) -> None:
    pipeline = tiny_sd()
    lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline))
    adapters = equip(pipeline, loras_dir)

    with torch.inference_mode():
        adapters.activate((Lora(name="ink"),))
        adapters.activate(())
    adapters.activate((Lora(name="ink"),))

    (lora,) = adapters.adapters.find((Lora(name="ink"),)).scales
    halves = [half for each in lora.layers.values() for half in (each.down, each.up)]
    assert not any(half.is_inference() or half.requires_grad for half in halves)
    assert not any(parameter.is_inference() for parameter in pipeline.unet.parameters())


# --- keeping, letting go, reading again ----------------------------------------------------


def test_the_least_recently_used_make_room(loras_dir: Path) -> None:
    pipeline = tiny_sd()
    base = outputs(pipeline)
    for seed, name in enumerate(("a", "b", "c")):
        lora_files.kohya(loras_dir / f"{name}.safetensors", draw(pipeline, seed=seed))
    size = (loras_dir / "a.safetensors").stat().st_size
    adapters = equip(pipeline, loras_dir, budget_bytes=2 * size)

    adapters.activate((Lora(name="a"),))
    expected = outputs(pipeline)
    adapters.activate((Lora(name="b"),))
    adapters.activate((Lora(name="a"),))
    adapters.activate((Lora(name="c"),))
    assert adapters.loaded == ("a", "c")
    adapters.activate(tuple(Lora(name=name) for name in "abc"))  # what is asked for comes in
    assert adapters.loaded == ("a", "b", "c")

    adapters.activate((Lora(name="a"),))
    assert same_bytes(outputs(pipeline), expected)
    adapters.activate(())
    assert same_bytes(outputs(pipeline), base)


def test_the_last_one_let_go_of_leaves_nothing(loras_dir: Path) -> None:
    pipeline = tiny_sd()
    lora_files.kohya(loras_dir / "a.safetensors", draw(pipeline, seed=1))
    lora_files.kohya(loras_dir / "b.safetensors", draw(pipeline, seed=2, layers=r"attn1\.to_q$"))
    adapters = equip(pipeline, loras_dir, budget_bytes=1)

    adapters.activate((Lora(name="a"),))
    adapters.activate((Lora(name="b"),))
    changed = [name for name, m in pipeline.unet.named_modules() if m._forward_hooks]

    assert adapters.loaded == ("b",)
    assert changed
    assert all(name.endswith("attn1.to_q") for name in changed)
    (b,) = adapters.adapters.find((Lora(name="b"),)).scales
    assert adapters.adapters.bytes == b.bytes


def test_a_changed_file_is_read_again(loras_dir: Path) -> None:
    pipeline, fresh = tiny_sd(), tiny_sd()
    path = lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline, seed=1))
    adapters = equip(pipeline, loras_dir)
    adapters.activate((Lora(name="ink"),))

    lora_files.kohya(path, draw(fresh, seed=2))
    os.utime(path, ns=(1, 1))
    adapters.activate((Lora(name="ink"),))
    equip(fresh, loras_dir).activate((Lora(name="ink"),))

    assert same_bytes(outputs(pipeline), outputs(fresh))


def test_a_file_taken_away_goes_on_working_while_it_is_loaded(loras_dir: Path) -> None:
    pipeline = tiny_sd()
    path = lora_files.kohya(loras_dir / "ink.safetensors", draw(pipeline))
    adapters = equip(pipeline, loras_dir)
    adapters.activate((Lora(name="ink"),))
    expected = outputs(pipeline)

    path.unlink()
    adapters.activate((Lora(name="ink"),))

    assert same_bytes(outputs(pipeline), expected)


# --- refusals ------------------------------------------------------------------------------


def _truncated(path: Path) -> None:
    lora_files.kohya(path, draw(tiny_sd()))
    path.write_bytes(path.read_bytes()[:-100])


def _pair(path: Path, layer: str) -> None:
    down, up = torch.zeros(4, 8), torch.zeros(8, 4)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)


def _half(path: Path) -> None:
    tensors = load_file(lora_files.kohya(path, draw(tiny_sd())))
    tensors.pop(next(key for key in tensors if key.endswith("lora_up.weight")))
    save_file(tensors, path)


def _not_finite(path: Path) -> None:
    tensors = load_file(lora_files.kohya(path, draw(tiny_sd())))
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))][0, 0] = torch.nan
    save_file(tensors, path)


def _unknown_layer(path: Path) -> None:
    lora = draw(tiny_sd(), parts=("unet",))
    lora["unet"]["down_blocks.7.attentions.0.proj_in"] = lora["unet"].popitem()[1]
    lora_files.kohya(path, lora)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of another width": (lambda p: lora_files.kohya(p, draw(tiny_sd(40))), "another model"),
    "of another family": (lambda p: lora_files.kohya(p, draw(tiny_sdxl())), "another model"),
    "with a layer too many": (_unknown_layer, "no layer down_blocks.7"),
    "cut off": (_truncated, "cut off"),
    "a pickle": (lambda p: torch.save({"x": 1}, p), "pickle"),
    "empty": (lambda p: p.write_bytes(b""), "not a safetensors file"),
    "of another kind of model": (
        lambda p: _pair(p, "language_model.layers.0.q_proj"),
        "no LoRA for Stable Diffusion",
    ),
    "of a transformer": (
        lambda p: _pair(p, "transformer.transformer_blocks.0.attn.to_q"),
        "has no transformer",
    ),
    "of a transformer in other names": (
        lambda p: _pair(p, "diffusion_model.layers.0.attention.to_q"),
        "names layers in a way that is not known",
    ),
    "half": (_half, "half of"),
    "not finite": (_not_finite, "infinite"),
    "not there": (lambda p: p, "there is no LoRA"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_lora_is_named_and_leaves_no_trace(loras_dir: Path, kind: str) -> None:
    make_bad, reason = BAD[kind]
    pipeline = tiny_sd()
    base = outputs(pipeline)
    modules = [type(module) for module in pipeline.unet.modules()]
    lora_files.kohya(loras_dir / "good.safetensors", draw(pipeline))
    make_bad(loras_dir / "bad.safetensors")
    adapters = equip(pipeline, loras_dir)

    with pytest.raises(AdapterError, match=reason) as raised:
        adapters.activate((Lora(name="bad"),))

    assert raised.value.name == "bad"
    assert same_bytes(outputs(pipeline), base)
    assert [type(module) for module in pipeline.unet.modules()] == modules
    with pytest.raises(AdapterError, match=reason):
        adapters.activate((Lora(name="good"), Lora(name="bad")))
    assert same_bytes(outputs(pipeline), base)
    adapters.activate((Lora(name="good"),))
    assert not same_bytes(outputs(pipeline), base)


def test_a_name_is_no_path(loras_dir: Path) -> None:
    pipeline = tiny_sd()
    outside = loras_dir.parent / "outside.safetensors"
    lora_files.kohya(outside, draw(pipeline))

    with pytest.raises(AdapterError, match="there is no LoRA"):
        equip(pipeline, loras_dir).activate((Lora(name="../outside"),))


@pytest.mark.parametrize("name", ["v1.5 ink", "keys", "lora_A", "weight", "ink.lora_B"])
def test_any_file_name_may_be_used(loras_dir: Path, name: str) -> None:
    pipeline = tiny_sd()
    base = outputs(pipeline)
    lora_files.kohya(loras_dir / f"{name}.safetensors", draw(pipeline))

    equip(pipeline, loras_dir).activate((Lora(name=name),))

    assert not same_bytes(outputs(pipeline), base)
