"""Translation of OpenAI's fields into our own requests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darkroom.api import checks, lora_tags
from darkroom.api.errors import ProblemError, invalid_field
from darkroom.api.parse import FILE_PART, LISTED, Body, validate
from darkroom.api.prepare import REFERENCE, Sources
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.compat.ignored import Ignored
from darkroom.images import codec
from darkroom.images.decoder import Decoded, Purpose
from darkroom.requests import (
    MAX_IMAGES_PER_JOB,
    MODEL_TASKS,
    REQUESTS,
    OutputFormat,
    Task,
    Txt2ImgRequest,
)
from darkroom.responses import FieldError, ModelInfo

MAX_N = 10

# Our fields that have another name or meaning in OpenAI's API, and those it does not offer here.
TRANSLATED = frozenset(
    {"model", "width", "height", "num_images", "output_format", "image", "mask_image"}
    | {"invert_mask", "references", "webhook"}
)
# All others keep our names, which are vLLM-Omni's too. Clients send them as `extra_body`.
OWN_BY_TASK = {
    task: REQUESTS[task].model_fields.keys() - TRANSLATED for task in (*MODEL_TASKS, Task.EDIT)
}
STRENGTHS = {"high": 0.5, "low": 0.75}  # of img2img, by `input_fidelity`

# OpenAI's models, for which the default one is used: many programs know no other names.
OPENAI_MODEL = re.compile(r"(chatgpt-|gpt-)image[\w.-]*|dall-e[\w.-]*")
DALL_E = "dall-e"  # answers addresses by default, later models base64

ASKS_NOTHING = ("", "auto")  # values of an ignored field from which nobody expects an effect


class ResponseOptions(BaseModel):
    """Those of OpenAI's fields that are translated, or decide the form of the answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    n: int = Field(1, ge=1, le=MAX_N)
    size: str = Field("auto", pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")
    response_format: Literal["url", "b64_json"] | None = None
    output_format: OutputFormat = OutputFormat.PNG
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    input_fidelity: Literal["high", "low"] = "low"

    @property
    def wants_addresses(self) -> bool:
        """Whether pictures are answered as addresses instead of base64."""
        if self.response_format is None:
            return _is_dall_e(self)
        return self.response_format == "url"


@dataclass(frozen=True)
class Translated:
    """A request as our own.

    Attributes:
        request: of the task's type, for as many pictures as one job makes.
        more: number of pictures left for a second job.
        files: uploaded pictures by our field's name.
        options: how to answer.
        ignored: names of fields without effect.
    """

    request: Txt2ImgRequest
    more: int
    files: Mapping[str, bytes | Decoded]
    options: ResponseOptions
    ignored: Ignored


def translate(task: Task, sent: Body, catalog: ModelCatalog, sources: Sources) -> Translated:
    """Translate a request without null fields.

    With a mask, img2img becomes inpaint; without one, edit where the model can.

    A picture for DALL·E with a hole and no mask is one in itself: the hole is repainted.

    Raises:
        ProblemError: 404, 413, 422 under our names of the fields, or 503.
    """
    picture: Any = None
    more_pictures: list[str] = []
    if task is not Task.TXT2IMG:
        sent, more_pictures = _plain_pictures(sent)
        picture = sent.files.get("image", next(iter(sent.fields.get("image", ())), None))
    fields = sent.fields
    options = validate(ResponseOptions, fields)
    model, replaced = _find_model(options.model, catalog)
    files: dict[str, bytes | Decoded] = {}
    flattened = False
    if task is Task.IMG2IMG and ("mask" in sent.files or "mask" in fields):
        task = Task.INPAINT
        mask = sent.files.get("mask") or fields["mask"]
        files["mask_image"] = _decode("mask", mask, Purpose.CUTOUT, sources)
    elif task is Task.IMG2IMG and Task.EDIT in model.tasks:
        task = Task.EDIT
    elif task is Task.IMG2IMG and _is_upload(picture):
        decoded = _decode("image", picture, Purpose.IMAGE, sources)
        flattened = decoded.has_hole
        if flattened and _is_dall_e(options) and Task.INPAINT in model.tasks:
            task, flattened = Task.INPAINT, False
            files["mask_image"] = _decode("image", picture, Purpose.CUTOUT, sources)
        picture = decoded
    values, fitted = _size(options.size, model)
    values |= {name: fields[name] for name in OWN_BY_TASK[task] if name in fields}
    if values.get("seed") in (-1, "-1"):  # other programs' way to ask for a random seed
        del values["seed"]
    varies = task is Task.IMG2IMG and "strength" in model.fields
    if varies:
        values.setdefault("strength", STRENGTHS[options.input_fidelity])
    if task is Task.EDIT:
        values["references"], files = _references(sent)
    elif task is not Task.TXT2IMG and isinstance(picture, bytes | Decoded):
        files["image"] = picture
    elif task is not Task.TXT2IMG and picture is not None:
        values["image"] = picture
    values |= {
        "model": model.name,
        "num_images": min(options.n, MAX_IMAGES_PER_JOB),
        "output_format": options.output_format,
    }
    alone = (name for name in files if "/" not in name)
    request = validate(REQUESTS[task], {**values, **dict.fromkeys(alone, FILE_PART)})
    assert isinstance(request, Txt2ImgRequest)
    request, refused = _honoured(request, model)
    known = {*ResponseOptions.model_fields, *values, *files, "seed"}
    known |= {"mask"} if task is Task.INPAINT else set()
    known |= {"image", "images"} if task is not Task.TXT2IMG else set()
    known -= set() if varies else {"input_fidelity"}
    ignored = [
        name for name, value in fields.items() if name not in known and value not in ASKS_NOTHING
    ]
    ignored += [name for name in refused if name in fields]
    ignored += ["model"] * replaced + ["size"] * fitted + ["image (transparency)"] * flattened
    ignored += more_pictures if task is not Task.EDIT else []
    ignored += [
        name for name in sent.spare if not (task is Task.EDIT and LISTED.sub("", name) == "image")
    ]
    more = options.n - request.num_images
    return Translated(request, more, files, options, Ignored(*ignored))


def apply_tags(asked: Translated, catalog: ModelCatalog, adapters: AdapterCatalog) -> Translated:
    """A request whose prompt's tags are in `loras`; those that cannot be applied are ignored."""
    request = asked.request
    prompt, tags = lora_tags.split(request.prompt)
    unread = lora_tags.split(request.negative_prompt)[1]
    asked.ignored.add(*(f"negative_prompt {tag.text}" for tag in unread))
    if not tags:
        return asked
    loras, refused = lora_tags.apply(
        tags, lora_tags.by_own_names(request.loras, adapters), catalog.find(request.model), adapters
    )
    asked.ignored.add(*(f"prompt {each.tag.text}" for each in refused))
    return replace(asked, request=request.model_copy(update={"prompt": prompt, "loras": loras}))


def _honoured(request: Txt2ImgRequest, model: ModelInfo) -> tuple[Txt2ImgRequest, list[str]]:
    """A request without the fields that its model does not honour, and their names."""
    kind = type(request)
    refused = [
        name
        for name in checks.LACKS
        if checks.why_refused(kind, name, getattr(request, name, None), model) is not None
    ]
    kept = request.model_fields_set - set(refused)
    return kind(**{name: getattr(request, name) for name in kept}), refused


def _plain_pictures(sent: Body) -> tuple[Body, list[str]]:
    """A body whose `image` is a list, and names of fields that hold more pictures than one.

    JSON names pictures as text or as {"image_url": …}, in `image` or in `images`.
    """
    fields = dict(sent.fields)
    items: list[Any] = []
    several = []
    for name in ("images", "image"):
        given = fields.get(name, [])
        found = given if isinstance(given, list) else [given]
        if found and (items or len(found) > 1):
            several.append(name)
        items += [_picture(item, name) for item in found]
    if items:
        fields["image"] = items
    if "mask" in fields:
        fields["mask"] = _picture(fields["mask"], "mask")
    return replace(sent, fields=fields), several


def _picture(item: Any, field: str) -> Any:
    """The text of a picture that may be in an object.

    Raises:
        ProblemError: 422, it is in OpenAI's storage.
    """
    if isinstance(item, dict) and item.get("file_id") is not None:
        raise invalid_field(field, "is a file of OpenAI's; send the picture as a data URI")
    if isinstance(item, dict) and "image_url" in item:
        item = item["image_url"]
        item = item.get("url") if isinstance(item, dict) else item
    return item


def _is_upload(picture: Any) -> bool:
    """Whether a picture was sent: it is no reference to a stored one."""
    return isinstance(picture, bytes) or (
        isinstance(picture, str) and not picture.startswith(REFERENCE)
    )


def _is_dall_e(options: ResponseOptions) -> bool:
    return (options.model or "").startswith(DALL_E)


def _references(sent: Body) -> tuple[list[Any], dict[str, bytes | Decoded]]:
    """The pictures of a request as `references` and as their files."""
    parts = [data for name, data in sent.files.items() if name.partition("/")[0] == "image"]
    if parts:
        files = {f"references/{index}": data for index, data in enumerate(parts)}
        return [FILE_PART] * len(parts), dict(files)
    return sent.fields.get("image", []), {}


def _find_model(name: str | None, catalog: ModelCatalog) -> tuple[ModelInfo, bool]:
    """The model of a name, or the default one for OpenAI's names, and whether it was replaced."""
    try:
        return catalog.find(name).info, False
    except UnknownModelError as error:
        if name is not None and OPENAI_MODEL.fullmatch(name):
            return catalog.find(None).info, True
        wrong = FieldError(pointer="#/model", detail=str(error))
        raise ProblemError(404, "model", "No such model", str(error), [wrong]) from None


def _size(size: str, model: ModelInfo) -> tuple[dict[str, Any], bool]:
    """Width and height by name, none for `auto`, and whether they differ from what was sent.

    Programs offer the sizes of OpenAI's models for every model. One that this model cannot make
    becomes the nearest that it can, in similar proportions.
    """
    if size == "auto":
        return {}, False
    wide, high = map(int, size.split("x"))
    width, height = checks.fit_size(wide, high, model)
    return {"width": width, "height": height}, (width, height) != (wide, high)


def _decode(field: str, value: object, purpose: Purpose, sources: Sources) -> Decoded:
    """A picture of a field, sent as a file or in base64.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    if not isinstance(value, bytes | str):
        raise invalid_field(field, "is neither a file nor base64")
    try:
        return sources.decode(field, value, purpose)
    except codec.PictureError as error:
        raise invalid_field(field, str(error)) from None
