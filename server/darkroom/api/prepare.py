"""From a validated request to one ready for the queue, with nothing left open."""

import base64
import binascii
import contextlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import unquote

from darkroom.api import checks, lora_defaults, lora_tags
from darkroom.api.checks import Source
from darkroom.api.errors import ProblemError, invalid, invalid_field, pointer
from darkroom.api.parse import check_bytes, digest
from darkroom.catalog import loras
from darkroom.catalog.hashes import Hashes
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.upscalers import UnknownUpscalerError, UpscalerCatalog
from darkroom.destinations import Destination, DestinationError
from darkroom.errors import Message, message, text_of
from darkroom.images import codec, tiling
from darkroom.images.codec import PictureError
from darkroom.images.decoder import Decoded, Purpose, Texts
from darkroom.images.decoder_pool import BusyError, Decoders
from darkroom.queue.store import Store
from darkroom.requests import (
    DEFAULT_SCALE,
    MAX_SEED,
    RESOLVED,
    AnyRequest,
    EditRequest,
    OutputFormat,
    ResolvedRequest,
    Task,
    Txt2Img,
    Txt2ImgRequest,
    Upscale,
    UpscaleRequest,
    Workload,
)
from darkroom.responses import FieldError, UpscalerInfo
from darkroom.storage.files import Files
from darkroom.storage.records import NewUpload

FILE_FIELDS = ("image", "mask_image", "references")
LISTS = ("references",)  # those that hold several pictures
REFERENCE = "image:"
LORA_HASH = re.compile(r"(?:^|, )(.+?): ([0-9a-f]{12})(?=, |$)")
URL_SAFE = str.maketrans("-_", "+/")
TRANSPARENT = message("transparent", "the transparent parts of the picture were made white")


