"""Darkroom, and stock diffusers behind Flask and a lock: what every installation has."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from benchmarks import openvino, servers, stock
from benchmarks.peers.contestant import (
    GUIDANCE,
    PROMPT,
    START_TIMEOUT_S,
    Contestant,
    Shape,
    Weights,
    post,
)
from benchmarks.servers import Server
from darkroom.engine import cpu

WITHOUT_BFLOAT16 = "this processor has no instructions for bfloat16"


def darkroom(dtype: str = "auto") -> Contestant:
    """Our server as it starts without settings, or with `engine.dtype`."""

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        with servers.darkroom(**_settings(weights, dtype)) as server:
            server.until("/readyz", START_TIMEOUT_S)
            yield server

    return Contestant(f"Darkroom{_in(dtype)}", _without(dtype), serve, _draw)


def darkroom_openvino(dtype: str = "auto") -> Contestant:
    """Our server with `engine.backend: openvino`, after it has converted the model."""
    missing = _without(dtype)
    if stock.pick_device() != "cpu":
        missing = "it is for CPUs"
    elif find_spec("openvino") is None:
        missing = "openvino is not installed"

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        settings = _settings(weights, dtype) | {
            "DARKROOM_ENGINE__BACKEND": "openvino",
            # The next turn finds what this one has converted, whatever the type is.
            "DARKROOM_DATA_DIR": str(weights.models_dir.parent / "data"),
        }
        with servers.darkroom(**settings) as server:
            server.until("/readyz", START_TIMEOUT_S)
            _draw(server, Shape(weights.geometry.side // 2, 1), 0)
            openvino.until_converted(server, weights.name)
            yield server

    return Contestant(f"Darkroom with OpenVINO{_in(dtype)}", missing, serve, _draw)


def _in(dtype: str) -> str:
    return "" if dtype == "auto" else f" in {dtype}"


def _without(dtype: str) -> str:
    """Why this machine cannot compute in a type; empty if it can."""
    on_a_gpu = stock.pick_device() != "cpu"
    if dtype != "bfloat16" or on_a_gpu or cpu.multiplies_bfloat16():
        return ""
    return WITHOUT_BFLOAT16


def _settings(weights: Weights, dtype: str) -> dict[str, str]:
    return {
        "DARKROOM_MODELS__PATHS": json.dumps([str(weights.folder.parent)]),
        "DARKROOM_MODELS__DEFAULT": weights.name,
        "DARKROOM_ENGINE__DTYPE": dtype,
    }


def baseline() -> Contestant:
    """Stock diffusers, in the precision that Darkroom chooses by itself."""

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        dtype = "float16" if stock.pick_device() == "cuda" else "float32"
        with servers.baseline("--model", str(weights.folder), "--dtype", dtype) as server:
            server.until("/healthz", START_TIMEOUT_S)
            yield server

    return Contestant("diffusers behind a lock", "", serve, _draw)


def _draw(server: Server, shape: Shape, seed: int) -> bytes:
    body = {
        "prompt": PROMPT,
        "width": shape.side,
        "height": shape.side,
        "num_inference_steps": shape.steps,
        "guidance_scale": GUIDANCE,
        "scheduler": "euler",
        "seed": seed,
    }
    return post(server, "/txt2img", body, "image/png").content
