"""Generation settings in pictures' files: written into ours, and read from any PNG.

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
from darkroom.catalog.hashes import AUTO_V2
from darkroom.errors import DarkroomError
from darkroom.requests import MAX_PROMPT_CHARS, Img2Img, Inpaint, Lora, ResolvedRequest, Upscale

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
SETTING = re.compile(r'([\w][\w \-/]{0,99}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
FIRST = re.compile(r"Steps:\s*\d")  # how the line of settings begins
OPENING = re.compile(r":\s*([\[{])")  # of a value that is JSON without quotes around it
MAX_BROKEN = 16  # such values that are not JSON: each is read to its end to find out
TEMPLATE = re.compile(r"((?:Negative )?Template):\s*(.*)")  # behind the settings
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
MIN_SETTINGS = 3  # in the last line; with fewer it belongs to the prompt
UNNAMEABLE = re.compile(r"[:<>]")  # in a LoRA's tag
DECODER = json.JSONDecoder()


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
    native.pop("explain", None)  # it changes no picture
    native |= {"task": request.task.value, "index": index}
    return {
        "parameters": parameters(request, index),
        "darkroom": json.dumps(native, ensure_ascii=False, sort_keys=True),
    }


def parameters(request: ResolvedRequest, index: int) -> str:
    """The prompt and settings in the format of AUTOMATIC1111's web UI (its `infotext`)."""
    if isinstance(request, Upscale):
        name = quoted(request.upscaler)
        return f"Postprocess upscale by: {request.scale:g}, Postprocess upscaler: {name}"
    settings: dict[str, object] = {"Steps": request.num_inference_steps}
    if request.scheduler != schedulers.NATIVE:
        entry, spacing = schedulers.find(request.scheduler)
        settings["Sampler"] = entry.title
        if spacing is not None:
            uniform = spacing == "sgm_uniform"
            settings["Schedule type"] = "SGM Uniform" if uniform else spacing.title()
        elif entry.automatic is not None:  # which a line without a schedule would mean
            settings["Schedule type"] = "Uniform"
    settings |= {
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed_of(index),
        "Size": f"{request.width}x{request.height}",
        **({"Model hash": request.model_hash[:AUTO_V2]} if request.model_hash else {}),
        "Model": request.model,
    }
    if isinstance(request, Img2Img | Inpaint):
        settings["Denoising strength"] = f"{request.strength:g}"
    if request.clip_skip:
        settings["Clip skip"] = request.clip_skip + 1  # A1111 counts the last layer as 1
    if isinstance(request, Inpaint) and request.mask_blur:
        settings["Mask blur"] = request.mask_blur
    if request.lora_hashes:
        settings["Lora hashes"] = request.lora_hashes
    line = ", ".join(f"{key}: {quoted(str(value))}" for key, value in settings.items())
    negative = f"Negative prompt: {request.negative_prompt}\n" if request.negative_prompt else ""
    return f"{request.prompt}{_tags(request.loras)}\n{negative}{line}"


def _tags(loras: Sequence[Lora]) -> str:
    """The tags by which A1111's prompts name LoRAs."""
    return "".join(
        f" <lora:{lora.name}:{_scales(lora)}>" for lora in loras if not UNNAMEABLE.search(lora.name)
    )


def _scales(lora: Lora) -> str:
    """The scale in a tag, behind that of the text encoders where it is another."""
    text = "" if lora.scale_of_text == lora.scale else f"{lora.scale_of_text:.10g}:"
    return f"{text}{lora.scale:.10g}"


def quoted(value: str) -> str:
    """A value as it stands in a line of settings."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value


def parse_parameters(text: str) -> dict[str, str]:
    """The prompts and settings in a text like `parameters`, by A1111's names for them.

    A size becomes two settings, `Size-1` and `Size-2`, as in A1111's `modules/infotext_utils.py`.
    What extensions write behind the settings is left out, but for the templates of prompts.
    """
    text = text[:MAX_INFOTEXT_CHARS].replace("\r\n", "\n").strip()
    if not text:
        return {}
    lines, settings, rest = _split(text.split("\n"))
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
    return found | _templates(rest)


def _split(lines: list[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """The lines before the settings, the settings, and the lines behind them.

    The settings begin in the last line that begins with steps, else they are the last line. They go
    on in the next line after a comma at the end of one.
    """
    starts = [index for index, line in enumerate(lines) if FIRST.match(line)]
    for start in [*reversed(starts), len(lines) - 1]:
        end = start + 1
        while end < len(lines) and lines[end - 1].rstrip().endswith(","):
            end += 1
        settings = _settings(" ".join(lines[start:end]))
        if len(settings) >= MIN_SETTINGS:
            return lines[:start], settings, lines[end:]
    return lines, [], []


def _settings(line: str) -> list[tuple[str, str]]:
    """Names and values of a line; a value in brackets ends where its JSON does."""
    found: list[tuple[str, str]] = []
    position, broken = 0, 0
    while (match := SETTING.search(line, position)) is not None:
        name, value = match.groups()
        position = max(match.end(), position + 1)
        opening = OPENING.match(line, match.end(1))
        if opening is not None and broken < MAX_BROKEN:
            try:
                _, end = DECODER.raw_decode(line, opening.start(1))
            except (ValueError, RecursionError):
                broken += 1
            else:
                value, position = line[opening.start(1) : end], end
        found.append((name, value))
    return found


def _templates(lines: Sequence[str]) -> dict[str, str]:
    """The templates of prompts, which may have several lines each, by their names."""
    found: dict[str, str] = {}
    name = None
    for line in lines:
        start = TEMPLATE.match(line)
        if start is not None:
            name = start[1]
            found[name] = start[2]
        elif name is not None:
            found[name] += f"\n{line}"
    return {name: text.strip() for name, text in found.items()}


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
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        if len(parts) < 3:
            return None
        rest = parts[2]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, most + 1)
        except zlib.error:
            return None
    if len(rest) > most:
        return None
    if kind == b"iTXt":
        return key.decode("latin-1"), rest.decode("utf-8", "replace")
    try:  # many programs write UTF-8 where Latin-1 belongs, some of them with its mark
        return key.decode("latin-1"), rest.decode("utf-8-sig")
    except UnicodeDecodeError:
        return key.decode("latin-1"), rest.decode("latin-1")
