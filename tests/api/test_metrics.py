"""`/metrics`, read as Prometheus reads it."""

from collections.abc import Callable

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import RunningServer
from tests.waiting import eventually


class Numbers:
    """One answer of `/metrics`."""

    def __init__(self, server: RunningServer) -> None:
        text = server.http.get("/metrics").text
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def wait_for(server: RunningServer, condition: Callable[[Numbers], bool]) -> Numbers:
    """Until the worker, which writes its numbers down every few seconds, has written these."""

    def written() -> Numbers | None:
        numbers = Numbers(server)
        return numbers if condition(numbers) else None

    return eventually(written, every_s=0.1)


def test_every_family_stands_there_once(server: RunningServer) -> None:
    names = [family.name for family in Numbers(server).families]

    assert len(names) == len(set(names))
    assert all(name.startswith("darkroom_") for name in names)


def test_jobs_are_counted_by_outcome_and_timed(server: RunningServer) -> None:
    server.wait_until_idle()
    before = Numbers(server)
    server.txt2img(num_images=2)
    cancelled = server.submit(num_inference_steps=150)
    server.http.delete(cancelled["url"])
    server.finished(cancelled["id"])

    after = Numbers(server)

    def grown(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grown("darkroom_jobs_ended_total", status="succeeded", task="txt2img") == 1
    assert grown("darkroom_jobs_ended_total", status="cancelled") == 1
    assert grown("darkroom_jobs", status="succeeded") == 1
    assert grown("darkroom_job_duration_seconds_count", task="txt2img") == 1
    assert grown("darkroom_job_wait_seconds_count") >= 1
    assert grown("darkroom_pictures") >= 2
    assert grown("darkroom_pictures_bytes") > 0


def test_the_worker_tells_what_its_engine_does(server: RunningServer) -> None:
    server.wait_until_idle()
    before = Numbers(server)
    server.txt2img(num_images=2, guidance_scale=3.0, num_inference_steps=4)

    def told(numbers: Numbers) -> bool:
        """At least that, for what the worker did just before may come with it."""
        pictures, rows = "darkroom_vae_decoded_pictures_total", "darkroom_unet_step_rows_sum"
        return (
            numbers(pictures) - before(pictures) >= 2
            and numbers(rows) - before(rows) >= 4 * 2 * 2  # steps × images × guidance
            and numbers("darkroom_engine_jobs_in_flight") == 0
        )

    numbers = wait_for(server, told)

    steps = numbers("darkroom_unet_step_rows_count") - before("darkroom_unet_step_rows_count")
    rows = numbers("darkroom_unet_step_rows_sum") - before("darkroom_unet_step_rows_sum")
    assert rows / 8 <= steps <= rows
    assert numbers("darkroom_unet_step_seconds_sum") > 0
    assert numbers("darkroom_engine_tick_seconds_count") > steps
    assert numbers("darkroom_worker_process_resident_memory_bytes") > 2**20
    assert numbers("darkroom_engine_info", device="cpu") == 1
    assert numbers("darkroom_workers_ready") == 1
    (sample,) = (s for s in numbers.samples if s.name == "darkroom_engine_jobs_in_flight")
    assert sample.labels.keys() == {"worker"}


def test_requests_are_counted_by_route_and_never_by_what_callers_make_up(
    server: RunningServer,
) -> None:
    before = Numbers(server)
    for number in range(3):
        server.http.get(f"/jobs/none{number}")
        server.http.get(f"/made-up/{number}")
        server.http.request("BREW", f"/coffee{number}")

    after = Numbers(server)

    def grown(**labels: str) -> float:
        name = "darkroom_http_requests_total"
        return after(name, **labels) - before(name, **labels)

    assert grown(route="/jobs/<job_id>", method="GET", status="404") == 3
    assert grown(route="unknown", method="GET", status="404") == 3
    assert grown(method="other") == 3
    assert "made-up" not in server.http.get("/metrics").text


@pytest.mark.parametrize(
    "name",
    [
        "darkroom_oldest_queued_seconds",
        "darkroom_disk_free_bytes",
        "darkroom_disk_min_free_bytes",
        "darkroom_build_info",
        "darkroom_event_streams",
        "darkroom_leases_lost_total",
        "darkroom_job_retries_total",
        "darkroom_eta_errors",
        "darkroom_gpu_memory_bytes",
        "darkroom_web_process_resident_memory_bytes",
    ],
)
def test_what_else_is_told(server: RunningServer, name: str) -> None:
    numbers = wait_for(server, lambda numbers: any(s.name == name for s in numbers.samples))

    assert numbers(name) >= 0
