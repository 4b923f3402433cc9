"""Hundreds of pictures in a server's database, without the hours that making them would take."""

import hashlib
import io
import sqlite3
import time
from contextlib import closing

import numpy as np
from PIL import Image

from darkroom.storage.files import FolderFiles
from tests.serving import RunningServer

SIDE = 256
PER_DAY = 40
DAY_S = 86_400


def fill(server: RunningServer, count: int) -> None:
    """Jobs that are done, each with one picture: `picture 0` is the oldest.

    Args:
        server: one without a worker, or the job that serves as a pattern would be worked on.
        count: of pictures.
    """
    pattern = server.submit("pattern")["id"]
    files = FolderFiles(server.data_dir / "images")
    now = time.time()
    with closing(sqlite3.connect(server.data_dir / "darkroom.db", timeout=30)) as database:
        database.row_factory = sqlite3.Row
        job = dict(database.execute("SELECT * FROM jobs WHERE id = ?", [pattern]).fetchone())
        del job["sequence"]
        for index in range(count):
            made_at = now - (count - index) / PER_DAY * DAY_S
            job_id = f"{index:024x}"
            request = job["request"].replace('"pattern"', f'"picture {index}"')
            done = {"status": "succeeded", "step": 2, "steps": 2, "attempts": 1}
            times = {"created_at": made_at, "started_at": made_at, "finished_at": made_at + 1}
            _insert(database, "jobs", {**job, **done, **times, "id": job_id, "request": request})
            data = _picture(index)
            # Not `write`, which makes sure of each file with the disk: these may be lost.
            path = files._path(f"{job_id}-0")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            _insert(database, "images", {**_row(data), "job_id": job_id, "created_at": made_at})
        database.execute("DELETE FROM events WHERE job_id = ?", [pattern])
        database.execute("DELETE FROM jobs WHERE id = ?", [pattern])
        database.commit()


def _insert(database: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    if table == "images":
        row = {**row, "id": f"{row['job_id']}-0"}
    names = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))


def _row(data: bytes) -> dict[str, object]:
    return {
        "index": 0,
        "seed": 7,
        "width": SIDE,
        "height": SIDE,
        "content_type": "image/png",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _picture(index: int) -> bytes:
    """A soft gradient of a colour of its own."""
    hue = np.array([(index * 53) % 200, (index * 97) % 200, (index * 151) % 200])
    ramp = np.linspace(0, 55, SIDE)[:, None, None]
    pixels = np.broadcast_to(hue + ramp, (SIDE, SIDE, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
