"""From what was sent to a request with nothing left open, or to a problem that names each field."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from darkroom.api import checks, http
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import invalid, pointer
from darkroom.api.parse import digest
from darkroom.api.parsing import upscaling
from darkroom.api.sources import REFERENCE, Source
from darkroom.catalog.models import ModelEntry, UnknownModelError
from darkroom.destinations import Destination
from darkroom.images import codec
from darkroom.images.decoder import Decoded
from darkroom.requests import (
    MAX_SEED,
    RESOLVED,
    AnyRequest,
    OutputFormat,
    ResolvedRequest,
    Task,
    Txt2Img,
    Txt2ImgRequest,
    UpscaleRequest,
    Workload,
)
from darkroom.responses import FieldError, ModelInfo
from darkroom.storage.records import NewUpload

FILE_FIELDS = ("image", "mask_image")


@dataclass(frozen=True)
class PreparedRequest:
    """A request ready for the queue.

    Attributes:
        request: resolved.
        workload: its size.
        sources: pictures, of which those that came along are still to be stored.
        fingerprint: SHA-256 of what was asked for.
        webhook: who is told of the end, or None. No part of the request, which is shown, stands in
            pictures, and is sent again by others.
    """

    request: ResolvedRequest
    workload: Workload
    sources: tuple[Source, ...]
    fingerprint: str
    webhook: Destination | None = None

    def store(self) -> tuple[NewUpload, ...]:
        """Write the pictures that came along to disk."""
        uploads = []
        for source in self.sources:
            if source.upload is not None:
                data = source.upload.png
                upload_id = source.reference.removeprefix(REFERENCE)
                context().files.write(upload_id, data)
                uploads.append(
                    NewUpload(upload_id, sha256(data).hexdigest(), *source.size, len(data))
                )
        return tuple(uploads)


def fingerprint(task: Task, asked: AnyRequest, files: Mapping[str, bytes]) -> str:
    """SHA-256 of what is asked for, hexadecimal.

    Fields that have their default do not count, whether they were sent or not, so a field that is
    added later changes no fingerprint.

    Args:
        task: what is to be done.
        asked: of the task's own type; its fields of `files` hold no picture.
        files: pictures that came along, by field.
    """
    fields = asked.model_dump(mode="json", exclude=set(files), exclude_defaults=True)
    return digest(json.dumps([task, fields], sort_keys=True), files)


def resolve(
    task: Task, asked: AnyRequest, files: Mapping[str, bytes | Decoded], fingerprint: str
) -> PreparedRequest:
    """Fill in what is left open, and find or decode the pictures.

    Args:
        task: what is to be done.
        asked: of the task's own type.
        files: pictures that came along, decoded or not, by field; they stand before the fields
            of `asked`.
        fingerprint: of what was sent.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    if isinstance(asked, UpscaleRequest):
        return _resolve_upscaling(asked, files, fingerprint)
    entry = _find_model(asked, task)
    model = entry.info
    sources, errors = _find_sources(asked, files)
    webhook, unwanted = checks.find_webhook(asked.webhook, context().settings.webhooks.allow)
    errors += unwanted
    errors += checks.check_support(asked, entry)
    errors += checks.check_fields(asked, model, sources)
    errors += checks.check_loras(asked.loras, entry, context().adapters)
    if errors:
        raise invalid(errors)
    width, height = checks.choose_size(asked, model, sources.get("image"))
    errors = checks.check_size(width, height, model)
    if errors:
        raise invalid(errors)
    request = _resolve(asked, model, sources, width, height)
    return PreparedRequest(
        request=request,
        workload=request.workload,
        sources=tuple(sources.values()),
        fingerprint=fingerprint,
        webhook=webhook,
    )


def _resolve_upscaling(
    asked: UpscaleRequest, files: Mapping[str, bytes | Decoded], fingerprint: str
) -> PreparedRequest:
    chosen = upscaling.find(asked)  # an unknown one costs no decoding
    sources, errors = _find_sources(asked, files)
    webhook, unwanted = checks.find_webhook(asked.webhook, context().settings.webhooks.allow)
    errors += unwanted
    if errors:
        raise invalid(errors)
    source = sources["image"]
    request, workload = upscaling.resolve(asked, chosen, source, _output_format(asked))
    return PreparedRequest(request, workload, (source,), fingerprint, webhook)


def _find_sources(
    asked: AnyRequest, files: Mapping[str, bytes | Decoded]
) -> tuple[dict[str, Source], list[FieldError]]:
    """The pictures of a request by field, and what is wrong with the others."""
    sources: dict[str, Source] = {}
    errors: list[FieldError] = []
    for name in FILE_FIELDS:
        value = files.get(name, getattr(asked, name, None))
        if value is not None:
            try:
                sources[name] = context().sources.find(name, value, access.caller().sees)
            except codec.PictureError as error:
                errors.append(FieldError(pointer=pointer(name), detail=str(error)))
    return sources, errors


def _find_model(asked: Txt2ImgRequest, task: Task) -> ModelEntry:
    """The model asked for, or the default one, if it can do the task."""
    catalog = context().catalog
    try:
        entry = catalog.find(asked.model)
    except UnknownModelError as error:
        raise invalid([FieldError(pointer="#/model", detail=str(error))]) from None
    model = entry.info
    if task not in model.tasks:
        able = [info.name for info in catalog.infos() if task in info.tasks]
        hint = f"; {', '.join(able)} can" if able else ""
        detail = f"{model.name} does {', '.join(model.tasks)}, not {task}{hint}"
        raise invalid([FieldError(pointer="#/model", detail=detail)])
    return entry


def _resolve(
    asked: Txt2ImgRequest,
    model: ModelInfo,
    sources: dict[str, Source],
    width: int,
    height: int,
) -> Txt2Img:
    """Fill in what the caller left out."""
    defaults = model.defaults
    chosen: dict[str, Any] = {
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "scheduler": defaults.scheduler,
        "seed": secrets.randbelow(MAX_SEED + 1 - asked.num_images),
    }
    chosen |= asked.model_dump(exclude_none=True, exclude={"webhook", "output_format"})
    chosen |= {name: source.reference for name, source in sources.items()}
    chosen |= {"model": model.name, "width": width, "height": height}
    resolved = RESOLVED[asked.task](**chosen, output_format=_output_format(asked))
    assert isinstance(resolved, Txt2Img)
    return resolved


def _output_format(asked: AnyRequest) -> OutputFormat:
    """What was asked for, else what is accepted."""
    if "output_format" in asked.model_fields_set:
        return asked.output_format
    return http.accepted_format() or OutputFormat.PNG
