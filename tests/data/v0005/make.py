"""Make a data folder of the schema before revision 0006, beside this file.

Run with the code of commit dc6632f, from that commit's root:

    PYTHONPATH=server:sdk:. python …/tests/data/v0005/make.py
"""

import atexit
import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from tests import upscalers
from tests.serving import free_port

HERE = Path(__file__).parent
KEPT = ("darkroom.db", "images", "webhooks.secret")  # tests make the upscaler again
SMALL = {"seed": 7, "num_inference_steps": 3}
KEYS = {
    "key-json": ("/txt2img", {"prompt": "a red fox", "seed": 7, "num_inference_steps": 3}),
    "key-defaults": (  # a default that is said, and a number that is written otherwise
        "/txt2img",
        {
            "prompt": "a blue house",
            "seed": 8,
            "num_inference_steps": 2,
            "negative_prompt": "",
            "guidance_scale": 3,
            "loras": [],
        },
    ),
}


def picture(size: tuple[int, int] = (128, 128)) -> bytes:
    """PNG of a circle on green."""
    made = Image.new("RGB", size, (40, 120, 60))
    ImageDraw.Draw(made).ellipse((size[0] // 4, 20, size[0] // 2, 90), fill=(200, 30, 30))
    path = Path(tempfile.mkdtemp()) / "picture.png"
    made.save(path)
    return path.read_bytes()


def mask() -> bytes:
    """PNG, white on the right half."""
    made = Image.new("L", (128, 128))
    ImageDraw.Draw(made).rectangle((64, 0, 127, 127), fill=255)
    path = Path(tempfile.mkdtemp()) / "mask.png"
    made.save(path)
    return path.read_bytes()


class House:
    """A server process over the data folder."""

    def __init__(self, data: Path, command: str, **environment: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "darkroom",
                command,
                "--data-dir",
                data,
                "--port",
                str(self.port),
            ],
            env=os.environ | {"DARKROOM_ENGINE__PREVIEW_EVERY_S": "0.1", **environment},
        )
        atexit.register(self.process.kill)
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=300)
        ready = "/healthz" if command == "web" else "/readyz"
        for _ in range(1200):
            try:
                if self.http.get(ready).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError

    def ask(self, path: str, **sent: Any) -> dict[str, Any]:
        answer = self.http.post(path, **sent)
        assert answer.status_code in (200, 201, 202, 422), answer.text
        job: dict[str, Any] = answer.json()
        return job

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def main() -> None:
    data = Path(tempfile.mkdtemp()) / "data"
    data.mkdir()
    upscalers.save(data / "upscalers", "tiny-x2")
    dead = {"DARKROOM_WEBHOOKS__ALLOW": '["http://127.0.0.1:9/"]'}
    house = House(data, "serve", **dead)
    for key, (path, body) in KEYS.items():
        house.ask(path, json=body, headers={"idempotency-key": key})
    form = {"prompt": "a fox", **{name: str(value) for name, value in SMALL.items()}}
    uploaded = house.ask(
        "/img2img",
        data=form | {"strength": "0.7"},
        files={"image": picture()},
        headers={"idempotency-key": "key-form"},
    )
    source = uploaded["request"]["image"]
    inpainting = {
        **SMALL,
        "prompt": "a yellow star",
        "image": "data:image/png;base64," + base64.b64encode(picture()).decode(),
        "mask_image": "data:image/png;base64," + base64.b64encode(mask()).decode(),
        "mask_blur": 4,
        "masked_content": "noise",
        "strength": 0.8,
    }
    house.ask("/inpaint", json=inpainting)
    house.ask("/inpaint", json=inpainting | {"padding_mask_crop": 8, "invert_mask": True})
    house.ask("/img2img", json=SMALL | {"prompt": "x", "image": source, "latent_resize": "bicubic"})
    house.ask("/txt2img", json=SMALL | {"prompt": "two", "num_images": 2, "output_format": "webp"})
    house.ask(
        "/upscale",
        json={"image": source, "upscaler": "tiny-x2", "scale": 1.5},
        headers={"idempotency-key": "key-upscale"},
    )
    house.ask("/txt2img", json=SMALL | {"prompt": "told", "webhook": "http://127.0.0.1:9/told"})
    impossible = {"prompt": "x", "scheduler": "lcm", "num_inference_steps": 60}
    house.ask("/txt2img", json=impossible)  # 422, with the job's problem
    house.http.post("/tokens", json={"name": "Ada's phone", "scope": "use"}).raise_for_status()
    house.http.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2}).raise_for_status()
    house.stop()

    house = House(data, "web")  # nobody works: what is asked for stays queued
    later = {"prefer": "respond-async"}
    house.ask("/txt2img", json=SMALL | {"prompt": "later"}, headers=later)
    house.ask("/upscale", json={"image": source, "upscaler": "tiny-x2"}, headers=later)
    gone = house.ask("/img2img", json=SMALL | {"prompt": "never", "image": source}, headers=later)
    house.http.delete(f"/jobs/{gone['id']}").raise_for_status()
    jobs = house.http.get("/jobs", params={"limit": 50}).json()["jobs"]
    assert {job["status"] for job in jobs} == {"queued", "succeeded", "failed", "cancelled"}
    events = {}
    for job in jobs:
        del job["eta_seconds"]  # of the moment
        if job["status"] not in ("queued", "running"):
            events[job["id"]] = house.http.get(f"/jobs/{job['id']}/events").text.count("\nevent: ")
    (HERE / "image.png").write_bytes(house.http.get(jobs[-1]["images"][0]["url"]).content)
    house.stop()

    expected = {
        "jobs": jobs,
        "events": events,
        "keys": {key: {"path": path, "json": body} for key, (path, body) in KEYS.items()}
        | {
            "key-form": {
                "path": "/img2img",
                "form": form | {"strength": "0.7"},
                "files": {"image": base64.b64encode(picture()).decode()},
            },
            "key-upscale": {
                "path": "/upscale",
                "json": {"image": source, "upscaler": "tiny-x2", "scale": 1.5},
            },
        },
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    with closing(sqlite3.connect(data / "darkroom.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with tarfile.open(HERE / "data.tar.gz", "w:gz") as archive:
        for name in KEPT:
            if (data / name).exists():
                archive.add(data / name, f"data/{name}")
    shutil.rmtree(data)


if __name__ == "__main__":
    main()
