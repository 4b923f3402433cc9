"""LoRAs of every kind change pictures as their formulas say, alone and in calls shared with others.

What they come to is computed by `lora_changes`, in other words than the engine's, and by peft
where peft knows the kind.
"""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf import GGMLQuantizationType
from peft import IA3Config, LoHaConfig, LoKrConfig, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from darkroom.engine import lora_file
from darkroom.engine.base import EngineJob, Failed
from darkroom.engine.layer_weights import weight_of
from darkroom.requests import Lora
from tests.effort import sampled
from tests.engine import hardware, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.lora_changes import ALPHA, KINDS, RANK, Draw, merge, write
from tests.engine.lora_files import draw, outputs, tiny_sd, tiny_sdxl
from tests.engine.stock import FlowStock, assert_equal, difference
from tests.engine.test_adapters import assert_close, equip, stock

PIPELINES = {"sd": tiny_sd, "sdxl": tiny_sdxl}
ENCODERS = {"sd": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}


@pytest.fixture
def loras_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "loras"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", sampled(KINDS, one_in=2))
@pytest.mark.parametrize("family", ["sd", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_kind_is_the_change_of_weights_that_its_formula_says(
    loras_dir: Path, family: str, kind: str
) -> None:
    pipeline, merged = PIPELINES[family](), PIPELINES[family]()
    parts = ("unet", *ENCODERS[family])
    plain = outputs(merged)
    deltas = write(loras_dir / "ink.safetensors", merged, kind, parts)

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.3, text_scale=-0.2),))
    for part in parts:
        its = set(getattr(merged, part).modules())
        mine = {module: delta for module, delta in deltas.items() if module in its}
        merge(mine, 0.3 if part == "unet" else -0.2)

    expected = outputs(merged)
    for mine, other, base in zip(outputs(pipeline), expected, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
        assert (other - base).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["loha", "lokr", "lokr_both"])
def test_peft_computes_the_same(loras_dir: Path, kind: str) -> None:
    """Of linear layers; peft keeps no alpha in a file, so it is told here."""
    pipeline, theirs = tiny_sd(), tiny_sd()
    targets = r".*attn[12]\.to_[qkv]"
    path = loras_dir / "ink.safetensors"
    write(path, theirs, kind, ("unet",), layers=targets)
    options: dict[str, Any] = {"target_modules": targets, "r": RANK, "alpha": ALPHA}
    if kind != "loha":
        options["decompose_both"] = kind == "lokr_both"
    config = LoHaConfig(**options) if kind == "loha" else LoKrConfig(**options)
    inject_adapter_in_model(config, theirs.unet)
    tensors = load_file(path)
    names = {name.replace(".", "_"): name for name, _ in pipeline.unet.named_modules()}
    for key, tensor in tensors.items():
        layer, _, side = key.removeprefix("lora_unet_").partition(".")
        if side == "alpha":
            continue
        module = theirs.unet.get_submodule(names[layer])
        held = getattr(module, side)
        if "default" not in held or held["default"].shape != tensor.shape:
            pytest.skip("peft takes this layer apart in another way")
        held["default"].data = tensor
        if kind == "lokr":
            module.scaling["default"] = 1.0  # LyCORIS' where there is no rank

    equip(pipeline, loras_dir).activate((Lora(name="ink"),))

    assert_close(outputs(pipeline)[-1:], outputs(theirs)[-1:])


def test_what_peft_saves_of_ia3_does_what_it_does_in_peft(loras_dir: Path) -> None:
    """Of what a layer gives with its bias, and in the layers behind attention of what it reads."""
    pipeline, theirs = tiny_sd(), tiny_sd()
    targets = r".*(attn[12]\.to_(k|v|out\.0)|ff\.net\.2)"
    config = IA3Config(target_modules=targets, feedforward_modules=r".*ff\.net\.2")
    adapted = get_peft_model(theirs.unet, config)
    draw = Draw(4)
    for name, vector in adapted.named_parameters():
        if ".ia3_l." in name:
            vector.data = 1 + draw(*vector.shape)
    adapted.save_pretrained(loras_dir)
    (loras_dir / "adapter_model.safetensors").rename(loras_dir / "ink.safetensors")

    equip(pipeline, loras_dir).activate((Lora(name="ink"),))

    assert_close(outputs(pipeline)[-1:], outputs(theirs)[-1:])
    assert not torch.equal(outputs(pipeline)[-1], outputs(tiny_sd())[-1])


