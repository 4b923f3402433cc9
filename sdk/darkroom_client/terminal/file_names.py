"""Names of image files."""

import os
from dataclasses import dataclass
from pathlib import Path

from darkroom_client.blocking.job import Job
from darkroom_client.blocking.picture import FORMATS

STDOUT = "-"


@dataclass(frozen=True)
class FileNames:
    """Where pictures go.

    Attributes:
        output: a file, a folder, `-` for standard output, or None for this folder.
        jobs: how many there are in all.
    """

    output: str | None
    jobs: int

    def __post_init__(self) -> None:
        """Refuse before anything is made.

        Raises:
            ValueError: no picture can be written there.
        """
        if self.output == STDOUT:
            if self.jobs != 1:
                raise ValueError("standard output takes one picture; say a file or folder with -o")
            return
        if self.output is None or self._folder is not None:
            return
        file = Path(self.output)
        if file.suffix and file.suffix.lower() not in FORMATS:
            raise ValueError(f"cannot write {file.suffix}; there are {', '.join(FORMATS)}")
        if not file.parent.is_dir():
            raise ValueError(f"there is no folder {file.parent}")

    @property
    def _folder(self) -> Path | None:
        if self.output is None:
            return Path()
        folder = Path(self.output)
        if self.output.endswith(("/", os.sep)):
            folder.mkdir(parents=True, exist_ok=True)
        return folder if folder.is_dir() else None

    def file(self, job: Job, number: int, index: int) -> Path:
        """The file of a picture.

        Several jobs are numbered, and so are several pictures of one job: fox-2-1.png.

        Args:
            job: that made it.
            number: of the job among all, from 0.
            index: of the picture in the job, from 0.
        """
        numbers = [number + 1] * (self.jobs > 1) + [index + 1] * (len(job.images) > 1)
        suffix = "." + job.images[index].content_type.removeprefix("image/")
        if self._folder is not None:
            numbers = numbers[self.jobs > 1 :]  # the job's id distinguishes jobs
            base = self._folder / job.id
        else:
            base = Path(self.output or "")
            suffix = base.suffix or suffix
            base = base.with_suffix("")
        return base.with_name("-".join([base.name, *map(str, numbers)]) + suffix)
