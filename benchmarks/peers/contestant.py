"""What is compared: a server that draws what it is asked for with one model's weights."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx2

from benchmarks import geometry
from benchmarks.geometry import Geometry
from benchmarks.servers import ROOT, Server

PROMPT, GUIDANCE = "a red fox", 7.5
START_TIMEOUT_S = 1800.0  # Darkroom is ready when it has loaded the model
# Eight large pictures, one after the other on a slow machine.
ANSWER_TIMEOUT_S = 12 * 3600.0


@dataclass(frozen=True)
class Shape:
    """Of a picture: width and height in pixels, and denoising steps."""

    side: int
    steps: int

    def __str__(self) -> str:
        return f"{self.side}×{self.side}, {self.steps} steps"


@dataclass(frozen=True)
class Weights:
    """One model's random weights in the forms that contestants read, each written when asked for.

    Attributes:
        geometry: its shapes.
        models_dir: an empty folder for all of them.
    """

    geometry: Geometry
    models_dir: Path

    @property
    def name(self) -> str:
        return self.geometry.name

    @cached_property
    def folder(self) -> Path:
        """In the diffusers format."""
        geometry.write_apart(self.geometry, self.models_dir)
        return self.models_dir / self.name

    @cached_property
    def single_file(self) -> Path:
        """A checkpoint in half precision with the original names, alone in its folder."""
        file = self.models_dir.parent / "checkpoints" / f"{self.name}.safetensors"
        file.parent.mkdir()
        command = [sys.executable, "-m", "benchmarks.ldm", str(self.folder), str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
        return file


@dataclass(frozen=True)
class Contestant:
    """A program that draws.

    Attributes:
        name: for people.
        missing: why it cannot run here; empty if it can.
        serve: starts its server.
        draw: asks the server for a picture from a seed, and waits for the PNG.
    """

    name: str
    missing: str
    serve: Callable[[Weights], AbstractContextManager[Server]]
    draw: Callable[[Server, Shape, int], bytes]


def post(
    server: Server, path: str, body: object, accept: str = "application/json"
) -> httpx2.Response:
    """POST JSON, and wait for as long as it takes.

    Raises:
        RuntimeError: the answer is not a 200.
    """
    headers = {"accept": accept}
    answer = server.http.post(path, json=body, headers=headers, timeout=ANSWER_TIMEOUT_S)
    if answer.status_code != 200:
        raise RuntimeError(f"{path} was answered {answer.status_code}: {answer.text[:300]}")
    return answer
