"""Jobs and the clients that send them: the same to every server, from a seed.

The clients are threads of the benchmark's process, which has nothing else to do meanwhile. They
wait in a blocking POST, so they cost the measured server next to nothing.
"""

import base64
import io
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from benchmarks.servers import Server

SIDE = 128  # pixels; tintype's own size
TASKS = ("txt2img", "txt2img", "txt2img", "img2img", "inpaint")
STEPS = (4, 8, 12, 16, 20, 30)
SCHEDULERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "unipc", "lcm")
GUIDANCES = (0.0, 1.0, 2.0, 3.0, 3.0, 5.0)
PROMPTS = ("a red fox", "a house by the sea", "a green apple", "a yellow car in the snow")
PNG_MAGIC = b"\x89PNG"


@dataclass(frozen=True)
class Job:
    """A request as every server takes it: POST /`task` with `body` as JSON."""

    task: str
    body: dict[str, Any]


def txt2img(steps: int, seed: int = 7) -> Job:
    """The plain job of the rows about one request: the model's own scheduler and guidance."""
    return Job("txt2img", {"prompt": PROMPTS[0], "num_inference_steps": steps, "seed": seed})


def mixed(count: int, seed: int) -> tuple[Job, ...]:
    """What a household asks for: every task, many steps and few, different samplers."""
    draw = random.Random(seed)
    return tuple(_mixed(draw) for _ in range(count))


def _mixed(draw: random.Random) -> Job:
    task = draw.choice(TASKS)
    body: dict[str, Any] = {
        "prompt": draw.choice(PROMPTS),
        "negative_prompt": draw.choice(("", "blurry")),
        "num_inference_steps": draw.choice(STEPS),
        "guidance_scale": draw.choice(GUIDANCES),
        "scheduler": draw.choice(SCHEDULERS),
        "seed": draw.randrange(2**32),
    }
    if task != "txt2img":
        body |= {"image": _base64(picture()), "strength": draw.choice((0.6, 0.75))}
    if task == "inpaint":
        # The stock pipeline's picture, without the original's pixels put back.
        body |= {"mask_image": _base64(mask()), "strength": 1.0, "keep_unmasked": False}
    return Job(task, body)


def picture() -> Image.Image:
    """A source picture: a disc before a gradient."""
    ramp = Image.linear_gradient("L").resize((SIDE, SIDE))
    drawn = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    ImageDraw.Draw(drawn).ellipse((32, 32, 96, 96), fill=(220, 120, 30))
    return drawn


def mask() -> Image.Image:
    """White where to repaint."""
    drawn = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(drawn).ellipse((30, 40, 100, 100), fill=255)
    return drawn


def _base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def poisson(count: int, rate_per_s: float, seed: int) -> tuple[float, ...]:
    """When each of `count` independent people comes: seconds from the beginning, ascending."""
    draw = random.Random(seed)
    moments, now = [], 0.0
    for _ in range(count):
        now += draw.expovariate(rate_per_s)
        moments.append(now)
    return tuple(moments)


def develop(http: httpx2.Client, job: Job) -> bytes:
    """Ask for a picture and wait for it; the PNG's bytes.

    Raises:
        RuntimeError: the answer is not a picture.
    """
    answer = http.post(f"/{job.task}", json=job.body, headers={"accept": "image/png"})
    if answer.status_code != 200 or not answer.content.startswith(PNG_MAGIC):
        raise RuntimeError(f"{job.task} was answered {answer.status_code}: {answer.text[:300]}")
    return answer.content


def closed_loop(server: Server, jobs: Sequence[Job], clients: int) -> float:
    """Seconds that `clients` take for all jobs, each asking for the next when one is answered."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for _ in pool.map(lambda job: develop(server.http, job), jobs):
            pass
    return time.perf_counter() - began


def warm_up(server: Server, ready: str, clients: int) -> None:
    """Wait until `ready` answers, have every client's job done once, and pause the server."""
    server.until(ready)
    closed_loop(server, mixed(clients, seed=0), clients)
    server.pause()


def percentile(values: Sequence[float], percent: int) -> float:
    """Between the nearest two values, linearly, ends included."""
    return (
        values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]
    )


def one(server: Server, job: Job) -> float:
    """Seconds of one request."""
    began = time.perf_counter()
    develop(server.http, job)
    return time.perf_counter() - began
