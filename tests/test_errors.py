"""Every exception of the server has one base, so that callers can catch them all."""

import importlib
import inspect
import pkgutil

import pytest

import darkroom
from darkroom.errors import DarkroomError, without_paths


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


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("[Errno 2] No such file: '/srv/my pictures/58/up1'", "[Errno 2] No such file: up1"),
        ("/data/models/x/unet/a.safetensors: cut short", "a.safetensors: cut short"),
        ("nothing in /data/models/x.", "nothing in x."),
        ("see https://example.org/a/b; 1/2 of 24/7", "see https://example.org/a/b; 1/2 of 24/7"),
        ("upscalers/tiny and owner/name", "upscalers/tiny and owner/name"),
    ],
)
def test_a_message_tells_no_folders(message: str, shown: str) -> None:
    assert without_paths(message) == shown
