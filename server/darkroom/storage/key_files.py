"""Files with keys in them."""

import os
import tempfile
from pathlib import Path


def write(path: Path, key: bytes) -> None:
    """Write a key: whole on disk or not at all, and never readable by others in between.

    Raises:
        OSError: there is no space for it, for one.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
