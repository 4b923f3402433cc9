"""A process that converts a model for OpenVINO: `python -m darkroom.engine.openvino.convert`.

It reads a pickled `Wanted` and ends when its standard input does, which the worker holds open as
long as it lives. Tracing a UNet is minutes of Python, which would hold up the worker's loop.
"""

import os
import pickle
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import nn

from darkroom.engine import loading
from darkroom.engine.openvino.network import Files, Form, Wanted, flat, nested

# Where memory runs out, the system ends this process and not the one that draws.
FIRST_TO_GO = Path("/proc/self/oom_score_adj")
# By a tensor's number of dimensions, the one that never varies: channels of latents and pixels,
# widths of embeddings. Rows, sides and lengths of prompts vary.
FIXED = {2: 1, 3: 2, 4: 1}


class Positional(nn.Module):
    """A network whose arguments are tensors, in order, as tracing wants them."""

    def __init__(self, network: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self._names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        called: torch.Tensor = self.network(
            **nested(dict(zip(self._names, tensors, strict=True))), return_dict=False
        )[0]
        return called


@torch.inference_mode()
def convert(wanted: Wanted) -> None:
    """Write the networks of a model.

    Raises:
        ModelLoadError: the model cannot be loaded.
        Exception: OpenVINO cannot convert it, or the disk is full.
    """
    pipeline = loading.load_pipeline(wanted.entry, torch.device("cpu"), torch.float32)
    examples = wanted.examples
    if examples.unet is not None:
        unet, call = pipeline.unet.eval(), flat(examples.unet)
        form = Form(tuple(call), multiple=2 ** (len(unet.config.block_out_channels) - 1))
        _write(Positional(unet, form.inputs), form, call, Files(wanted.folder, "unet"))
    for part, example in (("decoder", examples.latents), ("encoder", examples.pixels)):
        network = getattr(pipeline.vae, part).eval()
        _write(network, Form(("sample",)), {"sample": example}, Files(wanted.folder, part))


def _write(network: nn.Module, form: Form, call: Mapping[str, torch.Tensor], files: Files) -> None:
    tensors = {name: call[name].float().clone() for name in form.inputs}
    expected = network(*tensors.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of branches on sizes, which `Form.multiple` rules out
        graph = openvino.convert_model(
            network,
            example_input=tuple(tensors.values()),
            input=[
                openvino.PartialShape(
                    [
                        size if dimension == FIXED.get(tensor.ndim) else -1
                        for dimension, size in enumerate(tensor.shape)
                    ]
                )
                for tensor in tensors.values()
            ],
        )
    openvino.save_model(graph, files.graph, compress_to_fp16=False)
    torch.save({**tensors, "expected": expected}, files.example)
    files.write_form(form)


def _end_with_parent() -> None:
    # Reading through `sys.stdin` would hold its lock at the end of the process.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    FIRST_TO_GO.write_text("1000")
    wanted: Wanted = pickle.load(sys.stdin.buffer)  # of the worker, which started it
    os.nice(wanted.niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    convert(wanted)


if __name__ == "__main__":
    main()
