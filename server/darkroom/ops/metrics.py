"""Metrics of the queue for Prometheus, and the workers' own metrics beside them.

Jobs are counted from the event log, so that it does not matter which process ended a job, and a
worker that dies loses no count.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from statistics import median

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from darkroom.responses import EventType, JobStatus, WebhookState
from darkroom.storage import totals
from darkroom.storage.database import Database
from darkroom.storage.tables import EventRow, JobRow, WebhookRow, WorkerRow

log = structlog.get_logger()

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
COUNTED = (EventType.STARTED, *(kind for kind in EventType if kind.terminal))
PAGE = 1000
ETA_SAMPLE = 200  # how many of the last jobs estimates are compared with


class QueueMetrics(Collector):
    """Collects at each scrape what has happened since this object was made, and the current state.

    `eta_errors` returns the relative errors of the first estimates of that many of the last jobs:
    0.1 is 10 % of the actual time. The clock gives seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        eta_errors: Callable[[int], Sequence[float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._eta_errors = eta_errors
        self._clock = clock
        self._lock = threading.Lock()
        with database.read() as session:
            self._last_id = session.scalar(select(func.max(EventRow.id))) or 0
        self._counted = CollectorRegistry()
        counter = partial(Counter, registry=self._counted)
        histogram = partial(Histogram, buckets=SECONDS, registry=self._counted)
        self._ended = counter(
            "darkroom_jobs_ended", "Ended jobs by outcome.", labelnames=("status", "task")
        )
        for status in JobStatus:
            if status.terminal:
                self._ended.labels(status.value, "txt2img")
        self._failures = counter(
            "darkroom_job_failures",
            "Failed jobs by the last part of their problem's type.",
            labelnames=("kind",),
        )
        self._retries = counter("darkroom_job_retries", "Jobs started again after an interruption.")
        self._waits = histogram(
            "darkroom_job_wait_seconds", "Time from acceptance to the first step."
        )
        self._durations = histogram(
            "darkroom_job_duration_seconds",
            "Time from the first step to the last picture of jobs that succeeded.",
            labelnames=("task",),
        )

    def collect(self) -> Iterator[Metric]:
        with self._lock, self._database.read() as session:
            self._count(session)
            yield from self._counted.collect()
            yield from self._current(session)
            yield from self._workers(session)
        yield from self._estimates()

    def _count(self, session: Session) -> None:
        """Count the events since the last scrape."""
        events = (
            select(EventRow, JobRow.task, JobRow.created_at, JobRow.started_at, JobRow.finished_at)
            .join(JobRow, JobRow.id == EventRow.job_id)
            .where(EventRow.type.in_(COUNTED))
            .order_by(EventRow.id)
            .limit(PAGE)
        )
        newest = session.scalar(select(func.max(EventRow.id))) or 0
        while rows := session.execute(events.where(EventRow.id > self._last_id)).all():
            for event, task, accepted_at, started_at, finished_at in rows:
                self._last_id = event.id
                data = json.loads(event.data)
                match EventType(event.type):
                    case EventType.STARTED if data.get("attempt", 1) == 1:
                        self._waits.observe(max(0.0, event.created_at - accepted_at))
                    case EventType.STARTED:
                        self._retries.inc()
                    case kind:
                        self._ended.labels(kind.value, task).inc()
                        if kind is EventType.FAILED:
                            problem = data["problem"]["type"].rpartition(":")[2]
                            self._failures.labels(problem).inc()
                        if kind is EventType.SUCCEEDED and started_at and finished_at:
                            took = max(0.0, finished_at - started_at)
                            self._durations.labels(task).observe(took)
        self._last_id = max(self._last_id, newest)

    def _current(self, session: Session) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("darkroom_jobs", "Jobs by status.", labels=["status"])
        stored = totals.read(session)
        for status in JobStatus:
            jobs.add_metric([status.value], stored.jobs.get(status.value, 0))
        yield jobs
        queued = JobRow.status == JobStatus.QUEUED
        oldest = session.scalar(select(func.min(JobRow.created_at)).where(queued))
        waited = 0.0 if oldest is None else max(0.0, self._clock() - oldest)
        yield GaugeMetricFamily(
            "darkroom_oldest_queued_seconds", "Waiting time of the oldest queued job.", waited
        )
        yield GaugeMetricFamily(
            "darkroom_pictures", "Developed pictures in storage.", stored.pictures
        )
        yield GaugeMetricFamily(
            "darkroom_pictures_bytes", "Their size in bytes.", stored.picture_bytes
        )
        pending = select(func.count()).where(WebhookRow.state == WebhookState.PENDING)
        yield GaugeMetricFamily(
            "darkroom_webhooks_pending",
            "Webhooks of ended jobs that are not delivered yet.",
            session.scalar(pending) or 0,
        )

    def _workers(self, session: Session) -> Iterator[Metric]:
        alive = WorkerRow.lease_until > self._clock()
        workers = session.scalars(select(WorkerRow).where(alive).order_by(WorkerRow.id)).all()
        yield GaugeMetricFamily("darkroom_workers", "Workers that are alive.", len(workers))
        ready = sum(row.ready for row in workers)
        yield GaugeMetricFamily("darkroom_workers_ready", "Workers with a loaded model.", ready)
        yield from merge((row.id, row.metrics) for row in workers)

    def _estimates(self) -> Iterator[Metric]:
        errors = self._eta_errors(ETA_SAMPLE)
        if errors:
            yield GaugeMetricFamily(
                "darkroom_eta_error_ratio",
                f"Median relative error of the first estimates of the last {ETA_SAMPLE} jobs.",
                median(errors),
            )
        yield GaugeMetricFamily("darkroom_eta_errors", "Jobs in that median.", len(errors))


def merge(texts: Iterable[tuple[str, str]]) -> list[Metric]:
    """The metrics of workers, by name and text, as one list; each sample has the label `worker`.

    A text that is not in Prometheus' format is logged and left out.
    """
    merged: dict[str, Metric] = {}
    for worker, text in texts:
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:
            log.warning("the worker's metrics cannot be read", worker=worker)
            continue
        for family in families:
            new = Metric(family.name, family.documentation, family.type)
            merged.setdefault(family.name, new).samples += [
                sample._replace(labels={**sample.labels, "worker": worker})
                for sample in family.samples
            ]
    return list(merged.values())
