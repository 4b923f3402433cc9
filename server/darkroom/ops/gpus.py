"""How many GPUs there are, and which of them one of several workers uses."""

import os
import subprocess
import sys
from collections.abc import Mapping

# In a process of its own: importing torch takes seconds, and counting must not open a GPU here.
_COUNT = "import torch; print(torch.accelerator.device_count())"
# Which GPUs a process sees: of CUDA and ROCm, and of Intel.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


class GpuCount:
    """Counts the GPUs that torch can use, in a process that this starts.

    Raises:
        OSError: the machine cannot start a process now.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COUNT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._found: int | None = None

    def read(self) -> int | None:
        """The number; 0 if they cannot be counted, None while it is not known."""
        if self._found is None and self._process.poll() is not None:
            output, _ = self._process.communicate()
            self._found = int(output) if output.strip().isdigit() else 0
        return self._found

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._found is None:
            self._process.kill()
            self._process.communicate()


def only(number: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables with which a process sees one GPU alone: number 0 or another of those seen here."""
    variables = {}
    for name in VISIBLE:
        seen = [part for part in environment.get(name, "").split(",") if part.strip()]
        variables[name] = seen[number % len(seen)] if seen else str(number)
    return variables
