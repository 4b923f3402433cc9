"""From a validated request to one ready for the queue, with nothing left open."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from darkroom.api import checks
from darkroom.api.errors import invalid, pointer
from darkroom.api.parse import digest
from darkroom.api.sources import REFERENCE, Source, Sources
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, ModelEntry, UnknownModelError
from darkroom.catalog.upscalers import UnknownUpscalerError, UpscalerCatalog
from darkroom.destinations import Destination
from darkroom.images import codec, tiling
from darkroom.images.decoder import Decoded
from darkroom.requests import (
    MAX_SEED,
    RESOLVED,
    AnyRequest,
    OutputFormat,
    ResolvedRequest,
    Txt2Img,
    Txt2ImgRequest,
    Upscale,
    UpscaleRequest,
    Workload,
)
from darkroom.responses import FieldError, ModelInfo, UpscalerInfo
from darkroom.storage.files import Files
from darkroom.storage.records import NewUpload

FILE_FIELDS = ("image", "mask_image")
MAX_UPSCALED_PIXELS = 16_777_216  # 4096²; the worker takes two seconds for the PNG


@dataclass(frozen=True)
class PreparedRequest:
    """A request ready for the queue.

    Attributes:
        request: resolved.
        workload: its size.
        sources: its pictures. Those that were uploaded are not stored yet.
        fingerprint: SHA-256 of what was asked for.
        webhook: where its end is reported, or None. It is kept out of `request`, which is shown
            to others, written into pictures, and sent again.
    """

    request: ResolvedRequest
    workload: Workload
    sources: tuple[Source, ...]
    fingerprint: str
    webhook: Destination | None = None

    def store(self, files: Files) -> tuple[NewUpload, ...]:
        """Write the uploaded pictures to disk; their records."""
        uploads = []
        for source in self.sources:
            if source.upload is not None:
                data = source.upload.png
                upload_id = source.reference.removeprefix(REFERENCE)
                files.write(upload_id, data)
                uploads.append(
                    NewUpload(upload_id, sha256(data).hexdigest(), *source.size, len(data))
                )
        return tuple(uploads)


def fingerprint(asked: AnyRequest, files: Mapping[str, bytes]) -> str:
    """SHA-256 of what is asked for, hexadecimal.

    Fields that have their default do not count, whether they were sent or not, so a field that is
    added later changes no fingerprint.

    Args:
        asked: the request; its fields of `files` hold no picture.
        files: uploaded pictures by field.
    """
    fields = asked.model_dump(mode="json", exclude=set(files), exclude_defaults=True)
    return digest(json.dumps([asked.task, fields], sort_keys=True), files)


class Preparer:
    """Prepares requests.

    Args:
        models: those that may be asked for.
        adapters: LoRAs that may be asked for.
        upscalers: those that may be asked for.
        sources: finds and decodes pictures.
        webhooks: prefixes of addresses that may be called.
    """

    def __init__(
        self,
        models: ModelCatalog,
        adapters: AdapterCatalog,
        upscalers: UpscalerCatalog,
        sources: Sources,
        webhooks: Sequence[str],
    ) -> None:
        self._models = models
        self._adapters = adapters
        self._upscalers = upscalers
        self._sources = sources
        self._webhooks = webhooks

    def prepare(
        self,
        asked: AnyRequest,
        files: Mapping[str, bytes | Decoded],
        fingerprint: str,
        client: str | None,
        accepted: OutputFormat | None,
    ) -> PreparedRequest:
        """Find or decode a request's pictures, check it, and fill in what was left out.

        An unknown model or upscaler is refused before any picture is decoded.

        Args:
            asked: the request.
            files: uploaded pictures by field, decoded or not; they replace the fields of `asked`.
            fingerprint: of the request.
            client: whose stored pictures may be used; None is everybody's.
            accepted: the output format if the request names none.

        Raises:
            ProblemError: 413, 422 or 503.
        """
        output_format = accepted or OutputFormat.PNG
        if "output_format" in asked.model_fields_set:
            output_format = asked.output_format
        request: ResolvedRequest
        if isinstance(asked, UpscaleRequest):
            upscaler = self._find_upscaler(asked)
            sources, webhook, errors = self._look_up(asked, files, client)
            if errors:
                raise invalid(errors)
            request, workload = _resolve_upscaling(asked, upscaler, sources["image"], output_format)
        else:
            model = self._find_model(asked)
            sources, webhook, errors = self._look_up(asked, files, client)
            errors += checks.check_support(asked, model)
            errors += checks.check_fields(asked, model.info, sources)
            errors += checks.check_loras(asked.loras, model, self._adapters)
            if errors:
                raise invalid(errors)
            request = _resolve(asked, model.info, sources, output_format)
            workload = request.workload
        return PreparedRequest(request, workload, tuple(sources.values()), fingerprint, webhook)

    def _look_up(
        self, asked: AnyRequest, files: Mapping[str, bytes | Decoded], client: str | None
    ) -> tuple[dict[str, Source], Destination | None, list[FieldError]]:
        """The pictures of a request by field, its webhook's address, and errors of both."""
        sources: dict[str, Source] = {}
        errors: list[FieldError] = []
        for name in FILE_FIELDS:
            value = files.get(name, getattr(asked, name, None))
            if value is not None:
                try:
                    sources[name] = self._sources.find(name, value, client)
                except codec.PictureError as error:
                    errors.append(FieldError(pointer=pointer(name), detail=str(error)))
        webhook, unwanted = checks.find_webhook(asked.webhook, self._webhooks)
        return sources, webhook, errors + unwanted

    def _find_model(self, asked: Txt2ImgRequest) -> ModelEntry:
        """The model asked for, or the default one, if it supports the task."""
        try:
            entry = self._models.find(asked.model)
        except UnknownModelError as error:
            raise invalid([FieldError(pointer="#/model", detail=str(error))]) from None
        model = entry.info
        if asked.task not in model.tasks:
            able = [info.name for info in self._models.infos() if asked.task in info.tasks]
            hint = f"; {', '.join(able)} can" if able else ""
            detail = f"{model.name} does {', '.join(model.tasks)}, not {asked.task}{hint}"
            raise invalid([FieldError(pointer="#/model", detail=detail)])
        return entry

    def _find_upscaler(self, asked: UpscaleRequest) -> UpscalerInfo:
        """The upscaler asked for, if it reaches the scale."""
        try:
            found = self._upscalers.find(asked.upscaler).info
        except UnknownUpscalerError as error:
            raise invalid([FieldError(pointer="#/upscaler", detail=str(error))]) from None
        if asked.scale is not None and asked.scale > found.scale:
            detail = (
                f"{found.name} makes pictures up to {found.scale} times larger; ask twice for more"
            )
            raise invalid([FieldError(pointer="#/scale", detail=detail)])
        return found


