"""Stock diffusers, called as its documentation says: what our pictures are held against."""

import inspect
import json
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import diffusers
import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines import auto_pipeline
from PIL import Image
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from darkroom.engine.base import EngineJob
from darkroom.engine.sample import build_scheduler
from darkroom.requests import Img2Img, Inpaint, Task, Txt2Img
from tests.effort import DEVICE

SD: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionPipeline,
    Task.IMG2IMG: StableDiffusionImg2ImgPipeline,
    Task.INPAINT: StableDiffusionInpaintPipeline,
}
SDXL: dict[Task, Any] = {
    Task.TXT2IMG: StableDiffusionXLPipeline,
    Task.IMG2IMG: StableDiffusionXLImg2ImgPipeline,
    Task.INPAINT: StableDiffusionXLInpaintPipeline,
}
# Of the transformer families: what AutoPipeline makes of a folder's class for a task.
AUTO: dict[Task, Any] = {
    Task.TXT2IMG: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    Task.IMG2IMG: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    Task.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    Task.EDIT: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
}


class Stock:
    """The stock pipelines of one model folder in float32, on the device of the tests.

    LoRAs are read from the folder `loras` beside the one that the model's is in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pictures: dict[str, Image.Image] = {}
        self._worn: set[str] = set()

    @cached_property
    def _loaded(self) -> Any:
        pipeline = DiffusionPipeline.from_pretrained(self._folder, dtype=torch.float32)
        for name in ("text_encoder", "text_encoder_2"):
            encoder = pipeline.components.get(name)
            if encoder is not None and not hasattr(encoder, "text_model"):
                _wrap(encoder)
        return pipeline.to(DEVICE)

    def pipeline(self, task: Task, scheduler: str) -> Any:
        """A fresh pipeline around the loaded parts."""
        loaded = self._loaded
        parts = loaded.components
        if "text_encoder_2" not in parts:
            made = SD[task](**parts, requires_safety_checker=False)
        else:
            scored = loaded.config.get("requires_aesthetics_score", False)
            options = {} if task is Task.TXT2IMG else {"requires_aesthetics_score": scored}
            zeros = loaded.config["force_zeros_for_empty_prompt"]
            made = SDXL[task](**parts, force_zeros_for_empty_prompt=zeros, **options)
        made.scheduler = build_scheduler(scheduler, loaded.scheduler.config)
        made.set_progress_bar_config(disable=True)
        return made

    def picture(self, job: EngineJob, index: int = 0) -> Image.Image:
        """Image `index` of the job; the same question is answered from memory."""
        pictures = (job.image, job.mask, *job.references)
        digests = [crc32(one.tobytes()) for one in pictures if one is not None]
        question = f"{index} {job.request.model_dump_json()} {digests}"
        if question not in self._pictures:
            self._wear(job.model_request)
            self._pictures[question] = self._develop(job, index)
        return self._pictures[question]

    def _wear(self, asked: Txt2Img) -> None:
        """Apply a request's LoRAs to the parts."""
        loaded = self._loaded
        for lora in asked.loras:
            if lora.name not in self._worn:
                self._worn.add(lora.name)
                self._load_lora(lora.name)
        if asked.loras:
            loaded.enable_lora()
            names = [lora.name for lora in asked.loras]
            loaded.set_adapters(names, [lora.scale for lora in asked.loras])
        elif self._worn:
            loaded.disable_lora()

    def _load_lora(self, name: str) -> None:
        encoders = [each for each in self._loaded.components.values() if _is_wrapped(each)]
        for encoder in encoders:
            object.__delattr__(
                encoder, "text_model"
            )  # by its lack diffusers knows the layers' new names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's, of a second adapter
            self._loaded.load_lora_weights(
                self._folder.parent.parent / "loras",
                weight_name=f"{name}.safetensors",
                adapter_name=name,
            )
        for encoder in encoders:
            _wrap(encoder)

    def _develop(self, job: EngineJob, index: int) -> Image.Image:
        asked, image, mask = job.model_request, job.image, job.mask
        pipeline = self.pipeline(asked.task, asked.scheduler)
        size = {"width": asked.width, "height": asked.height}
        options: dict[str, Any] = {}
        match asked.task:
            case Task.TXT2IMG:
                options = size
            case Task.IMG2IMG:
                options = {"image": image, "strength": asked.strength}
            case Task.INPAINT:
                options = {"image": image, "mask_image": mask, "strength": asked.strength, **size}
                options["padding_mask_crop"] = asked.padding_mask_crop
        if "guidance_rescale" in inspect.signature(pipeline.__call__).parameters:
            options["guidance_rescale"] = asked.guidance_rescale
        picture: Image.Image = pipeline(
            asked.prompt,
            negative_prompt=asked.negative_prompt or None,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            clip_skip=asked.clip_skip or None,
            generator=torch.Generator("cpu").manual_seed(asked.seed_of(index)),
            **options,
        ).images[0]
        return picture


def _wrap(encoder: Any) -> None:
    """Set what transformers 5 took out; diffusers 0.42 reaches through it."""
    object.__setattr__(encoder, "text_model", encoder)