def test_stock_diffusers_reads_a_dora_as_we_do(loras_dir: Path) -> None:
    """In peft's names: of others diffusers leaves the magnitudes out."""
    pipeline = tiny_sd()
    path = loras_dir / "ink.safetensors"
    write(path, pipeline, "dora", ("unet",), layers=r"attn[12]\.to_[qkv]")
    names = {name.replace(".", "_"): name for name, _ in pipeline.unet.named_modules()}
    tensors = {}
    for key, tensor in load_file(path).items():
        layer, _, end = key.removeprefix("lora_unet_").partition(".")
        sides = {
            "lora_down.weight": ("lora_A.weight", tensor),
            "lora_up.weight": ("lora_B.weight", tensor * ALPHA / RANK),
            "dora_scale": ("lora_magnitude_vector", tensor.flatten()),
        }
        if end in sides:
            name, made = sides[end]
            tensors[f"unet.{names[layer]}.{name}"] = made
    save_file(tensors, path)
    equip(pipeline, loras_dir).activate((Lora(name="ink"),))

    ours = outputs(pipeline)

    for mine, other in zip(ours, stock(tiny_sd, [(path, 1.0)]), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)


def test_norms_and_biases_change(loras_dir: Path) -> None:
    """As kohya's and ComfyUI's extractions hold them; `diff` of a norm is LyCORIS' `w_norm`."""
    pipeline, merged = tiny_sd(), tiny_sd()
    draw, tensors = Draw(3), {}
    with torch.no_grad():
        for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
            for number, (name, module) in enumerate(getattr(merged, part).named_modules()):
                key = f"{prefix}{name.replace('.', '_')}"
                weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
                if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
                    one, two = draw(len(weight)), draw(len(weight))
                    first = "diff" if number % 2 else "w_norm"
                    second = "diff_b" if number % 2 else "b_norm"
                    tensors |= {f"{key}.{first}": one, f"{key}.{second}": two}
                    weight += 0.5 * one
                    bias += 0.5 * two
                elif bias is not None:
                    tensors[f"{key}.diff_b"] = draw(len(bias), size=0.1)
                    bias += 0.5 * tensors[f"{key}.diff_b"]
    save_file(tensors, loras_dir / "ink.safetensors")

    equip(pipeline, loras_dir).activate((Lora(name="ink", scale=0.5),))

    for mine, other in zip(outputs(pipeline), outputs(merged), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_norms_by_the_names_of_sdxls_original_code(tmp_path: Path) -> None:
    """As LyCORIS saves them with `train_norm`; diffusers looks for no change of a norm there."""
    pipeline = tiny_sdxl()
    key = "lora_unet_input_blocks_1_0_{}_layers_0"
    tensors = {
        f"{key.format(side)}.{end}": torch.ones(16)
        for side in ("in", "out")
        for end in ("w_norm", "b_norm")
    }
    save_file(tensors, tmp_path / "ink.safetensors")

    parts = {"unet": pipeline.unet}
    updates = lora_file.read(tmp_path / "ink.safetensors", type(pipeline), parts)

    resnet = "down_blocks.0.resnets.0"
    assert updates["unet"].keys() == {f"{resnet}.norm1", f"{resnet}.norm2"}


def test_a_dora_finds_the_weights_of_a_quantised_layer() -> None:
    """They are kept in bytes, in which nothing can be multiplied."""
    plain = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    packed = torch.from_numpy(gguf.quantize(plain.numpy(), GGMLQuantizationType.Q8_0))
    layer = GGUFLinear(64, 8, bias=True, compute_dtype=torch.float32)
    layer.weight = GGUFParameter(packed, quant_type=GGMLQuantizationType.Q8_0)

    torch.testing.assert_close(weight_of(layer), plain, rtol=0, atol=0.05)


# --- pictures ------------------------------------------------------------------------------

SHARED = ("loha", "lokr_second", "dora", "dora_of_columns", "ia3", "glora", "oft", "full")


def drawn(model: str, name: str, loras: tuple[Lora, ...] = (), **fields: Any) -> EngineJob:
    size = {"width": tiny.SIZE, "height": tiny.SIZE, "num_inference_steps": 3}
    scheduler = {} if model == "sd1" else {"scheduler": "native", "negative_prompt": ""}
    return EngineJob(name, request(model=model, loras=loras, **size, **scheduler, **fields))


@pytest.mark.slow
def test_jobs_of_all_kinds_share_their_calls(tmp_path: Path) -> None:
    """Each picture is what it is when its job runs alone."""
    folder = tiny.sd1(tmp_path / "models" / "sd1")
    (tmp_path / "loras").mkdir()
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    for kind in SHARED:
        write(tmp_path / "loras" / f"{kind}.safetensors", pipeline, kind, ("unet", "text_encoder"))
    engine = make_engine(tmp_path)
    hardware.parallel(engine, "sd1")
    asked = [drawn("sd1", "none")] + [
        drawn("sd1", kind, (Lora(name=kind, scale=0.1 * (1 + n % 3)),))
        for n, kind in enumerate(SHARED)
    ]
    alone = {one.id: developed(run(engine, one), one.id)[0] for one in asked}

    with hardware.counting(engine, "sd1") as rows:
        events = run(engine, *asked)

    assert max(rows) > 4
    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, alone[one.id])
        if one.id != "none":
            assert difference(ours, alone["none"]) > 4


