"""ComfyUI's server, with the graph that it opens with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

ALIVE = "/system_stats"
CHECKPOINT = "model.safetensors"
LOOK_EVERY_S = 0.05


def comfyui(peers: Path | None) -> Contestant:
    """Args: peers: the folder that has its folder `ComfyUI`; None if there is none."""
    folder = peers / "ComfyUI" if peers else Path()
    python = folder / ".venv" / "bin" / "python"
    missing = ""
    if not (folder / "main.py").is_file():
        missing = "no folder `ComfyUI`"
    elif not python.is_file():
        missing = "no virtual environment `.venv` in the folder `ComfyUI`"

    @contextmanager
    def serve(weights: Weights) -> Iterator[Server]:
        base = weights.models_dir.parent / "comfyui"  # its models and what it draws
        checkpoint = base / "models" / "checkpoints" / CHECKPOINT
        if not base.is_dir():
            checkpoint.parent.mkdir(parents=True)
            checkpoint.symlink_to(weights.single_file)
            (base / "custom_nodes").mkdir()
        port = servers.free_port()
        command = [str(python), str(folder / "main.py"), "--port", str(port)]
        command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
        if stock.pick_device() == "cpu":
            command.append("--cpu")
        with servers.listening(command, port, {}, ALIVE) as server:
            server.until(ALIVE, START_TIMEOUT_S)
            yield server

    return Contestant("ComfyUI", missing, serve, _draw)


def _draw(server: Server, shape: Shape, seed: int) -> bytes:
    job = post(server, "/prompt", {"prompt": graph(shape, seed)}).json()["prompt_id"]
    while not (found := server.http.get(f"/history/{job}").json()):
        time.sleep(LOOK_EVERY_S)
    if found[job]["status"]["status_str"] != "success":
        raise RuntimeError(f"ComfyUI failed: {found[job]['status']}")
    (image,) = found[job]["outputs"]["save"]["images"]
    return server.http.get("/view", params=image).content


def graph(shape: Shape, seed: int) -> dict[str, Any]:
    """Nodes by name, in the form of its API: text to image, saved."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "load": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "positive": node("CLIPTextEncode", text=PROMPT, clip=["load", 1]),
        "negative": node("CLIPTextEncode", text="", clip=["load", 1]),
        "empty": node("EmptyLatentImage", width=shape.side, height=shape.side, batch_size=1),
        "sample": node(
            "KSampler",
            model=["load", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["empty", 0],
            seed=seed,
            steps=shape.steps,
            cfg=GUIDANCE,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["load", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="bench"),
    }
