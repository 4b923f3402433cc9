"""A program that asks a fleet for pictures while parts of it die."""

import base64
import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.waiting import eventually

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("/txt2img", {"num_inference_steps": 4}),
    ("/txt2img", {"num_inference_steps": 12, "num_images": 2}),
    ("/txt2img", {"num_inference_steps": 30, "width": 192, "height": 128}),
    ("/img2img", {"num_inference_steps": 8, "strength": 0.6}),
]


class Caller:
    """Asks for `jobs` pictures, and asks again while the answer is 503 or none.

    Attributes:
        refusals: the statuses of all answers that were no success.
    """

    def __init__(self, url: str, photo: Path, jobs: int) -> None:
        self._url, self._photo, self._jobs = url, photo, jobs
        self.refusals: set[int] = set()
        self._ended = 0
        self._awaited = 0

    def draw(self, disturbances: Iterable[Callable[[], None]]) -> None:
        """Every job succeeds, once, and with the bytes that it has without a disturbance.

        Args:
            disturbances: happen one after the other, each while jobs are worked on.
        """
        kinds = range(len(KINDS))
        undisturbed = [self.pictures(self.accepted(kind, f"before-{kind}")) for kind in kinds]
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(self.done_job, number % len(KINDS), f"job-{number}")
                for number in range(self._jobs)
            ]
            for disturb in disturbances:
                self.wait_for_progress()
                disturb()
            jobs = [each.result() for each in asked]
        for number, job in enumerate(jobs):
            assert job["status"] == "succeeded", job
            assert self.pictures(job["id"]) == undisturbed[number % len(KINDS)]
            assert self.ends(job["id"]) == 1

    def accepted(self, kind: int, key: str) -> str:
        """Ask until it is accepted; the job's id."""
        path, fields = KINDS[kind]
        body = {"prompt": "a red fox", "seed": 100 + kind, "exact": True, **fields}
        if path == "/img2img":
            body["image"] = self._upload()
        headers = {"prefer": "respond-async", "idempotency-key": key}
        answer = self._patiently("POST", path, json=body, headers=headers)
        return str(answer.json()["id"])

    def done_job(self, kind: int, key: str) -> dict[str, Any]:
        """Ask, and look until it has ended."""
        job = self.ended(self.accepted(kind, key))
        self._ended += 1
        return job

    def ended(self, job_id: str) -> dict[str, Any]:
        """Look until a job has ended."""
        while True:
            job: dict[str, Any] = self._patiently("GET", f"/jobs/{job_id}").json()
            if job["status"] not in ("queued", "running"):
                return job
            time.sleep(0.3)  # as a program does that polls

    def wait_for_progress(self) -> None:
        """Until another job has ended since the last call, so that workers are at work."""
        self._awaited = max(self._awaited + 1, self._ended)
        patiently(lambda: self._ended >= min(self._awaited, self._jobs))

    def pictures(self, job_id: str) -> list[str]:
        """The digests of a job's pictures, once it has ended."""
        job = self.ended(job_id)
        assert job["status"] == "succeeded", job
        found = [self._patiently("GET", f"/images/{image['id']}") for image in job["images"]]
        return [hashlib.sha256(answer.content).hexdigest() for answer in found]

    def ends(self, job_id: str) -> int:
        """How many ends its event log has."""
        text = self._patiently("GET", f"/jobs/{job_id}/events").text
        return sum(line in ("event: succeeded", "event: failed") for line in text.splitlines())

    def _upload(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self._photo.read_bytes()).decode()

    def _patiently(self, method: str, path: str, **more: Any) -> httpx2.Response:
        while True:
            with suppress(httpx2.TransportError), httpx2.Client(timeout=60) as http:
                answer = http.request(method, f"{self._url}{path}", **more)
                if answer.is_success:
                    return answer
                self.refusals.add(answer.status_code)
                assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE, answer.text
                assert answer.json()["detail"]
            time.sleep(0.2)  # a server that starts, or whose database is away


def patiently(look: Callable[[], bool], log: Path | None = None) -> None:
    """Wait as `eventually` does, longer: Ray and several workers start on one machine here."""
    for last in (False, False, False, True):
        try:
            eventually(look, every_s=0.5, about=None if log is None else log.read_text)
            return
        except TimeoutError:
            if last:
                raise


def answers(url: str) -> None:
    """Wait until a page is there."""

    def look() -> bool:
        with suppress(httpx2.TransportError):
            return httpx2.get(url).is_success
        return False

    eventually(look, every_s=0.2)