def _is_wrapped(part: Any) -> bool:
    return part is not None and getattr(part, "text_model", None) is part


class PictureProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without videos, for which transformers needs torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer)


class FlowStock(Stock):
    """The stock pipelines of a model with a transformer."""

    @cached_property
    def kind(self) -> str:
        """The class in the folder's index."""
        name: str = json.loads((self._folder / "model_index.json").read_text())["_class_name"]
        return name

    @cached_property
    def _loaded(self) -> Any:
        given: dict[str, Any] = {}
        if self.kind == "StableDiffusion3Pipeline":
            given = {"text_encoder_3": None, "tokenizer_3": None}
        if (self._folder / "processor").is_dir():
            folder = self._folder / "processor"
            pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
            given = {"processor": PictureProcessor(pictures, AutoTokenizer.from_pretrained(folder))}
        if self.kind == "Flux2Pipeline":
            given = {"tokenizer": None}
        loaded = DiffusionPipeline.from_pretrained(self._folder, dtype=torch.float32, **given)
        if self.kind == "Flux2Pipeline":
            # Pixtral's processor, for which transformers needs torchvision, reads texts as this.
            words = PreTrainedTokenizerFast.from_pretrained(self._folder / "tokenizer")
            loaded.register_modules(tokenizer=words)
        return loaded.to(DEVICE)

    def pipeline(self, task: Task, scheduler: str) -> Any:
        loaded = self._loaded
        assert scheduler == "native"
        cls = auto_pipeline._get_task_class(AUTO[task], self.kind)
        options = (
            {"is_distilled": loaded.config.is_distilled} if "is_distilled" in loaded.config else {}
        )
        made = cls(**loaded.components, **options)
        made.scheduler = loaded.scheduler.from_config(loaded.scheduler.config)
        made.set_progress_bar_config(disable=True)
        return made

    def _develop(self, job: EngineJob, index: int) -> Image.Image:
        asked = job.model_request
        pipeline = self.pipeline(asked.task, asked.scheduler)
        options: dict[str, Any] = {}
        match asked.task:
            case Task.IMG2IMG | Task.INPAINT:
                options = {"image": job.image}
            case Task.EDIT:
                several = len(job.references) > 1
                options = {"image": list(job.references) if several else job.references[0]}
        words = inspect.signature(pipeline.__call__).parameters
        if isinstance(asked, Img2Img | Inpaint) and "strength" in words:
            options["strength"] = asked.strength
        if isinstance(asked, Inpaint):
            options["mask_image"] = job.mask
            if asked.padding_mask_crop is not None:
                options["padding_mask_crop"] = asked.padding_mask_crop
        if self.kind == "FluxKontextPipeline":
            options["max_area"] = asked.width * asked.height
        picture: Image.Image = pipeline(
            prompt=asked.prompt,
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.num_inference_steps,
            generator=torch.Generator("cpu").manual_seed(asked.seed_of(index)),
            **self._guidance(asked),
            **options,
        ).images[0]
        if picture.size != (asked.width, asked.height):  # Qwen-Image-Edit's of masks has its own
            picture = picture.resize((asked.width, asked.height), Image.Resampling.LANCZOS)
        if isinstance(asked, Inpaint) and asked.keep_unmasked and asked.padding_mask_crop is None:
            kept = VaeImageProcessor().apply_overlay(job.mask, job.image, picture)
            picture = kept.convert("RGB")
        return picture

    def _guidance(self, asked: Txt2Img) -> dict[str, Any]:
        """The guidance as the family means it. A scale of 1 or less guides nowhere."""
        scale, negative = asked.guidance_scale, asked.negative_prompt or None
        match self.kind:
            case "FluxPipeline" if not self._loaded.transformer.config.guidance_embeds:
                pass  # schnell, whose transformer reads no scale
            case "FluxPipeline" | "FluxKontextPipeline":  # its transformer reads the scale
                beside = {"negative_prompt": negative, "true_cfg_scale": 2.0}
                return {"guidance_scale": scale} | (beside if negative and scale > 1 else {})
            case "Flux2KleinPipeline" | "Flux2Pipeline":  # klein's against an empty prompt
                return {"guidance_scale": scale}
            case "ZImagePipeline":  # whose 0 is what 1 is elsewhere
                return {"guidance_scale": scale if scale > 1 else 0, "negative_prompt": negative}
        if (
            "true_cfg_scale"
            not in inspect.signature(getattr(diffusers, self.kind).__call__).parameters
        ):
            return {"guidance_scale": scale, "negative_prompt": negative}
        if scale <= 1:  # Qwen's, and schnell's
            return {"true_cfg_scale": 1.0}
        return {"true_cfg_scale": scale, "negative_prompt": negative or " "}


def assert_equal(ours: Image.Image, theirs: Image.Image) -> None:
    """No pixel differs by more than 1/255."""
    assert difference(ours, theirs) <= 1


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest of any value of any pixel; the pictures are of one size."""
    apart = np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    return int(np.abs(apart).max())
