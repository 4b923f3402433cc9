"""How much the tests of this folder do: little in `make test`, all of it in `make soak`."""

import os

SOAK = os.environ.get("DARKROOM_SOAK") == "1"


def count(usual: int, soak: int) -> int:
    return soak if SOAK else usual
