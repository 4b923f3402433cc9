"""One network in OpenVINO's form: how its files are written, opened and called."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from darkroom.catalog.model_entry import ModelEntry
from darkroom.errors import DarkroomError

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Of the largest number that torch's own network gives for the example. Rounding alone takes
# about a hundred thousandth in float32.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class NetworkError(DarkroomError):
    """A converted network cannot be opened, or does not compute what torch's does."""


@dataclass(frozen=True)
class Examples:
    """How the networks of a model are called.

    Attributes:
        unet: the arguments of a call; None leaves the UNet out.
        latents: (n, C, h, w), for the VAE's decoder.
        pixels: (n, 3, H, W), for its encoder.
    """

    unet: Mapping[str, Any] | None
    latents: torch.Tensor
    pixels: torch.Tensor


@dataclass(frozen=True)
class Wanted:
    """What to convert.

    Attributes:
        folder: for the files; it exists and is empty.
        niceness: of the process that does it.
    """

    entry: ModelEntry
    examples: Examples
    folder: Path
    niceness: int


@dataclass(frozen=True)
class Form:
    """How a network is called.

    Attributes:
        inputs: names of its arguments, in order; those of a dictionary in it as `NAME.KEY`.
        multiple: of latent pixels that the sides of a picture have to be, for it to be computed.
    """

    inputs: tuple[str, ...]
    multiple: int = 1


@dataclass(frozen=True)
class Files:
    """Where a converted network is."""

    folder: Path
    part: str

    @property
    def graph(self) -> Path:
        return self.folder / f"{self.part}.xml"

    @property
    def form(self) -> Path:
        return self.folder / f"{self.part}.json"

    @property
    def example(self) -> Path:
        """A call: tensors by name, and under `expected` what torch's network gave for it."""
        return self.folder / f"{self.part}.pt"

    def write_form(self, form: Form) -> None:
        self.form.write_text(json.dumps(asdict(form)))

    def read_form(self) -> Form:
        said = json.loads(self.form.read_text())
        return Form(tuple(said["inputs"]), said["multiple"])


def flat(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors among a network's arguments, by name."""
    found: dict[str, torch.Tensor] = {}
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": entry for key, entry in value.items()}
    return found


def nested(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments that `flat` was given."""
    arguments: dict[str, Any] = {}
    for name, value in tensors.items():
        outer, _, key = name.partition(".")
        if key:
            arguments.setdefault(outer, {})[key] = value
        else:
            arguments[name] = value
    return arguments


class Network:
    """A network that OpenVINO computes. Used from one thread at a time.

    Args:
        files: where it is.
        dtype: of the computation, where the CPU has it, and of what it gives.

    Raises:
        NetworkError: it is not what torch's network is, by its example.
        Exception: whatever OpenVINO or a damaged file raises.
    """

    def __init__(self, files: Files, dtype: torch.dtype) -> None:
        import openvino

        self.form = files.read_form()
        self.dtype = dtype
        compiled = openvino.Core().compile_model(
            files.graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self._request = compiled.create_infer_request()
        self._check(torch.load(files.example, weights_only=True))

    def takes(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it can compute this call: the arguments that it knows, and sides that fit."""
        tensors = flat(arguments)
        if tensors.keys() != set(self.form.inputs):
            return False
        sides = tensors[self.form.inputs[0]].shape[2:]
        return not any(side % self.form.multiple for side in sides)

    def __call__(self, **arguments: Any) -> tuple[torch.Tensor]:
        """What torch's network gives, as with `return_dict=False`."""
        tensors = flat(arguments)
        arrays = [tensors[name].float().contiguous().numpy() for name in self.form.inputs]
        (output,) = self._request.infer(arrays, share_inputs=True).values()
        return (torch.from_numpy(output).to(self.dtype),)

    def _check(self, example: dict[str, torch.Tensor]) -> None:
        expected = example.pop("expected")
        (given,) = self(**example)
        off = (given.float() - expected).abs().max() / expected.abs().max()
        if not off <= TOLERANCES[self.dtype]:  # not a number, too
            raise NetworkError(f"its results are off by {off:.2%} of torch's")
