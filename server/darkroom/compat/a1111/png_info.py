"""POST /sdapi/v1/png-info: how a picture was made, as A1111 and other programs write it."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Blueprint

from darkroom.api.context import context
from darkroom.api.parse import check_bytes
from darkroom.api.prepare import from_base64
from darkroom.compat.a1111 import infotext, samplers
from darkroom.compat.a1111.fields import wrong
from darkroom.images import metadata
from darkroom.images.codec import PictureError
from darkroom.images.decoder import Texts
from darkroom.images.metadata import NEGATIVE

blueprint = Blueprint("a1111_png_info", __name__, url_prefix="/sdapi/v1")

LINES = ("parameters", "UserComment", "comment")  # where A1111's text is
TEXTS = ("text", "text_g", "prompt", "string", "value")  # inputs of nodes that hold a prompt
MAX_NODES = 2000  # of a graph of ComfyUI's

Settings = dict[str, Any]  # by A1111's names; None for what is not said
Size = tuple[int, int]


@blueprint.post("/png-info")
def png_info() -> dict[str, Any]:
    """The texts in a picture, and the settings that they say.

    `info` is A1111's text; for pictures of other programs, their settings in its format.
    """
    image = context().bodies.read_any_json().fields.get("image")
    if not isinstance(image, str) or not image:
        raise wrong("is required", "image")
    try:
        data = from_base64(image)
    except PictureError as error:
        raise wrong(str(error), "image") from None
    check_bytes("image", len(data), context().settings.web.max_upload_bytes)
    found = _texts(data)
    info, parameters = describe(found.texts, found.size)
    parameters = infotext.with_loras(parameters)
    answer = {"info": info, "items": found.texts, "parameters": parameters}
    model = infotext.find_model(parameters)
    if model.name is not None:
        said = parameters.get("Model")
        parameters["Model"] = model.name
        if model.changed:
            answer["notes"] = [
                f"the file of {model.name} is another one than that of this picture, so the "
                "result can differ"
            ]
        elif said not in (None, model.name):
            answer["notes"] = [f"{said} is {model.name} on this server, by its hash"]
    return answer


def _texts(data: bytes) -> Texts:
    """All texts of a file; none if it is no picture."""
    try:
        texts = metadata.read_texts(data)
    except metadata.NotPngError:
        texts = {}
    if not texts.keys().isdisjoint(LINES):
        return Texts((0, 0), texts)
    try:
        found = context().sources.read_texts(data)
    except PictureError:
        return Texts((0, 0), texts)
    return Texts(found.size, {**found.texts, **texts})


def describe(texts: Mapping[str, str], size: Size) -> tuple[str, dict[str, str]]:
    """A1111's text of a picture, and its settings by A1111's names; empty if nothing is said.

    Args:
        texts: of its file, by name.
        size: its width and height in pixels.
    """
    line = next((texts[name] for name in LINES if name in texts), "")
    scheme = _object(line)
    if line and scheme is None:
        return line, metadata.parse_parameters(line)
    readers: tuple[Callable[[], Settings | None], ...] = (
        lambda: _fooocus(scheme),
        lambda: _novelai(texts, size),
        lambda: _invokeai(texts),
        lambda: _comfyui(texts),
    )
    for read in readers:
        try:
            found = read()
            if found is not None:
                return _in_a1111s_format(found)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
            continue  # it is written otherwise
    return line, {"Prompt": line, "Negative prompt": ""} if line else {}


def _in_a1111s_format(found: Settings) -> tuple[str, dict[str, str]]:
    """A1111's text of settings, and the settings as that would be read."""
    said = {name: _plain(value) for name, value in found.items() if value not in (None, "")}
    prompt, negative = said.pop("Prompt", ""), said.pop("Negative prompt", "")
    settings = ", ".join(f"{name}: {metadata.quoted(value)}" for name, value in said.items())
    lines = [prompt, *([f"{NEGATIVE} {negative}"] if negative else []), settings]
    size = said.pop("Size", "").partition("x")
    sides = {"Size-1": size[0], "Size-2": size[2]} if size[2] else {}
    return "\n".join(lines).strip(), {
        "Prompt": prompt,
        "Negative prompt": negative,
        **said,
        **sides,
    }


def _plain(value: Any) -> str:
    """A number or text, as A1111 writes it."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    if not isinstance(value, str | int):
        raise TypeError
    return str(value).strip()


def _object(text: str | None) -> dict[str, Any] | None:
    """A text that is a JSON object; None if it is something else."""
    if not text or not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _sampling(sampler: Any, schedule: Any = None) -> Settings:
    """Sampler and schedule by A1111's labels, where it knows their names."""
    if not sampler:
        return {}
    label, kind = samplers.labels(str(sampler), str(schedule) if schedule else None)
    return {"Sampler": label, "Schedule type": kind}


def _size(width: Any, height: Any) -> str | None:
    return f"{int(width)}x{int(height)}" if width and height else None


# --- other programs ------------------------------------------------------------------------


def _fooocus(scheme: Mapping[str, Any] | None) -> Settings | None:
    """Fooocus (`modules/meta_parser.py`): JSON where A1111 has its text."""
    if scheme is None or not isinstance(scheme.get("prompt"), str):
        return None
    sides = str(scheme.get("resolution", "")).strip("()").split(",")
    return {
        "Prompt": scheme["prompt"],
        "Negative prompt": scheme.get("negative_prompt"),
        "Steps": scheme.get("steps"),
        **_sampling(scheme.get("sampler"), scheme.get("scheduler")),
        "CFG scale": scheme.get("guidance_scale"),
        "Seed": scheme.get("seed"),
        "Size": _size(*sides) if len(sides) == 2 else None,
        "Version": scheme.get("version"),
    }


