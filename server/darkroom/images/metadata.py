"""Generation settings in PNG text chunks: written into our pictures, read from any.

The chunk `parameters` is the text that other tools read; `darkroom` is the exact request. Neither
contains an id or a time, so that the same request and seed give the same file.

Reading decodes no pixel (PNG specification, third edition, 11.3.3). The files may be hostile: each
length is checked against what is there, and compressed text is unpacked up to a limit.
"""

import json
import re
import struct
import zlib
from collections.abc import Sequence

from darkroom.catalog import schedulers
from darkroom.errors import DarkroomError
from darkroom.requests import MAX_PROMPT_CHARS, Img2Img, Inpaint, ResolvedRequest, Upscale

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = struct.Struct(">I4s")
CHECK_BYTES = 4  # the chunk's CRC; a wrong one does no harm to text
MAX_CHUNKS = 10_000
MAX_TEXTS = 64
MAX_TEXT_BYTES = 2**20  # of one text, unpacked, and of all of them together
MAX_KEY_BYTES = 79

NEGATIVE = "Negative prompt:"
MAX_INFOTEXT_CHARS = 4 * MAX_PROMPT_CHARS
# A name, and a value that is either a JSON string or free of commas.
SETTING = re.compile(r'\s*([\w][\w \-/]{0,99}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
MIN_SETTINGS = 3  # in the last line; with fewer it belongs to the prompt


def text_chunks(
    request: ResolvedRequest,
    index: int,
    source_sha256: str | None,
    mask_sha256: str | None,
    references_sha256: Sequence[str] = (),
) -> dict[str, str]:
    """The PNG text chunks of a job's image of this index.

    The digests are those of the PNG of the source picture, the mask and the references; they
    replace their ids.
    """
    native = request.model_dump(mode="json", exclude_none=True)
    for name, digest in (("image", source_sha256), ("mask_image", mask_sha256)):
        if native.pop(name, None) is not None:
            native[f"{name}_sha256"] = digest
    if native.pop("references", None) is not None:
        native["references_sha256"] = list(references_sha256)
    native |= {"task": request.task.value, "index": index}
    return {
        "parameters": parameters(request, index),
        "darkroom": json.dumps(native, ensure_ascii=False, sort_keys=True),
    }


def parameters(request: ResolvedRequest, index: int) -> str:
    """The prompt and settings in the format of AUTOMATIC1111's web UI (its `infotext`)."""
    if isinstance(request, Upscale):
        name = _quoted(request.upscaler)
        return f"Postprocess upscale by: {request.scale:g}, Postprocess upscaler: {name}"
    settings: dict[str, object] = {"Steps": request.num_inference_steps}
    if request.scheduler != schedulers.NATIVE:
        entry, spacing = schedulers.find(request.scheduler)
        settings["Sampler"] = entry.title
        if spacing is not None:
            uniform = spacing == "sgm_uniform"
            settings["Schedule type"] = "SGM Uniform" if uniform else spacing.title()
    settings |= {
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed_of(index),
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
    }
    if isinstance(request, Img2Img | Inpaint):
        settings["Denoising strength"] = f"{request.strength:g}"
    if request.clip_skip:
        settings["Clip skip"] = request.clip_skip + 1  # A1111 counts the last layer as 1
    if isinstance(request, Inpaint) and request.mask_blur:
        settings["Mask blur"] = request.mask_blur
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items())
    negative = f"Negative prompt: {request.negative_prompt}\n" if request.negative_prompt else ""
    return f"{request.prompt}\n{negative}{line}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value


def parse_parameters(text: str) -> dict[str, str]:
    """The prompts and settings in a text like `parameters`, by A1111's names for them.

    A size becomes two settings, `Size-1` and `Size-2`, as in A1111's `modules/infotext_utils.py`.
    """
    text = text[:MAX_INFOTEXT_CHARS].strip()
    if not text:
        return {}
    *lines, last = text.split("\n")
    settings = SETTING.findall(last)
    if len(settings) < MIN_SETTINGS:
        lines, settings = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in lines:
        if line.startswith(NEGATIVE):
            current, line = negative, line.removeprefix(NEGATIVE).lstrip()
        current.append(line)
    found = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    for name, value in settings:
        plain = _unquote(value.strip())
        size = SIZE.fullmatch(plain)
        if size:
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            found[name] = plain
    return found


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        text = json.loads(value)
    except ValueError:
        return value
    return text if isinstance(text, str) else value


class NotPngError(DarkroomError, ValueError):
    """The bytes are not a PNG file."""


def read_texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG file by keyword; the first of each. Broken and too long ones are skipped.

    Raises:
        NotPngError: it is not a PNG file.
    """
    if not data.startswith(SIGNATURE):
        raise NotPngError("it is no PNG file")
    found: dict[str, str] = {}
    left, tried, position = MAX_TEXT_BYTES, 0, len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + HEAD.size > len(data) or tried >= MAX_TEXTS or left <= 0:
            break
        length, kind = HEAD.unpack_from(data, position)
        start = position + HEAD.size
        position = start + length + CHECK_BYTES
        if kind == b"IEND" or position > len(data):
            break
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            tried += 1  # the broken ones too: unpacking takes time before it fails
            text = _text(kind, data[start : start + length], left)
            if text and text[0] not in found:
                found[text[0]] = text[1]
                left -= len(text[1])
    return found


def _text(kind: bytes, body: bytes, most: int) -> tuple[str, str] | None:
    """Keyword and text of a chunk; None if it is broken or has more than `most` bytes."""
    key, separator, rest = body.partition(b"\0")
    if not separator or not 1 <= len(key) <= MAX_KEY_BYTES:
        return None
    encoding = "latin-1"
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        encoding, packed = "utf-8", rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        if len(parts) < 3:
            return None
        rest = parts[2]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, most + 1)
        except zlib.error:
            return None
    return (key.decode("latin-1"), rest.decode(encoding, "replace")) if len(rest) <= most else None
