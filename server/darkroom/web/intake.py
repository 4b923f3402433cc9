"""From an HTTP body to a request with nothing left open, or to a problem that names each field."""

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flask import request
from PIL import Image
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage

from darkroom import pictures
from darkroom.catalog import schedulers
from darkroom.catalog.models import UnknownModelError
from darkroom.jobs.records import NewUpload
from darkroom.schemas import (
    MAX_SEED,
    REQUEST_TYPES,
    FieldError,
    Img2ImgRequest,
    InpaintRequest,
    ModelInfo,
    OutputFormat,
    ResolvedRequest,
    Task,
    Txt2ImgRequest,
)
from darkroom.web import auth, sizes
from darkroom.web.context import context
from darkroom.web.errors import ProblemError, field_errors, invalid, pointer

FILE_FIELDS = ("image", "mask_image")
REFERENCE = "image:"
FORM = "multipart/form-data"
IMAGE_TYPES = tuple(output_format.content_type for output_format in OutputFormat)


@dataclass(frozen=True)
class Source:
    """A picture of the request.

    Attributes:
        picture: decoded, when it came along; None when it is one we have.
        reference: `image:<id>`, of the stored picture or of the one to be stored.
        size: width and height in pixels.
    """

    picture: Image.Image | None
    reference: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Intake:
    """A request ready for the queue.

    Attributes:
        request: resolved.
        sources: pictures, of which those with pixels are still to be stored.
        fingerprint: SHA-256 of what was sent.
    """

    request: ResolvedRequest
    sources: tuple[Source, ...]
    fingerprint: str

    def store(self) -> tuple[NewUpload, ...]:
        """Write the pictures that came along to disk."""
        uploads = []
        for source in self.sources:
            if source.picture is not None:
                data = pictures.encode_quickly(source.picture)
                upload_id = source.reference.removeprefix(REFERENCE)
                context().files.write(upload_id, data)
                uploads.append(
                    NewUpload(upload_id, sha256(data).hexdigest(), *source.size, len(data))
                )
        return tuple(uploads)


