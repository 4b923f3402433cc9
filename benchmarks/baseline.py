"""What everyone writes first: the diffusers pipelines behind Flask and a lock.

Meant to be good at what it is. The three pipelines share one set of weights; pictures are decoded
and encoded outside the lock; the UNet and the VAE are channels-last; gunicorn serves it with
threads and keep-alive; and all of torch runs in one thread, since on a CPU each thread that calls
it has an OpenMP team of its own, and two teams halve each other's speed. What it cannot do is work
on two requests at once: a diffusers pipeline is not safe to call from two threads
(huggingface/diffusers #3672).

    python -m benchmarks.baseline --port 7861
"""

import argparse
import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import torch
from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication
from PIL import Image

import darkroom
from benchmarks import stock

TINTYPE = Path(darkroom.__file__).parent / "models" / "tintype"
THREADS = 64  # as many callers can wait as at ours
DEFAULTS: dict[str, Any] = {
    "negative_prompt": "",
    "num_inference_steps": 20,
    "guidance_scale": 3.0,
    "strength": 0.75,
    "scheduler": "ddim",
}
SCHEDULERS: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
}


def create_app(
    folder: Path = TINTYPE, device: str | None = None, dtype: torch.dtype = torch.float32
) -> Flask:
    """The application, with the model loaded.

    Args:
        folder: a Stable Diffusion model in the diffusers format.
        device: where it runs; None is the GPU if there is one.
        dtype: of weights and activations.
    """
    app = Flask(__name__)
    lock = threading.Lock()
    worker = ThreadPoolExecutor(1)
    device = device or stock.pick_device()
    txt2img, img2img, inpaint = worker.submit(load, folder, device, dtype).result()
    config = txt2img.scheduler.config

    def develop(pipeline: Any, fields: dict[str, Any], **pictures: Any) -> Response:
        scheduler = SCHEDULERS[fields["scheduler"]].from_config(config)
        with lock:
            pipeline.scheduler = scheduler
            call = worker.submit(
                pipeline,
                fields["prompt"],
                negative_prompt=fields["negative_prompt"],
                num_inference_steps=fields["num_inference_steps"],
                guidance_scale=fields["guidance_scale"],
                generator=torch.Generator("cpu").manual_seed(fields["seed"]),
                **pictures,
            )
            picture = call.result().images[0]
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Response(buffer.getvalue(), mimetype="image/png")

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    @app.post("/txt2img")
    def from_words() -> Response:
        fields = read()
        return develop(txt2img, fields, width=fields.get("width"), height=fields.get("height"))

    @app.post("/img2img")
    def from_picture() -> Response:
        fields = read()
        image = decode(fields["image"], "RGB")
        return develop(img2img, fields, image=image, strength=fields["strength"])

    @app.post("/inpaint")
    def repaint() -> Response:
        fields = read()
        image, mask = decode(fields["image"], "RGB"), decode(fields["mask_image"], "L")
        return develop(
            inpaint,
            fields,
            image=image,
            mask_image=mask,
            strength=fields["strength"],
            width=image.width,
            height=image.height,
        )

    return app


def load(folder: Path, device: str, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """A pipeline for each task, around the same parts."""
    txt2img = stock.load(folder, dtype, device)
    txt2img.unet.to(memory_format=torch.channels_last)
    txt2img.vae.to(memory_format=torch.channels_last)
    img2img: Any = diffusers.StableDiffusionImg2ImgPipeline(**txt2img.components)
    inpaint: Any = diffusers.StableDiffusionInpaintPipeline(**txt2img.components)
    for pipeline in (img2img, inpaint):
        pipeline.set_progress_bar_config(disable=True)
    return txt2img, img2img, inpaint


def read() -> dict[str, Any]:
    """The fields of the current request, and defaults for what it left out."""
    return {**DEFAULTS, **request.get_json()}


def decode(data: str, mode: str) -> Image.Image:
    """A picture from base64."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        return opened.convert(mode)


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one process, because there is one model, and many threads."""

    def __init__(self, port: int, model: Path, dtype: str) -> None:
        self._port, self._model, self._dtype = port, model, dtype
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": [f"127.0.0.1:{self._port}"],
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "keepalive": 30,
            "timeout": 0,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._model, dtype=getattr(torch, self._dtype))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.baseline", description=__doc__)
    parser.add_argument("--port", type=int, default=7861)
    parser.add_argument("--model", type=Path, default=TINTYPE, help="a diffusers folder")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    arguments = parser.parse_args()
    Server(arguments.port, arguments.model, arguments.dtype).run()


if __name__ == "__main__":
    main()
