"""OpenVINO GenAI, behind a lock like the diffusers pipelines, since it has no server."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import servers, stock
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

SERVER = Path(__file__).parent / "genai_server.py"


def genai(peers: Path | None) -> Contestant:
    """Args: peers: the folder of its virtual environment `openvino`; None if there is none."""
    programs = peers / "openvino" / "bin" if peers else Path()
    missing = ""
    if stock.pick_device() != "cpu":
        missing = "it does not run on this GPU"
    elif not (programs / "optimum-cli").is_file():
        missing = "no virtual environment `openvino` with optimum-intel"

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        exported = weights.models_dir.parent / "openvino"
        if not exported.is_dir():
            export = [str(programs / "optimum-cli"), "export", "openvino"]
            export += ["--model", str(weights.folder), "--task", "text-to-image"]
            export += ["--weight-format", "fp16", str(exported)]
            subprocess.run(export, check=True)
        port = servers.free_port()
        command = [str(programs / "python"), str(SERVER), str(exported), "--port", str(port)]
        with servers.listening(command, port, {}, "/") as server:
            server.until("/", START_TIMEOUT_S)
            yield server

    return Contestant("OpenVINO GenAI", missing, serve, _draw)


def _draw(server: Server, shape: Shape, seed: int) -> bytes:
    body = {
        "prompt": PROMPT,
        "width": shape.side,
        "height": shape.side,
        "num_inference_steps": shape.steps,
        "guidance_scale": GUIDANCE,
        "rng_seed": seed,
    }
    return post(server, "/", body, "image/png").content
