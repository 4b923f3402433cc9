"""Requests hold the fields of their task; model, pixels and images are columns

Requests of all tasks had one form, with nulls for what a task has no use for and made-up values
for what upscaling has none of. What is left of one is what `GET /jobs/{id}` shows.
"""

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

BATCH = 1_000  # rows in memory
JOBS = sa.table(
    "jobs",
    *(sa.column(name) for name in ("sequence", "task", "steps", "request")),
    *(sa.column(name) for name in ("model", "pixels", "images")),
)

UPSCALE = ("image", "upscaler", "scale", "output_format")
# What the oldest requests leave out.
DEFAULTS = {"loras": [], "clip_skip": 0, "output_format": "png", "exact": False}
# What stood in requests to upscale.
UNUSED = {
    "prompt": "",
    "negative_prompt": "",
    "guidance_scale": 0.0,
    "num_images": 1,
    "seed": 0,
    "scheduler": "native",
}
NULLABLE = (
    *("image", "strength", "latent_resize", "mask_image", "mask_blur", "padding_mask_crop"),
    *("invert_mask", "keep_unmasked", "masked_content", "upscaler", "scale"),
)


def upgrade() -> None:
    op.execute("ALTER TABLE jobs RENAME COLUMN apart TO isolated")
    op.add_column("jobs", sa.Column("model", sa.String(210), nullable=False, server_default=""))
    for name in ("pixels", "images"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default="1"))
    _rewrite(_by_task)


def downgrade() -> None:
    _rewrite(_of_all_tasks)
    for name in ("images", "pixels", "model"):
        op.drop_column("jobs", name)
    op.execute("ALTER TABLE jobs RENAME COLUMN isolated TO apart")


def _rewrite(change: Callable[[Any], dict[str, Any]]) -> None:
    """Change every job's row."""
    connection, last = op.get_bind(), 0
    query = sa.select(JOBS).order_by(JOBS.c.sequence).limit(BATCH)
    while rows := connection.execute(query.where(JOBS.c.sequence > last)).all():
        for row in rows:
            last = row.sequence
            update = sa.update(JOBS).where(JOBS.c.sequence == last)
            connection.execute(update.values(**change(row)))


def _by_task(row: Any) -> dict[str, Any]:
    old = DEFAULTS | json.loads(row.request)
    kept = UPSCALE if row.task == "upscale" else old.keys() - {"task"}
    request = {name: old[name] for name in old if name in kept and old[name] is not None}
    return {
        "request": json.dumps(request, ensure_ascii=False),
        "model": old["model"],
        "pixels": old["width"] * old["height"],
        "images": old["num_images"],
    }


def _of_all_tasks(row: Any) -> dict[str, Any]:
    request = DEFAULTS | dict.fromkeys(NULLABLE) | json.loads(row.request) | {"task": row.task}
    if row.task == "upscale":
        width, height = _size(request) or (row.pixels, 1)
        request |= UNUSED | {
            "model": row.model,
            "width": width,
            "height": height,
            "num_inference_steps": row.steps,
        }
    return {"request": json.dumps(request, ensure_ascii=False)}


def _size(request: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height that an upscaling ends with; None if its picture is gone."""
    picture = request["image"].removeprefix("image:")
    for table in ("uploads", "images"):
        sizes = sa.text(f"SELECT width, height FROM {table} WHERE id = :id")
        found = op.get_bind().execute(sizes, {"id": picture}).first()
        if found is not None:
            return round(found[0] * request["scale"]), round(found[1] * request["scale"])
    return None
