"""What earlier processes left lying about, and what is no longer to be kept, on a real server."""

from pathlib import Path

import pytest

from darkroom.storage.files import FolderFiles
from tests.serving import running
from tests.waiting import eventually

pytestmark = pytest.mark.slow

KEEP_ONE = {"DARKROOM_RETENTION__MAX_PICTURES": "1", "DARKROOM_RETENTION__EVERY_S": "0.2"}


def test_leftovers_are_put_aside_and_the_oldest_jobs_deleted(tmp_path: Path) -> None:
    images, orphans = FolderFiles(tmp_path / "images"), FolderFiles(tmp_path / "orphans")
    left = {"0123456789abcdef01234567-0", "up0123456789abcdef01234567"}
    for name in left:
        images.write(name, b"left by a process that died")

    with running(tmp_path, **KEEP_ONE) as server:
        assert set(orphans.names()) == left
        first = server.txt2img().json()
        second = server.txt2img(seed=8).json()

        eventually(lambda: server.http.get(first["url"]).status_code == 404)

        assert server.http.get(first["images"][0]["url"]).status_code == 404
        assert server.http.get(f"{first['url']}/events").status_code == 404
        assert server.http.get(second["images"][0]["url"]).status_code == 200
        eventually(lambda: set(images.names()) == {second["images"][0]["id"]})
