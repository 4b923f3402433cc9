"""Databases with very many jobs in them, made by SQL."""

from pathlib import Path

from sqlalchemy import text

from darkroom.requests import Txt2Img
from darkroom.storage import sqlite
from darkroom.storage.database import Place, connect

CLIENTS = 8  # that have made the same number of jobs
EARLY = 25  # jobs of a client that came once, when half of the jobs were made
QUEUED = 400  # jobs that wait, by all clients
DAY_S = 86_400.0

REQUEST = Txt2Img(
    model="tintype",
    prompt="a red fox in the snow, number %",
    negative_prompt="",
    width=128,
    height=128,
    num_inference_steps=20,
    guidance_scale=3.0,
    num_images=1,
    seed=7,
    scheduler="ddim",
)

# A job a minute, the last one a day ago. Of a hundred, 90 succeeded.
_JOBS = """
INSERT INTO jobs (id, client, client_name, task, status, request, model, pixels, images, step,
    steps, urgency, attempts, isolated, cancel_requested, fingerprint, notes, created_at,
    started_at, finished_at, predicted_s)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
SELECT 'old' || CAST(i AS TEXT),
    CASE WHEN i > :count / 2 AND i <= :count / 2 + :early THEN 'early'
        ELSE 'client' || CAST(i % :clients AS TEXT) END,
    '', 'txt2img',
    CASE WHEN i % 100 < 90 THEN 'succeeded' WHEN i % 100 < 95 THEN 'failed' ELSE 'cancelled' END,
    :before || CAST(i AS TEXT) || :after,
    'tintype', 16384, 1, 20, 20, 3, 1, false, false, 'f' || CAST(i AS TEXT), '[]',
    :end - 60.0 * (:count - i), :end - 60.0 * (:count - i) + 1, :end - 60.0 * (:count - i) + 3, 3.0
FROM n
"""
_IMAGES = """
INSERT INTO images (id, job_id, "index", seed, width, height, content_type, bytes, sha256,
    created_at)
SELECT id || '-0', id, 0, 7, 128, 128, 'image/png', 20000, 'd' || id, finished_at
FROM jobs WHERE status = 'succeeded'
"""
_EVENTS = """
INSERT INTO events (job_id, type, data, created_at)
SELECT jobs.id, kinds.type, '{}', jobs.created_at
FROM jobs CROSS JOIN (
    SELECT 'queued' AS type UNION ALL SELECT 'started' UNION ALL SELECT 'progress'
    UNION ALL SELECT 'succeeded') AS kinds
"""
_WAITING = """
INSERT INTO jobs (id, client, client_name, task, status, request, model, pixels, images, step,
    steps, urgency, attempts, isolated, cancel_requested, fingerprint, notes, created_at)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :queued)
SELECT 'new' || CAST(n.i AS TEXT), 'client' || CAST(n.i % :clients AS TEXT), '', 'txt2img',
    'queued', last.request, 'tintype', 16384, 1, 0, 20, 3, 0, false, false,
    'q' || CAST(n.i AS TEXT), '[]', :end + DAY
FROM n CROSS JOIN (SELECT request FROM jobs ORDER BY sequence LIMIT 1) AS last
""".replace("DAY", str(DAY_S))


def fill(place: Place, count: int, now: float) -> None:
    """Put `count` ended jobs with their images and events, and QUEUED that wait, in an empty one.

    Args:
        now: seconds since the epoch.
    """
    engine = connect(place)
    with engine.begin() as connection:
        before, after = REQUEST.model_dump_json(exclude_none=True).split("%")
        values: dict[str, object] = {"count": count, "before": before, "after": after}
        values |= {"clients": CLIENTS, "early": EARLY, "queued": QUEUED, "end": now - DAY_S}
        for statement in (_JOBS, _IMAGES, _EVENTS, _WAITING):
            connection.execute(text(statement), values)
    # What the database does by itself in time: nobody makes a million jobs in a minute.
    if isinstance(place, Path):
        sqlite.shrink_log(place)
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
