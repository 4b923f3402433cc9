"""GGUF files: what their headers say, and headers that are made to harm whoever reads them."""

import struct
from pathlib import Path

import pytest

from darkroom.catalog import gguf_files
from darkroom.catalog.model_entry import NumberBytes
from darkroom.catalog.models import ModelCatalog
from tests.catalog.test_broken import reason
from tests.catalog.test_single_files import Z_IMAGE, Z_PARTS, furnish, parts

Q8_0, F32, TEXT, LIST, U32 = 8, 0, 8, 9, 4


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = F32, offset: int = 0) -> bytes:
    """A tensor's line; the shape is as in PyTorch."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def gguf(
    tensors: list[bytes],
    entries: list[bytes] = [],  # noqa: B006
    data: int = 0,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    head = struct.pack("<QQ", *(counts or (len(tensors), len(entries))))
    whole = b"GGUF" + struct.pack("<I", version) + head + b"".join([*entries, *tensors])
    return whole + b"\0" * (-len(whole) % 32 + data)


def test_shapes_and_types_are_read_as_pytorch_has_them(box: Path) -> None:
    path = box / "x.gguf"
    architecture = entry(b"general.architecture", TEXT, text(b"flux"))
    numbers = entry(b"x", LIST, struct.pack("<IQ", U32, 3) + b"\0" * 12)
    words = entry(b"y", LIST, struct.pack("<IQ", TEXT, 2) + text(b"a") + text(b"b"))
    lines = [tensor(b"a", (4, 64), Q8_0), tensor(b"b", (3,), offset=4 * 68)]
    path.write_bytes(gguf(lines, [architecture, numbers, words], data=4 * 68 + 12))

    header = gguf_files.read_header(path)

    assert header.shapes == {"a": (4, 64), "b": (3,)}
    assert header.dtypes == {"a": "Q8_0", "b": "F32"}
    assert header.metadata["general.architecture"] == "flux"


def test_a_network_in_gguf_is_completed_as_others_and_counted_as_it_is(
    box: Path, catalog: ModelCatalog
) -> None:
    furnish(box)
    lines = [tensor(name.encode(), shape) for name, shape in Z_IMAGE.items()]
    path = box / "models" / "z_image_turbo-Q8_0.gguf"
    path.write_bytes(gguf(lines, data=64))

    found = catalog.find("z_image_turbo-Q8_0")

    assert found.config.name == "z-image-turbo"
    assert parts(catalog, found.info.name).items() > Z_PARTS.items()
    sizes = found.expected_parts(NumberBytes(2, 2, 1))
    assert sizes["transformer"] == path.stat().st_size


def test_another_network_in_gguf_is_named(box: Path, catalog: ModelCatalog) -> None:
    (box / "models" / "model.gguf").write_bytes(gguf([tensor(b"token_embd.weight", (1,))], data=4))

    assert "holds no diffusion transformer" in reason(catalog)


MANY_TEXTS = entry(b"x", LIST, struct.pack("<IQ", TEXT, 2**40))
HOSTILE = {
    "empty": (b"", "ends too early"),
    "a pickle": (b"PK\x03\x04" + b"\0" * 100, "does not begin as"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + b"\0" * 16, "its version is 50331648"),
    "counts": (gguf([], counts=(2**63, 0)), "lists 9223372036854775808 tensors"),
    "100,000 tensors": (gguf([], counts=(100_000, 0)), "lists 100000 tensors"),
    "entries": (gguf([], counts=(1, 2**40)), "1099511627776 entries"),
    "no tensors": (gguf([]), "holds no tensors"),
    "a long name": (gguf([struct.pack("<Q", 2**60)]), "has 1152921504606846976 bytes"),
    "a long text": (gguf([], [entry(b"x", TEXT, struct.pack("<Q", 2**50))]), "bytes"),
    "a long list": (
        gguf([], [entry(b"x", LIST, struct.pack("<IQ", U32, 2**61))]),
        "more than 33554432 bytes",
    ),
    "a list of texts": (gguf([], [MANY_TEXTS]), "lists of 1099511627776 texts"),
    "lists in lists": (
        gguf([], [entry(b"x", LIST, struct.pack("<IQ", LIST, 1))]),
        "lists in lists",
    ),
    "an unknown value": (gguf([], [entry(b"x", 99, b"")]), "unknown type 99"),
    "dimensions": (gguf([text(b"a") + struct.pack("<I", 2**31)]), "2147483648 dimensions"),
    "a shape past the end": (gguf([tensor(b"a", (2**40, 2**40))]), "a goes beyond its end"),
    "an offset past the end": (gguf([tensor(b"a", (1,), offset=2**62)]), "a goes beyond its end"),
    "cut short": (gguf([tensor(b"a", (64,))], data=255), "a goes beyond its end"),
    "a type": (gguf([tensor(b"a", (1,), kind=39)]), "of the type 39, which is not read"),
    "rows": (gguf([tensor(b"a", (2, 33), kind=Q8_0)], data=999), "which is no multiple"),
    "alignment": (
        gguf([tensor(b"a", (1,))], [entry(b"general.alignment", U32, struct.pack("<I", 0))]),
        "alignment makes no sense",
    ),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_header_that_is_damaged_or_lies_is_refused(
    box: Path, catalog: ModelCatalog, content: bytes, words: str
) -> None:
    (box / "models" / "model.gguf").write_bytes(content)

    assert words in reason(catalog)