def _resolve(
    asked: Txt2ImgRequest,
    model: ModelInfo,
    sources: Mapping[str, Source],
    output_format: OutputFormat,
) -> Txt2Img:
    width, height = checks.choose_size(asked, model, sources.get("image"))
    errors = checks.check_size(width, height, model)
    if errors:
        raise invalid(errors)
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
    resolved = RESOLVED[asked.task](**chosen, output_format=output_format)
    assert isinstance(resolved, Txt2Img)
    return resolved


def _resolve_upscaling(
    asked: UpscaleRequest, upscaler: UpscalerInfo, source: Source, output_format: OutputFormat
) -> tuple[Upscale, Workload]:
    width, height = source.size
    limit = MAX_UPSCALED_PIXELS // upscaler.scale**2
    if width * height > limit:
        detail = f"is {width}×{height}; {upscaler.name} takes pictures of up to {limit} pixels"
        raise invalid([FieldError(pointer="#/image", detail=detail)])
    request = Upscale(
        image=source.reference,
        upscaler=upscaler.name,
        scale=float(upscaler.scale) if asked.scale is None else asked.scale,
        output_format=output_format,
    )
    wide, high = request.size(source.size)
    tiles = len(tiling.for_upscaling(source.size).boxes)
    return request, Workload(request.model, wide * high, 1, tiles)
