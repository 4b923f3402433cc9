"""Every exception of the server has one base, so that callers can catch them all."""

import importlib
import inspect
import pkgutil

import darkroom
from darkroom.errors import DarkroomError


def test_every_exception_derives_from_the_one_base() -> None:
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(darkroom.__path__, "darkroom."):
        if module.name.endswith("__main__") or ".migrations" in module.name:
            continue
        loaded = importlib.import_module(module.name)
        found |= {
            kind
            for _, kind in inspect.getmembers(loaded, inspect.isclass)
            if issubclass(kind, BaseException) and kind.__module__.startswith("darkroom.")
        }

    assert len(found) > 20
    assert [kind for kind in found if not issubclass(kind, DarkroomError)] == []
