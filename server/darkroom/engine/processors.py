"""Processors, which make texts and pictures ready for a language model, without torchvision.

transformers wants torchvision for videos, and for each picture that Pixtral reads. Its wheels for
GPUs do not load beside a torch for CPUs, and nothing here needs it: pictures are made ready by
Pillow where it is missing, and FLUX.2 has Pixtral's processor read texts alone.
"""

from typing import Any

import transformers

from darkroom.catalog import folders
from darkroom.catalog.model_entry import ModelEntry


class PixtralProcessor(transformers.ProcessorMixin):
    """Pixtral's processor without pictures.

    transformers knows by the class's name that the tokenizer is to be read as its file says, and
    by the constructor which parts there are.
    """

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)


def load(entry: ModelEntry) -> dict[str, Any]:
    """The processors of a folder that cannot be loaded as they are, by the names of the parts."""
    found = {}
    for name, class_name in folders.parts(entry.path, entry.spec.family).items():
        cls: Any = getattr(transformers, class_name, None)
        if class_name == PixtralProcessor.__name__:
            cls = PixtralProcessor
        elif _has_videos(cls):
            cls = _without_videos(cls)
        else:
            continue
        found[name] = cls.from_pretrained(entry.path / name, local_files_only=True)
    return found


def _has_videos(cls: Any) -> bool:
    known = transformers.ProcessorMixin in getattr(cls, "__mro__", ())
    parts = ["image_processor", "tokenizer", "video_processor"]
    return known and cls.get_attributes() == parts


def _without_videos(cls: Any) -> Any:
    """A class of processors whose constructor, by which transformers finds parts, has no videos."""

    def __init__(  # noqa: N807
        self: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: Any = None,
        **options: Any,
    ) -> None:
        cls.__init__(self, image_processor, tokenizer, None, chat_template, **options)

    return type(cls.__name__, (cls,), {"__init__": __init__})
