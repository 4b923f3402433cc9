"""stable-diffusion.cpp's own server."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import servers
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

ALIVE = "/sdapi/v1/options"


def sd_cpp(peers: Path | None) -> Contestant:
    """Args: peers: the folder in which its program `sd-server` lies; None if there is none."""
    program = peers / "sd-server" if peers else Path()
    is_there = program.is_file() and os.access(program, os.X_OK)

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        port = servers.free_port()
        command = [str(program), "--model", str(weights.single_file)]
        command += ["--listen-ip", "127.0.0.1", "--listen-port", str(port)]
        with servers.listening(command, port, {}, ALIVE) as server:
            server.until(ALIVE, START_TIMEOUT_S)
            yield server

    missing = "" if is_there else "no program `sd-server`"
    return Contestant("stable-diffusion.cpp", missing, serve, _draw)


def _draw(server: Server, shape: Shape, seed: int) -> bytes:
    body = {
        "prompt": PROMPT,
        "width": shape.side,
        "height": shape.side,
        "steps": shape.steps,
        "cfg_scale": GUIDANCE,
        "sampler_name": "Euler",
        "seed": seed,
    }
    return base64.b64decode(post(server, "/sdapi/v1/txt2img", body).json()["images"][0])
