"""How much a test does: little in `make test`, more in `make test-all`, most in `make soak`."""

import os

LEVEL = os.environ.get("DARKROOM_TESTS", "daily")  # daily, all or soak
SOAK = LEVEL == "soak"


def amount(daily: int, everything: int, soak: int) -> int:
    """The number for this run."""
    return {"daily": daily, "all": everything, "soak": soak}[LEVEL]