@dataclass(frozen=True)
class PreparedRequest:
    """A request ready for the queue.

    Attributes:
        request: resolved.
        workload: its size.
        sources: its pictures. Those that were uploaded are not stored yet.
        fingerprint: SHA-256 of what was asked for.
        notes: what is done differently from what was asked.
        webhook: where its end is reported, or None. It is kept out of `request`, which is shown
            to others, written into pictures, and sent again.
    """

    request: ResolvedRequest
    workload: Workload
    sources: tuple[Source, ...]
    fingerprint: str
    webhook: Destination | None = None
    notes: tuple[str, ...] = ()

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
    added later changes no fingerprint. Fields and items of `files` hold no picture in `asked`.
    """
    fields = asked.model_dump(mode="json", exclude=set(files), exclude_defaults=True)
    return digest(json.dumps([asked.task, fields], sort_keys=True), files)


@dataclass(frozen=True)
class Sources:
    """Looks up stored pictures, and decodes uploads of at most `max_upload_bytes`."""

    store: Store
    decoders: Decoders
    max_upload_bytes: int

    def find(self, name: str, value: str | bytes | Decoded, client: str | None) -> Source:
        """Look up or decode the picture in the field or item of this name; raises as `decode`.

        The value is `image:<id>`, a decoded picture, or what `decode` takes. Only the client's
        stored pictures may be used; for None everybody's.
        """
        if isinstance(value, str) and value.startswith(REFERENCE):
            stored = self.store.picture(value.removeprefix(REFERENCE), client)
            if stored is None:
                wanted = value.removeprefix(REFERENCE)
                raise PictureError(
                    message("no_picture", "there is no picture {picture!r}", picture=wanted)
                )
            return Source(None, value, (stored.width, stored.height))
        upload = value if isinstance(value, Decoded) else self.decode(name, value)
        reference = f"{REFERENCE}up{secrets.token_hex(12)}"
        return Source(upload, reference, (upload.width, upload.height))

    def decode(self, name: str, value: str | bytes, purpose: Purpose | None = None) -> Decoded:
        """Decode an upload, file or base64 or data URI, in a process of its own.

        Its purpose is what the field's name says unless it is given. An item of a list is named
        `field/0`.

        Raises:
            PictureError: it is no usable picture; says why.
            ProblemError: 413, too large; 422, empty; 503, too many pictures wait.
        """
        if isinstance(value, str):
            value = from_base64(value)
            check_bytes(name, len(value), self.max_upload_bytes)
        with _unless_busy():
            return self.decoders.decode(value, purpose or Purpose(name.partition("/")[0]))

    def read_texts(self, data: bytes) -> Texts:
        """The texts in a picture's EXIF and comments, read in a process of its own.

        Raises:
            PictureError: it is no picture.
            ProblemError: 503, too many pictures wait.
        """
        with _unless_busy():
            return self.decoders.read_texts(data)


@contextlib.contextmanager
def _unless_busy() -> Iterator[None]:
    """Answer 503 where no decoder becomes free in time."""
    try:
        yield
    except BusyError:
        raise ProblemError(
            503,
            "busy",
            "Too busy",
            "too many pictures wait to be decoded; send yours again in a moment",
            headers={"Retry-After": "5"},
        ) from None


def from_base64(value: str) -> bytes:
    """The bytes in base64 or a data URI, in either alphabet (RFC 4648), with padding or without.

    Raises:
        PictureError: it is neither.
    """
    text = value.strip()
    if text[:8].lower().startswith(("http://", "https://")):
        raise PictureError("is an address; nothing is ever fetched, send the bytes")
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise PictureError("is a data URI without base64")
        if "%" in text:
            text = unquote(text)
    text = "".join(text.split()).translate(URL_SAFE)
    bare = text.rstrip("=")
    if len(text) - len(bare) > 2:
        raise PictureError("is no base64: it has too much padding")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise PictureError("is neither base64 nor an image:<id> reference") from None


@dataclass(frozen=True)
class Preparer:
    """Prepares requests. `webhooks` are prefixes of the addresses that may be called."""

    models: ModelCatalog
    adapters: AdapterCatalog
    upscalers: UpscalerCatalog
    hashes: Hashes
    sources: Sources
    webhooks: Sequence[str]

    def prepare(
        self,
        asked: AnyRequest,
        files: Mapping[str, bytes | Decoded],
        fingerprint: str,
        client: str | None,
        accepted: OutputFormat | None,
    ) -> PreparedRequest:
        """Find or decode a request's pictures, check it, and fill in what was left out.

        An unknown model or upscaler is refused before any picture is decoded. ProblemError is 413,
        422 or 503.

        Args:
            asked: the request.
            files: uploaded pictures by field, or `field/0` of a list's item, decoded or not; they
                replace those of `asked`.
            fingerprint: of the request.
            client: whose stored pictures may be used; None is everybody's.
            accepted: the output format if the request names none.
        """
        says = "output_format" in asked.model_fields_set
        output_format = asked.output_format if says else accepted or OutputFormat.PNG
        request: ResolvedRequest
        notes: tuple[str, ...] = ()
        if isinstance(asked, UpscaleRequest):
            named = self._find_upscaler(asked.upscaler, asked.scale) if asked.upscaler else None
            sources, webhook, errors = self._look_up(asked, files, client)
            if errors:
                raise invalid(errors)
            source = sources["image"]
            upscaler = named or self._choose_upscaler(asked.scale, source.size)
            request, workload = _resolve_upscaling(asked, upscaler, source, output_format)
        else:
            model = self._find_model(asked)
            asked, refused = self._with_tags(asked, model)
            asked, few_steps = lora_defaults.choose(asked, model, self.adapters)
            sources, webhook, errors = self._look_up(asked, files, client)
            errors += refused
            errors += checks.check(asked, model, sources, self.adapters)
            if errors:
                raise invalid(errors)
            resolved = _resolve(asked, model, sources, output_format)
            request = self._with_hashes(resolved, model)
            sizes = [source.size for source in sources.values()]
            shown = model.spec.family.shown_pixels(asked.task, sizes)
            workload = replace(request.workload, pixels=request.workload.pixels + shown)
            changed = _change_notes(resolved, request)
            about_loras = (*few_steps, *self._lora_notes(request, model))
            notes = (*_picture_notes(sources), *changed, *about_loras)
        found = tuple(sources.values())
        return PreparedRequest(request, workload, found, fingerprint, webhook, notes)

    def _look_up(
        self, asked: AnyRequest, files: Mapping[str, bytes | Decoded], client: str | None
    ) -> tuple[dict[str, Source], Destination | None, list[FieldError]]:
        """The pictures of a request, its webhook's address, and errors of both.

        The names of pictures are those of their fields, or `field/0` of a list's items.
        """
        sources: dict[str, Source] = {}
        webhook: Destination | None = None
        errors: list[FieldError] = []
        for name, sent in _pictures(asked).items():
            try:
                sources[name] = self.sources.find(name, files.get(name, sent), client)
            except PictureError as error:
                errors.append(FieldError(pointer=pointer(*name.split("/")), detail=text_of(error)))
        if asked.webhook is not None:
            try:
                webhook = checks.find_webhook(asked.webhook, self.webhooks)
            except DestinationError as error:
                errors.append(FieldError(pointer="#/webhook", detail=str(error)))
        return sources, webhook, errors

    def _with_tags(
        self, asked: Txt2ImgRequest, model: ModelEntry
    ) -> tuple[Txt2ImgRequest, list[FieldError]]:
        """A request with the LoRAs of its prompt's tags in `loras`, and errors of these tags."""
        prompt, tags = lora_tags.split(asked.prompt)
        loras = lora_tags.by_own_names(asked.loras, self.adapters)
        if not tags and loras == asked.loras:
            return asked, []
        refused: list[lora_tags.Refused] = []
        if tags:
            loras, refused = lora_tags.apply(tags, loras, model, self.adapters)
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        details = (
            message("lora_tag", "{tag}: {reason}", tag=each.tag.text, reason=each.reason)
            for each in refused
        )
        errors = [FieldError(pointer="#/prompt", detail=detail) for detail in details]
        return type(asked)(**{**given, "prompt": prompt, "loras": loras}), errors

    def _with_hashes(self, request: Txt2Img, model: ModelEntry) -> Txt2Img:
        """A request with the hashes of its model and LoRAs as they are now, as far as known."""
        paths = {lora.name: self.adapters.loras.find(lora.name).path for lora in request.loras}
        known = {name: self.hashes.auto_v3(path) for name, path in paths.items()}
        text = ", ".join(f"{name}: {digits}" for name, digits in known.items() if digits)
        found = {"model_hash": self.hashes.of(model.path), "lora_hashes": text or None}
        return request.model_copy(update=found)

    def _lora_notes(self, request: Txt2Img, model: ModelEntry) -> Iterator[str]:
        """Notes on what is left out of LoRAs, and on tags that are read as words."""
        for lora in request.loras:
            bundled = ", ".join(loras.unread(self.adapters.loras.find(lora.name), model))
            if bundled:
                yield message(
                    "lora_bundled",
                    "{lora} is used without the embeddings that are bundled with it: {embeddings}",
                    lora=lora.name,
                    embeddings=bundled,
                )
        for tag in lora_tags.split(request.negative_prompt)[1]:
            yield message(
                "lora_negative",
                "{tag} in the negative prompt is read as words; LoRAs are named in the prompt",
                tag=tag.text,
            )

    def _find_model(self, asked: Txt2ImgRequest) -> ModelEntry:
        """The model asked for, or the default one, if it supports the task.

        More pictures than it takes are refused before any is decoded.
        """
        try:
            entry = self.models.find(asked.model)
        except UnknownModelError as error:
            raise invalid_field("model", text_of(error)) from None
        model = entry.info
        if asked.task not in model.tasks:
            able = [info.name for info in self.models.infos() if asked.task in info.tasks]
            tasks = ", ".join(model.tasks)
            hint = f"; {', '.join(able)} can" if able else ""
            if asked.task is Task.IMG2IMG and Task.EDIT in model.tasks:
                hint = f"; it edits as the prompt says: send the picture to /edit{hint}"
            raise invalid_field(
                "model",
                Message(
                    f"{model.name} does {tasks}, not {asked.task}{hint}",
                    "model_task",
                    {"model": model.name, "tasks": tasks, "task": asked.task.value},
                ),
            )
        most = model.limits.max_references
        if isinstance(asked, EditRequest) and len(asked.references) > most:
            given = len(asked.references)
            pictures = f"{most} picture{'s' * (most > 1)}"
            raise invalid_field(
                "references",
                Message(
                    f"{model.name} takes {pictures} at a time, not {given}",
                    "too_many_references",
                    {"model": model.name, "most": most, "given": given},
                ),
            )
        return entry

    def _find_upscaler(self, name: str, scale: float | None) -> UpscalerInfo:
        """The upscaler asked for, if it reaches the scale."""
        try:
            found = self.upscalers.find(name).info
        except UnknownUpscalerError as error:
            raise invalid_field("upscaler", text_of(error)) from None
        if scale is not None and scale > found.scale:
            detail = f"{found.name} makes pictures up to {found.scale} times larger"
            raise invalid_field("scale", f"{detail}; ask twice for more")
        return found

    def _choose_upscaler(self, scale: float | None, size: tuple[int, int]) -> UpscalerInfo:
        """The upscaler for a request that names none."""
        try:
            return self.upscalers.find_for(scale or DEFAULT_SCALE, size[0] * size[1]).info
        except UnknownUpscalerError as error:
            raise invalid_field("scale" if scale else "upscaler", text_of(error)) from None


