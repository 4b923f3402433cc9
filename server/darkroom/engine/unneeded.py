"""Imports that diffusers and transformers make and the engine does not need.

They take a fifth of what a worker's imports take. Call `leave_out` before anything else of the
engine is imported.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

LORA_LIBRARY = "peft"  # the engine has LoRA layers of its own
# Of the schedulers, only the `beta` spacing and LMS call them.
ON_DEMAND = ("scipy.stats", "scipy.integrate")


def leave_out() -> None:
    """Keep this process from importing what the engine does not need.

    diffusers does not find peft, as where the server alone is installed. transformers does not find
    scipy, which only its losses for training use. diffusers' schedulers get modules of scipy that
    are imported when something is first read from them. A second call does nothing.
    """
    if LORA_LIBRARY in sys.modules:
        return
    _hide(LORA_LIBRARY)
    _hide("scipy")
    from transformers.utils import import_utils

    import_utils.is_scipy_available()  # transformers remembers the answer
    del sys.modules["scipy"]
    sys.modules.update([(name, _OnDemand(name)) for name in ON_DEMAND])


def _hide(package: str) -> None:
    """Make a package seem not installed (https://docs.python.org/3/reference/import.html)."""
    sys.modules[package] = None  # type: ignore[assignment]


class _OnDemand(ModuleType):
    """Stands in for a package until something is read from it.

    `importlib.util.LazyLoader` is no help: a second import of the package, which reads its
    `__spec__`, has it loaded.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.util.find_spec(name)
        assert self.__spec__ is not None
        self.__path__ = self.__spec__.submodule_search_locations or []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks through all modules reads these
            raise AttributeError(name)
        for package in ON_DEMAND:  # they import each other
            if isinstance(sys.modules.get(package), _OnDemand):
                del sys.modules[package]
        return getattr(importlib.import_module(self.__name__), name)
