"""How long a POST takes to be accepted while a thousand jobs are queued, and beside many LoRAs."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from benchmarks import load
from benchmarks.figure import Figure
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite

QUEUED = 1000
FEW_LORAS = 100
SETTINGS = {
    "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "1000000",
    "DARKROOM_QUEUE__MAX_PENDING": str(2 * QUEUED),
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": str(2 * QUEUED),
    "DARKROOM_QUEUE__LEASE_S": "86400",  # a paused worker keeps its job and its place
}

HOW = f"""\
The worker makes a few pictures, so that speeds are known, and is stopped with SIGSTOP. {QUEUED}
jobs of mixed kinds are sent with `Prefer: respond-async`; then single `POST /txt2img` of the same
sort are timed, one after the other, from the first byte sent to the answer, which holds position
and estimate. Then the same with a LoRA, of {FEW_LORAS} files in the folder and of many; the first
request after a change of the folder, which reads the new headers, is not counted."""


def accepting(effort: Effort) -> list[Figure]:
    many = 250 * effort.jobs
    with tempfile.TemporaryDirectory(prefix="darkroom-loras-") as folder:
        loras = Path(folder) / "loras"
        settings = {"DARKROOM_MODELS__PATHS": json.dumps([folder])}
        _fill(loras, FEW_LORAS)
        with darkroom(**SETTINGS, **settings) as server:
            server.until("/readyz")
            load.closed_loop(server, load.mixed(4, seed=0), 2)
            worker = server.child("worker")
            worker.suspend()
            try:
                empty = tuple(accept_ms(server, seed) for seed in range(effort.pictures))
                for seed in range(QUEUED):
                    accept_ms(server, seed)
                full = tuple(accept_ms(server, seed) for seed in range(5 * effort.pictures))
                few_loras = _accept_with_lora(server, effort)
                _fill(loras, many)
                many_loras = _accept_with_lora(server, effort)
            finally:
                worker.resume()
                server.process.terminate()
    return [
        Figure("accepting a POST, few queued", empty, "ms"),
        Figure(f"accepting a POST, {QUEUED} queued", full, "ms"),
        Figure(f"accepting a POST with a LoRA, {FEW_LORAS} files", few_loras, "ms"),
        Figure(f"accepting a POST with a LoRA, {many} files", many_loras, "ms"),
    ]


def _fill(folder: Path, count: int) -> None:
    """Bring the LoRAs for tintype in a folder to a number, as if that was long ago."""
    folder.mkdir(exist_ok=True)
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{layer}.lora_down.weight": (4, 192), f"{layer}.lora_up.weight": (64, 4)}
    data = save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()})
    for number in range(count):
        path = folder / f"lora-{number}.safetensors"
        if not path.exists():
            path.write_bytes(data)
    os.utime(folder, (1e9, 1e9))


def _accept_with_lora(server: Server, effort: Effort) -> tuple[float, ...]:
    lora = {"loras": [{"name": "lora-7"}]}
    return tuple(accept_ms(server, seed, **lora) for seed in range(5 * effort.pictures + 1))[1:]


def accept_ms(server: Server, seed: int, **fields: object) -> float:
    """Milliseconds until a job is accepted."""
    job = load.txt2img(seed % 20 + 1, seed)
    body = {**job.body, **fields}
    began = time.perf_counter()
    answer = server.http.post("/txt2img", json=body, headers={"prefer": "respond-async"})
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took * 1000


SUITE = Suite("accepting", "Accepting while many wait", HOW, accepting)