def _picture_notes(sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Notes on a request's pictures: that transparent parts are lost. A mask covers them."""
    if "mask_image" in sources:
        return ()
    pictures = (source.upload for source in sources.values())
    return (TRANSPARENT,) if any(picture and picture.has_hole for picture in pictures) else ()


def _change_notes(asked: Txt2Img, now: Txt2Img) -> Iterator[str]:
    """Notes on files that are not those whose hashes were sent."""
    if _differ(asked.model_hash, now.model_hash):
        yield message(
            "model_changed",
            "the file of {model} is another one than that of the picture with these settings, so "
            "the result can differ",
            model=now.model,
        )
    said = dict(LORA_HASH.findall(asked.lora_hashes or ""))
    for lora, digits in LORA_HASH.findall(now.lora_hashes or ""):
        if _differ(said.get(lora), digits):
            yield message(
                "lora_changed",
                "the file of the LoRA {lora} is another one than that of the picture with these "
                "settings, so the result can differ",
                lora=lora,
            )


def _differ(said: str | None, known: str | None) -> bool:
    """Whether a hash, of which the first digits suffice, is surely not the one that is known."""
    return said is not None and known is not None and not known.startswith(said)


def _pictures(asked: AnyRequest) -> dict[str, str]:
    """What was sent as pictures, by field or `field/0` of a list's item; the source is first."""
    found: dict[str, str] = {}
    for name in FILE_FIELDS:
        sent = getattr(asked, name, None)
        if name in LISTS:
            found |= {f"{name}/{index}": item for index, item in enumerate(sent or ())}
        elif sent is not None:
            found[name] = sent
    return found


def _resolve(
    asked: Txt2ImgRequest,
    entry: ModelEntry,
    sources: Mapping[str, Source],
    output_format: OutputFormat,
) -> Txt2Img:
    model = entry.info
    width, height = checks.choose_size(asked, entry, next(iter(sources.values()), None))
    errors = checks.check_size(width, height, model)
    if errors:
        raise invalid(errors)
    chosen = model.defaults.model_dump()
    chosen["seed"] = secrets.randbelow(MAX_SEED + 1 - asked.num_images)
    chosen |= asked.model_dump(exclude_none=True, exclude={"webhook", "output_format"})
    references = {name: source.reference for name, source in sources.items()}
    edits = isinstance(asked, EditRequest)
    chosen |= {"references": tuple(references.values())} if edits else references
    chosen |= {"model": model.name, "width": width, "height": height}
    resolved = RESOLVED[asked.task](**chosen, output_format=output_format)
    assert isinstance(resolved, Txt2Img)
    return resolved


def _resolve_upscaling(
    asked: UpscaleRequest, upscaler: UpscalerInfo, source: Source, output_format: OutputFormat
) -> tuple[Upscale, Workload]:
    width, height = source.size
    if width * height > upscaler.max_pixels:
        most = upscaler.max_pixels
        detail = f"is {width}×{height}; {upscaler.name} takes pictures of up to {most} pixels"
        raise invalid_field("image", detail)
    request = Upscale(
        image=source.reference,
        upscaler=upscaler.name,
        scale=asked.scale or (float(upscaler.scale) if asked.upscaler else DEFAULT_SCALE),
        output_format=output_format,
    )
    wide, high = request.size(source.size)
    try:
        codec.check_sides((wide, high), output_format)
    except PictureError as error:
        raise invalid_field("output_format", str(error)) from None
    tiles = len(tiling.for_upscaling(source.size).boxes)
    return request, Workload(request.model, wide * high, 1, tiles)
