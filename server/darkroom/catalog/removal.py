"""Deleting models and what goes with them from the data folder, and from nowhere else.

A file is first renamed, so that it is gone at once and as a whole, and then deleted: what dies in
between leaves a hidden file, which `sweep` deletes.
"""

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from darkroom.catalog import sidecars
from darkroom.catalog.downloads import ENDINGS
from darkroom.errors import DarkroomError, message

DELETED = ".deleted-"
KINDS = ("models", "loras", "embeddings", "upscalers", "vae")  # folders in the data folder


class NotOursError(DarkroomError):
    """A file is not in the data folder, or cannot be deleted there. The message says why."""


def put_away(path: Path, folder: Path) -> list[Path]:
    """Rename a file or folder, and what is kept beside it, so that no catalog lists it.

    Args:
        path: of it, below `folder`. Of a link the link is meant.
        folder: of its kind, in the data folder.

    Returns:
        What to `destroy`.

    Raises:
        NotOursError: it is elsewhere, or may not be deleted. Nothing has changed.
    """
    is_below = path.is_relative_to(folder)
    if not is_below or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise NotOursError(
            message(
                "delete_elsewhere",
                "it is in a folder of another program, in which this server deletes nothing; "
                "delete it there",
            )
        )
    mark = f"{DELETED}{secrets.token_hex(4)}-"
    beside = _beside(path)
    try:
        away = [path.rename(path.with_name(mark + path.name))]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotOursError(
                message("delete_forbidden", "the server may not change its folder on the disk")
            ) from None
        raise
    for each in beside:
        with suppress(OSError):
            away.append(each.rename(each.with_name(mark + each.name)))
    return away


def _beside(path: Path) -> list[Path]:
    """What is kept beside a file, unless another file of its name shares it."""
    if path.is_dir():
        return []
    others = (path.with_name(path.stem + ending) for ending in ENDINGS)
    if any(other != path and other.exists() for other in others):
        return []
    beside = (path.with_name(path.stem + ending) for ending in sidecars.ALL)
    return [each for each in beside if os.path.lexists(each)]


def destroy(paths: list[Path]) -> None:
    """Delete what was put away. What cannot be deleted now is at the next start."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep(data_dir: Path) -> None:
    """Delete what was put away by a process that died."""
    for kind in KINDS:
        for folder, folders, files in os.walk(data_dir / kind):
            destroy([Path(folder, name) for name in (*folders, *files) if name.startswith(DELETED)])
