"""Every exception of the server has one base, so that callers can catch them all."""

import importlib
import inspect
import pkgutil

import pytest

import darkroom
from darkroom.errors import DarkroomError, Message, message, without_paths


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
    ("text", "shown"),
    [
        ("[Errno 2] No such file: '/srv/my pictures/58/up1'", "[Errno 2] No such file: up1"),
        ("/data/models/x/unet/a.safetensors: cut short", "a.safetensors: cut short"),
        ("nothing in /data/models/x.", "nothing in x."),
        ("see https://example.org/a/b; 1/2 of 24/7", "see https://example.org/a/b; 1/2 of 24/7"),
        ("upscalers/tiny and owner/name", "upscalers/tiny and owner/name"),
    ],
)
def test_a_message_tells_no_folders(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_nor_do_the_values_in_it() -> None:
    said = message("model_load", "model {name!r}: {reason}", name="x", reason="no /srv/x/a.json")

    shown = without_paths(said)

    assert isinstance(shown, Message)
    assert (shown, shown.code) == ("model 'x': no a.json", "model_load")
    assert shown.values == {"name": "x", "reason": "no a.json"}


def test_a_sentence_around_a_reason_has_the_reasons_code() -> None:
    reason = message("part_gone", "its part {part} is gone", part="unet")

    said = message("model_load", "model x: {reason}", reason=reason).told_by(reason)

    assert said == "model x: its part unet is gone"
    assert (said.code, said.values) == ("part_gone", {"part": "unet"})
    assert message("model_load", "model x: torn").told_by("torn").code == "model_load"