def _novelai(texts: Mapping[str, str], size: Size) -> Settings | None:
    """NovelAI: JSON in `Comment`, the prompt in `Description` (A1111's `modules/images.py`)."""
    told = _object(texts.get("Comment"))
    if texts.get("Software") != "NovelAI" or told is None:
        return None
    return {
        "Prompt": texts.get("Description") or told.get("prompt"),
        "Negative prompt": told.get("uc"),
        "Steps": told.get("steps"),
        **_sampling(told.get("sampler"), told.get("noise_schedule")),
        "CFG scale": told.get("scale"),
        "Seed": told.get("seed"),
        "Size": _size(told.get("width") or size[0], told.get("height") or size[1]),
        "Clip skip": 2,
        "ENSD": 31337,
    }


def _invokeai(texts: Mapping[str, str]) -> Settings | None:
    """InvokeAI: JSON in `invokeai_metadata` since version 3, in `sd-metadata` before."""
    told = _object(texts.get("invokeai_metadata"))
    if told is None:
        old = _object(texts.get("sd-metadata"))
        if old is None:
            return None
        told = {"model": old.get("model_weights"), **old["image"]}
    prompt = told.get("positive_prompt", told.get("prompt"))
    if isinstance(prompt, list):  # parts, each with a weight
        prompt = " ".join(part["prompt"] for part in prompt)
    model = told.get("model")
    if isinstance(model, dict):
        model = model.get("name") or model.get("model_name")
    tags = []
    for lora in told.get("loras") or ():
        about = lora.get("model") or lora["lora"]
        tags.append((about.get("name") or about["model_name"], lora["weight"]))
    return {
        "Prompt": f"{prompt or ''}{_tags(tags)}",
        "Negative prompt": told.get("negative_prompt"),
        "Steps": told.get("steps"),
        **_sampling(told.get("scheduler") or told.get("sampler")),
        "CFG scale": told.get("cfg_scale"),
        "Seed": told.get("seed"),
        "Size": _size(told.get("width"), told.get("height")),
        "Model": model,
        "Denoising strength": told.get("strength"),
    }


def _tags(loras: list[tuple[str, float]]) -> str:
    return "".join(f" <lora:{name}:{scale:g}>" for name, scale in loras)


def _comfyui(texts: Mapping[str, str]) -> Settings | None:
    """ComfyUI: the graph that was run, in `prompt`, or behind that word in EXIF."""
    graph = _object(texts.get("prompt"))
    for name in ("Make", "Model", "ImageDescription"):
        head, _, rest = texts.get(name, "").partition(":")
        if graph is None and head.lower() == "prompt":
            graph = _object(rest)
    if graph is None:
        return None
    for node, about in list(graph.items())[:MAX_NODES]:
        if "sampler" in str(about["class_type"]).lower() and "latent_image" in about["inputs"]:
            return _from_graph(graph, node)
    return None


def _from_graph(graph: Mapping[str, Any], sampler: str) -> Settings:
    """The settings of a sampling node and of what leads to it; of each the nearest one."""

    def upstream(start: str, *only: str, seen: set[str] | None = None) -> Iterator[dict[str, Any]]:
        """The inputs of a node and of those before it, the nearest first.

        Args:
            start: the node.
            only: if it has any of these inputs, no others are followed from it.
            seen: nodes to leave out; grows by what is told.
        """
        seen = set() if seen is None else seen
        waiting = deque([start] if start not in seen else [])
        seen.add(start)
        while waiting and len(seen) < MAX_NODES:
            inputs = graph[waiting.popleft()]["inputs"]
            yield inputs
            chosen = [inputs[name] for name in only if name in inputs] or inputs.values()
            for link in chosen:
                if isinstance(link, list) and link and str(link[0]) in graph:
                    node = str(link[0])
                    if node not in seen:
                        seen.add(node)
                        waiting.append(node)

    def nearest(start: str, *names: str) -> Any:
        """The nearest value of an input of one of these names that is no link."""
        for inputs in upstream(start):
            for name in names:
                if isinstance(inputs.get(name), str | int | float):
                    return inputs[name]
        return None

    def text(*ways: str) -> str:
        """The prompt that an input of the sampler, or of its guider, leads to."""
        read: set[str] = set()  # nodes that lead to no text
        for inputs in upstream(sampler, "guider"):
            for link in (inputs[way] for way in ways if way in inputs):
                for before in upstream(str(link[0]), *ways, seen=read):
                    said = [before[name] for name in TEXTS if isinstance(before.get(name), str)]
                    if said:
                        return str(said[0])
        return ""

    loras = [
        (str(inputs["lora_name"]), float(inputs.get("strength_model", 1)))
        for inputs in upstream(sampler)
        if isinstance(inputs.get("lora_name"), str)
    ]
    tags = [(_stem(name), scale) for name, scale in reversed(loras)]
    model = nearest(sampler, "ckpt_name", "unet_name")
    strength = nearest(sampler, "denoise")
    return {
        "Prompt": f"{text('positive', 'conditioning')}{_tags(tags)}",
        "Negative prompt": text("negative"),
        "Steps": nearest(sampler, "steps"),
        **_sampling(nearest(sampler, "sampler_name"), nearest(sampler, "scheduler")),
        "CFG scale": nearest(sampler, "cfg"),
        "Seed": nearest(sampler, "seed", "noise_seed"),
        "Size": _size(nearest(sampler, "width"), nearest(sampler, "height")),
        "Model": None if model is None else _stem(str(model)),
        "Denoising strength": None if strength == 1 else strength,
    }


def _stem(name: str) -> str:
    """A file's name without folders and ending."""
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")
