"""What compose runs, from outside: over HTTP, and by what the container engine tells and does."""

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from tests.conftest import DATA
from tests.image.engine import Engine
from tests.test_docs import CURLS

PROJECT = "darkroom-image-check"
FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
LONGEST_S = 120.0
CAPABILITIES = re.compile(r"^Cap(Prm|Eff|Bnd|Amb):\t0+$", re.MULTILINE)


class Box:
    """A project of compose's on this machine.

    Args:
        using: runs it.
        context: where the compose files lie.
        port: to serve at.
    """

    def __init__(self, using: Engine, context: Path, port: int) -> None:
        self._using = using
        self._context = context
        self._port = port
        self.http = httpx2.Client(base_url=f"http://localhost:{port}", timeout=LONGEST_S)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        files = [word for name in FILES for word in ("--file", str(self._context / name))]
        return self._using.composed(
            *("--project-name", PROJECT, *files, *arguments),
            check=check,
            DARKROOM_PORT=str(self._port),
        )

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build")

    def down(self, *, volumes: bool = False) -> None:
        self.compose("down", *(["--volumes"] if volumes else []), check=not volumes)

    def logs(self, service: str = "") -> str:
        said = self.compose("logs", *([service] if service else []), check=False)
        return said.stdout + said.stderr

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """What a command says that is run in a service's container."""
        return self.compose("exec", "-T", service, *command, check=check).stdout

    def wait_for(self, path: str) -> None:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            try:
                if self.http.get(path).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"{path} did not answer")

    def picture(self) -> bytes:
        """Ask for one without saying how, as a person would; wait for it."""
        answer = self.http.post(
            "/txt2img", json={"prompt": "a red fox", "seed": 7}, headers={"accept": "image/png"}
        )
        assert answer.status_code == 200, answer.text
        return answer.content

    def gallery(self) -> dict[str, str]:
        """Every picture that there is, with the digest of its bytes."""
        found = {}
        for job in self.http.get("/jobs", params={"limit": 100}).json()["jobs"]:
            for image in job["images"]:
                answer = self.http.get(f"/images/{image['id']}")
                assert answer.status_code == 200, answer.text
                found[image["id"]] = hashlib.sha256(answer.content).hexdigest()
        assert found
        return found

    def check_greeting(self) -> None:
        """The owner can let a phone in."""
        log = self.logs("web")
        for words in ("Darkroom is at", "#pair=", "may own the server", "█"):
            assert words in log, f"the log of web lacks {words!r}:\n{log}"
        assert "#pair=" in self.inside("web", "darkroom", "token", "pair")

    def check_walls(self) -> None:
        """What the processes may not do, and that they are well so."""
        for service in ("web", "worker"):
            assert self.inside(service, "id", "-u").strip() == "10001"
            status = self.inside(service, "cat", "/proc/1/status")
            assert len(CAPABILITIES.findall(status)) == 4, status
            assert "NoNewPrivs:\t1" in status
            for path in ("/opt/darkroom", "/etc", "/"):
                refused = self.compose("exec", "-T", service, "touch", f"{path}/x", check=False)
                assert "Read-only file system" in refused.stdout + refused.stderr
            assert "is well" in self.inside(service, "darkroom", "health", service)
        assert self.inside("worker", "ls", "/sys/class/net").split() == ["lo"]
        doctor = self.inside("web", "darkroom", "doctor", check=False)
        assert re.search(r"ok +locks .*worker \(process \d+ of another container\)", doctor), doctor

    def check_curls(self) -> None:
        """As they stand in the README, by a program on the machine, without a token."""
        with tempfile.TemporaryDirectory() as folder:
            desk = Path(folder)
            (desk / "photo.jpg").write_bytes((DATA / "photo.jpg").read_bytes())
            mask = Image.new("L", (451, 300), 0)
            ImageDraw.Draw(mask).ellipse((150, 75, 300, 225), fill=255)
            mask.save(desk / "mask.png")
            for curl in CURLS:
                here = curl.replace("localhost:7860", f"localhost:{self._port}")
                subprocess.run(["bash", "-euo", "pipefail", "-c", here], cwd=desk, check=True)
                (made,) = re.findall(r"-o (\S+)", curl)
                with Image.open(desk / made) as picture:
                    picture.load()

    def check_killed_worker(self) -> float:
        """`kill -9` in the middle of a job. Returns seconds from there to the job's end."""
        body = {"prompt": "a fox", "seed": 7, "num_inference_steps": 100, "num_images": 4}
        answer = self.http.post("/txt2img", json=body, headers={"prefer": "respond-async"})
        address = f"/jobs/{answer.json()['id']}"
        self._until(address, lambda job: (job["progress"] or {}).get("step", 0) > 0)
        pid = self.inside("worker", "cat", "/data/worker-worker-0.lock").split()[0]
        began = time.monotonic()
        self.inside("worker", "bash", "-c", f"kill -9 {pid}", check=False)
        job = self._until(address, lambda job: job["finished_at"] is not None)
        assert job["status"] == "succeeded", job
        assert job["attempts"] == 2, job
        return time.monotonic() - began

    def _until(self, address: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.http.get(address).json()
            if holds(job):
                return job
            time.sleep(0.05)
        raise TimeoutError(str(job))