def read(task: Task) -> Intake:
    """Read the current request.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    fields, files, asked = _parse(task)
    model = _find_model(asked)
    sources: dict[str, Source] = {}
    errors: list[FieldError] = []
    for name in FILE_FIELDS:
        value = files.get(name, getattr(asked, name, None))
        if value is not None:
            try:
                sources[name] = _source(name, value)
            except pictures.PictureError as error:
                errors.append(FieldError(pointer=pointer(name), detail=str(error)))
    errors += _check(asked, model, sources)
    if errors:
        raise invalid(errors)
    width, height = sizes.choose(asked, model, sources.get("image"))
    errors = sizes.check(width, height, model)
    if errors:
        raise invalid(errors)
    return Intake(
        request=_resolve(task, asked, model, sources, width, height),
        sources=tuple(sources.values()),
        fingerprint=_fingerprint(task, fields, files),
    )


# --- parsing -------------------------------------------------------------------------------


def _parse(task: Task) -> tuple[dict[str, Any], dict[str, bytes], Txt2ImgRequest]:
    """The fields as sent, the file parts, and the validated request."""
    cls = REQUEST_TYPES[task]
    if request.mimetype == FORM:
        fields, files = _parse_form()
        placeholders = dict.fromkeys(files, "file part")
        try:
            return fields, files, cls.model_validate({**fields, **placeholders})
        except ValidationError as error:
            raise invalid(field_errors(error, cls.model_fields)) from None
    body = request.get_data()
    if body and not request.is_json:
        hint = (
            "; with curl, add -H 'content-type: application/json'"
            if request.mimetype == "application/x-www-form-urlencoded"
            else ""
        )
        raise ProblemError(
            415,
            "content-type",
            "Unsupported content type",
            f"send application/json or {FORM}, not {request.mimetype or 'nothing'}{hint}",
        )
    body = body or b"{}"
    try:
        asked = cls.model_validate_json(body, strict=True)
    except ValidationError as error:
        malformed = any(item["type"] == "json_invalid" for item in error.errors())
        raise invalid(field_errors(error, cls.model_fields), 400 if malformed else 422) from None
    return json.loads(body), {}, asked


def _parse_form() -> tuple[dict[str, Any], dict[str, bytes]]:
    fields: dict[str, Any] = {}
    errors = []
    for name, values in request.form.lists():
        if len(values) > 1:
            errors.append(FieldError(pointer=pointer(name), detail="is given more than once"))
        fields[name] = values[0]
    if "loras" in fields:
        try:
            fields["loras"] = json.loads(fields["loras"])
        except ValueError:
            errors.append(FieldError(pointer="#/loras", detail="is not JSON"))
    files: dict[str, bytes] = {}
    for name, part in request.files.items(multi=True):
        if name not in FILE_FIELDS:
            errors.append(FieldError(pointer=pointer(name), detail="takes no file"))
        elif name in files or name in fields:
            errors.append(FieldError(pointer=pointer(name), detail="is given more than once"))
        else:
            files[name] = _read_part(name, part)
    if errors:
        raise invalid(errors)
    return fields, files


def _read_part(name: str, part: FileStorage) -> bytes:
    limit = context().settings.web.max_upload_bytes
    data = part.stream.read(limit + 1)
    _check_bytes(name, len(data), limit)
    return data


def _check_bytes(name: str, size: int, limit: int) -> None:
    if size == 0:
        raise invalid([FieldError(pointer=pointer(name), detail="is empty")])
    if size > limit:
        detail = f"is larger than {limit} bytes"
        raise invalid([FieldError(pointer=pointer(name), detail=detail)], 413)


# --- pictures ------------------------------------------------------------------------------


def _source(name: str, value: str | bytes) -> Source:
    """Find or decode one picture.

    Raises:
        PictureError: says what is wrong with it.
    """
    if isinstance(value, str) and value.startswith(REFERENCE):
        stored = context().store.picture(value.removeprefix(REFERENCE), auth.client())
        if stored is None:
            raise pictures.PictureError(f"there is no picture {value.removeprefix(REFERENCE)!r}")
        return Source(None, value, (stored.width, stored.height))
    settings = context().settings.web
    if isinstance(value, str):
        value = _from_base64(value)
        _check_bytes(name, len(value), settings.max_upload_bytes)
    picture = pictures.decode(value, settings.max_upload_pixels)
    picture = pictures.opaque(picture) if name == "image" else pictures.as_mask(picture)
    return Source(picture, f"{REFERENCE}up{secrets.token_hex(12)}", picture.size)


def _from_base64(value: str) -> bytes:
    if value.startswith(("http://", "https://")):
        raise pictures.PictureError("is an address; nothing is ever fetched, send the bytes")
    if value.startswith("data:"):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            raise pictures.PictureError("is a data URI without base64")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise pictures.PictureError("is neither base64 nor an image:<id> reference") from None


# --- checking and resolving ----------------------------------------------------------------


def _find_model(asked: Txt2ImgRequest) -> ModelInfo:
    try:
        return context().catalog.find(asked.model).info
    except UnknownModelError as error:
        raise invalid([FieldError(pointer="#/model", detail=str(error))]) from None


def _check(asked: Txt2ImgRequest, model: ModelInfo, sources: dict[str, Source]) -> list[FieldError]:
    """What can be wrong beyond a field by itself."""
    errors = []
    if "\x00" in asked.prompt + asked.negative_prompt:
        name = "prompt" if "\x00" in asked.prompt else "negative_prompt"
        errors.append(FieldError(pointer=pointer(name), detail="holds a NUL character"))
    if asked.scheduler is not None:
        try:
            schedulers.find(asked.scheduler)
        except schedulers.UnknownSchedulerError as error:
            errors.append(FieldError(pointer="#/scheduler", detail=str(error)))
    if asked.clip_skip > model.limits.max_clip_skip:
        detail = f"{model.name} has layers to leave out up to {model.limits.max_clip_skip}"
        errors.append(FieldError(pointer="#/clip_skip", detail=detail))
    for index, lora in enumerate(asked.loras):
        detail = f"there is no LoRA {lora.name!r} on this box"
        errors.append(FieldError(pointer=pointer("loras", index, "name"), detail=detail))
    if isinstance(asked, Img2ImgRequest | InpaintRequest):
        steps = asked.num_inference_steps or model.defaults.num_inference_steps
        if int(steps * asked.strength) < 1:
            detail = f"leaves no step of {steps} to do; it must be at least {1 / steps:.3g}"
            errors.append(FieldError(pointer="#/strength", detail=detail))
    if isinstance(asked, InpaintRequest) and len(sources) == 2:
        image, mask = sources["image"], sources["mask_image"]
        if image.size != mask.size:
            have, want = ("{}×{}".format(*s.size) for s in (mask, image))
            detail = f"is {have}, but the image is {want}"
            errors.append(FieldError(pointer="#/mask_image", detail=detail))
        elif mask.picture is not None and _covers_nothing(mask.picture, asked.invert_mask):
            detail = "marks nothing to repaint"
            errors.append(FieldError(pointer="#/mask_image", detail=detail))
    return errors


def _covers_nothing(mask: Image.Image, inverted: bool) -> bool:
    darkest, lightest = mask.getextrema()
    return bool(darkest == 255) if inverted else bool(lightest == 0)


def _resolve(
    task: Task,
    asked: Txt2ImgRequest,
    model: ModelInfo,
    sources: dict[str, Source],
    width: int,
    height: int,
) -> ResolvedRequest:
    """Fill in what the caller left out."""
    defaults = model.defaults
    chosen: dict[str, Any] = {
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "scheduler": defaults.scheduler,
        "seed": secrets.randbelow(MAX_SEED + 1 - asked.num_images),
    }
    chosen |= asked.model_dump(exclude_none=True, exclude={"loras"})
    chosen |= {name: source.reference for name, source in sources.items()}
    chosen |= {"task": task, "model": model.name, "width": width, "height": height}
    if "output_format" not in asked.model_fields_set:
        chosen["output_format"] = _accepted_format() or OutputFormat.PNG
    return ResolvedRequest(**chosen)


def wants_image() -> bool:
    """Whether the caller prefers a picture over JSON."""
    accept = request.accept_mimetypes
    return max(accept.quality(kind) for kind in IMAGE_TYPES) > accept.quality("application/json")


def _accepted_format() -> OutputFormat | None:
    """The picture format that an `Accept` header asks for by name or wildcard."""
    if not wants_image():
        return None
    best = request.accept_mimetypes.best_match(IMAGE_TYPES, default=IMAGE_TYPES[0])
    return OutputFormat(best.removeprefix("image/"))


def _fingerprint(task: Task, fields: dict[str, Any], files: dict[str, bytes]) -> str:
    digest = sha256(json.dumps([task, fields], sort_keys=True).encode())
    for name in sorted(files):
        digest.update(name.encode() + sha256(files[name]).digest())
    return digest.hexdigest()