@pytest.mark.parametrize(
    "model",
    [
        "z_image",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("sd3", "flux_dev", "flux2_klein", "qwen_image")
        ),
    ],
)
def test_transformers_take_every_kind(tmp_path: Path, model: str) -> None:
    """In one call: equal to the stock pipeline whose weights are changed."""
    builders = tiny.BUILDERS | tiny_families.BUILDERS
    tiny.small_by_default(builders[model](tmp_path / "models" / model))
    folder = tmp_path / "models" / model
    (tmp_path / "loras").mkdir()
    kinds = ("loha", "lokr", "dora", "glora", "ia3_of_inputs")
    pictures = {}
    for kind in kinds:
        theirs = FlowStock(folder)
        parts = theirs._loaded
        path = tmp_path / "loras" / f"{kind}.safetensors"
        merge(write(path, parts, kind, ("transformer",), layers=r"attn|attention"), 0.2)
        pictures[kind] = theirs.picture(drawn(model, kind))
    asked = [drawn(model, kind, (Lora(name=kind, scale=0.2),)) for kind in kinds]

    events = run(make_engine(tmp_path), *asked)

    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, pictures[one.id])


@pytest.mark.parametrize(
    "model",
    [
        "z_image",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("sd3", "flux_dev", "flux2_klein")
        ),
    ],
)
@pytest.mark.parametrize("name", ["lora_transformer_{}", "transformer.{}"])
def test_transformers_take_loras_of_all_layers_by_their_own_names(
    tmp_path: Path, model: str, name: str
) -> None:
    """As OneTrainer saves them; other programs' names are those of the original code."""
    builders = tiny.BUILDERS | tiny_families.BUILDERS
    parts = FlowStock(builders[model](tmp_path / "model"))._loaded
    made = draw(
        parts, parts=("transformer",), layers=r"attn|attention|ff|feed_forward|mlp|norm\d?\."
    )
    tensors: dict[str, torch.Tensor] = {}
    for layer, change in made["transformer"].items():
        key = name.format(layer.replace(".", "_") if "_{" in name else layer)
        tensors |= {f"{key}.lora_down.weight": change.down, f"{key}.lora_up.weight": change.up}
        tensors[f"{key}.alpha"] = torch.tensor(change.alpha)
    save_file(tensors, tmp_path / "ink.safetensors")

    transformer = {"transformer": parts.transformer}
    updates = lora_file.read(tmp_path / "ink.safetensors", type(parts), transformer)

    assert updates["transformer"].keys() == made["transformer"].keys()
    for layer, change in made["transformer"].items():
        torch.testing.assert_close(updates["transformer"][layer].delta(), change.delta())


@pytest.mark.slow
def test_a_kind_for_another_model_fails_its_job_alone(tmp_path: Path) -> None:
    tiny.sd1(tmp_path / "models" / "sd1")
    (tmp_path / "loras").mkdir()
    write(tmp_path / "loras" / "ink.safetensors", tiny_sd(40), "lokr", ("unet",))
    asked = (drawn("sd1", "ink", (Lora(name="ink"),)), drawn("sd1", "other"))

    events = run(make_engine(tmp_path), *asked)

    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.job_id == "ink"
    assert "another model" in failed.detail
    assert developed([event for event in events if event.job_id == "other"], "other")
