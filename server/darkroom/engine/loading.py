"""Loads a diffusers pipeline from disk; every failure is one error with the reason."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import SafetensorError
from safetensors.torch import load_file

from darkroom.catalog import folders
from darkroom.catalog.families import UNETS
from darkroom.catalog.model_entry import TRANSFORMER, ModelEntry
from darkroom.engine import errors, part_files, processors, tokenizers
from darkroom.engine.errors import Kind
from darkroom.errors import DarkroomError, Message, message

MAX_REASON_CHARS = 300
READ_AHEAD_BYTES = 2**24  # at a time
ALIGNMENT = 64  # bytes
DENOISERS = folders.DENOISERS


class ModelLoadError(DarkroomError, OSError):
    """A model cannot be loaded; `reason` is for the operator."""

    def __init__(self, name: str, reason: str) -> None:
        said = message("model_load", "model {name!r}: {reason}", name=name, reason=reason)
        super().__init__(said.told_by(reason))
        self.name = name
        self.reason = reason


def load_pipeline(
    entry: ModelEntry,
    device: torch.device,
    dtype: torch.dtype,
    gate: AbstractContextManager[object] = nullcontext(),  # noqa: B008
    *,
    waits: Callable[[str], bool] = lambda _part: False,
    fuse_qkv: bool = False,
    storage: torch.dtype | None = None,
) -> Any:
    """Load all parts of a model, from safetensors only and without a network.

    While diffusers and transformers build a network, they change what holds for the whole process:
    torch's default dtype, and how modules register and initialize parameters. The engine makes no
    call meanwhile. Reading from disk and moving to the accelerator, which take longest, go on
    beside its calls.

    Args:
        gate: is held while networks are built.
        waits: whether a part, by its name, stays in the CPU's memory.
        fuse_qkv: compute query, key and value of a UNet's attention layers in one product.
        storage: dtype in which the denoiser's weights are kept; None for that of the computation.
            Norms and embeddings, which are small and need the precision, keep that one.

    The class fits the model: text to picture where it can do that, repainting for a UNet that
    reads a mask, picture to picture for a refiner.

    Raises:
        ModelLoadError: whatever is wrong with its files.
        torch.OutOfMemoryError: it does not fit.
    """
    with _errors_named(entry):
        _read_ahead(entry)
        with gate:
            pipeline = _load(entry, dtype)
        if fuse_qkv and entry.spec.family in UNETS:
            pipeline.unet.fuse_qkv_projections()
        for name, part in pipeline.components.items():
            if storage is not None and name in DENOISERS and not _is_quantised(part):
                part.enable_layerwise_casting(storage_dtype=storage, compute_dtype=dtype)
            if isinstance(part, torch.nn.Module) and not waits(name):
                part.to(device)
                _align(part)
        return pipeline


def load_tiny_vae(
    entry: ModelEntry, device: torch.device, dtype: torch.dtype
) -> AutoencoderTiny | None:
    """Load the small VAE that the owner's notes name; None if they name none.

    Raises:
        ModelLoadError: it cannot be read, or is none.
        torch.OutOfMemoryError: it does not fit.
    """
    path = entry.tiny_vae
    if path is None:
        return None
    with _errors_named(entry, f"its tiny VAE {path.name}: "):
        if path.is_dir():
            vae: Any = AutoencoderTiny.from_pretrained(
                path, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        else:
            vae = AutoencoderTiny()  # its defaults are those of TAESD
            vae.load_state_dict(load_file(path))
        _check_filled(entry, "tiny_vae", vae)
        small: AutoencoderTiny = vae.eval().to(device, dtype)
        return small


def _read_ahead(entry: ModelEntry) -> None:
    """Read the weights once, so that they come from the system's cache when they are loaded."""
    files = sorted({entry.path, *(part.path for part in entry.parts.values())})
    if entry.layout == "folder":
        files = sorted(entry.path.rglob("*.safetensors"))
    buffer = bytearray(READ_AHEAD_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


@contextmanager
def _errors_named(entry: ModelEntry, part: str = "") -> Iterator[None]:
    """Turn the libraries' exceptions into `ModelLoadError`, but for those of memory."""
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        if errors.classify(error) in (Kind.LOST_CONTEXT, Kind.MEMORY):
            raise
        # Damaged files make the libraries stumble wherever they happen to: KeyError for a tensor
        # that is missing, ValueError for a shape, SafetensorError, JSONDecodeError, …
        reason = _reason(entry, error)
        raise ModelLoadError(entry.info.name, part + reason if part else reason) from error


def _load(entry: ModelEntry, dtype: torch.dtype) -> Any:
    cls: Any = getattr(diffusers, entry.spec.pipeline)
    parts, options = cls._get_signature_keys(cls)
    expected = {*parts, *options}
    given: dict[str, Any] = dict.fromkeys(folders.absent(entry.config))
    if entry.spec.family in UNETS:
        given |= {name: None for name in folders.UNUSED if name in expected}
    if "requires_safety_checker" in expected:
        given["requires_safety_checker"] = False
    if entry.vae is not None:
        given["vae"] = _vae(entry, entry.vae, dtype)
    given |= {"dtype": dtype, "local_files_only": True}
    if entry.layout == "folder":
        ours = processors.load(entry)
        given |= _encoders(entry, dtype) | dict.fromkeys(ours)
        if entry.quantize is not None:
            given[TRANSFORMER] = _quantised(entry, dtype)
        pipeline = cls.from_pretrained(
            entry.path, variant=entry.variant, use_safetensors=True, **given
        )
        pipeline.register_modules(**ours)
    elif entry.layout == "parts":
        given |= _tokenizers(entry) | part_files.load(entry, dtype)
        pipeline = cls.from_pretrained(entry.config, **given)
    else:
        given |= _tokenizers(entry)
        if entry.scaled:
            given["unet"] = part_files.scaled_unet(entry, dtype)
        pipeline = cls.from_single_file(str(entry.path), config=str(entry.config), **given)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            _check_filled(entry, name, part)
    unet, vae = pipeline.components.get("unet"), pipeline.components.get("vae")
    if unet is not None and vae is not None:
        has, needs = vae.config.latent_channels, unet.config.out_channels
        if has != needs:
            reason = message(
                "vae_channels",
                "its VAE has {has} latent channels, its UNet {needs}",
                has=has,
                needs=needs,
            )
            raise ModelLoadError(entry.info.name, reason)
    if entry.scheduler:
        pipeline.scheduler = _retrained(pipeline.scheduler, entry.scheduler)
    return pipeline


def _align(part: torch.nn.Module) -> None:
    """Move weights on the CPU to where its kernels want them.

    They lie where they lay in the file, and products of one row are rounded otherwise there: the
    same weights in another file would draw another picture.
    """
    for weight in part.parameters():
        plain = type(weight) is torch.nn.Parameter and weight.device.type == "cpu"
        if plain and weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()


def _is_quantised(part: Any) -> bool:
    """Whether a network's weights are in fewer bits already."""
    return getattr(part, "hf_quantizer", None) is not None


def _quantised(entry: ModelEntry, dtype: torch.dtype) -> Any:
    """The transformer of a folder, quantised while it is loaded."""
    assert entry.quantize is not None
    class_name = folders.parts(entry.path, entry.spec.family)[TRANSFORMER]
    part = entry.path / TRANSFORMER
    has_variant = any(f".{entry.variant}" in file.name for file in part.iterdir())
    cls: Any = getattr(diffusers, class_name)
    return cls.from_pretrained(
        part,
        dtype=dtype,
        variant=entry.variant if has_variant else None,
        use_safetensors=True,
        local_files_only=True,
        quantization_config=part_files.quantization(entry.quantize),
    )


def _encoders(entry: ModelEntry, dtype: torch.dtype) -> dict[str, Any]:
    """The parts that are transformers' models.

    Loaded here, because transformers fills what is missing with random numbers and only tells
    the callers.
    """
    found = {}
    for name, class_name in folders.parts(entry.path, entry.spec.family).items():
        cls: Any = getattr(transformers, class_name, None)
        if transformers.PreTrainedModel not in getattr(cls, "__mro__", ()):
            continue
        part = entry.path / name
        has_variant = any(f".{entry.variant}" in file.name for file in part.iterdir())
        model, report = cls.from_pretrained(
            part,
            dtype=dtype,
            variant=entry.variant if has_variant else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise ModelLoadError(entry.info.name, _lacks(name, sorted(report["missing_keys"])))
        found[name] = model
    return found


def _tokenizers(entry: ModelEntry) -> dict[str, Any]:
    """Tokenizers of a single file whose configuration has no vocabulary of its own."""
    found = {}
    for name, class_name in folders.parts(entry.config, entry.spec.family).items():
        folder = entry.config / name
        bare = not any((folder / file).is_file() for file in folders.TOKENIZER_FILES)
        if bare and class_name in tokenizers.CARRIED:
            found[name] = tokenizers.carried(class_name, folder)
    return found


def _vae(entry: ModelEntry, path: Path, dtype: torch.dtype) -> Any:
    """The VAE that replaces the model's own; a single file takes the own one's configuration."""
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    if path.is_dir():
        vae = AutoencoderKL.from_pretrained(path, use_safetensors=True, **options)
    else:
        options |= {"config": str(entry.config), "subfolder": "vae"}
        vae = AutoencoderKL.from_single_file(str(path), **options)
    _check_filled(entry, f"VAE {path.name}", vae)
    return vae


def _check_filled(entry: ModelEntry, name: str, part: torch.nn.Module) -> None:
    """diffusers leaves what no file filled without memory, and fails when it is first used."""
    empty = sorted(key for key, value in part.named_parameters() if value.is_meta)
    if empty:
        raise ModelLoadError(entry.info.name, _lacks(name, empty))


def _retrained(scheduler: Any, said: Any) -> Any:
    """The scheduler with what is said of the model's training over its configuration.

    Values that stand there by default are left out: diffusers does not hand them on to a
    scheduler of another class, and would leave out what is said with them.
    """
    config = dict(scheduler.config)
    by_default = config.pop("_use_default_values", ())
    kept = {key: value for key, value in config.items() if key not in by_default}
    return type(scheduler).from_config({**kept, **said})


def _lacks(part: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more tensors" if len(keys) > 1 else ""
    text = f"its part {part} lacks {keys[0]}{more}"
    return Message(text, "part_lacks", {"part": part, "tensor": keys[0], "count": len(keys)})


def _reason(entry: ModelEntry, error: BaseException) -> str:
    """What an exception of the libraries means, without this machine's paths."""
    hint = ""
    if entry.layout != "folder":
        hint = "; if it is whole, it is of unusual size and needs a `config` in its notes"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SafetensorError):
            said = "its weights are cut short or damaged ({cause})"
            return message("weights_damaged", said, cause=str(cause))
        cause = cause.__cause__ or cause.__context__
    if "meta tensor" in str(error):  # how diffusers says that no file filled it
        return Message(
            f"its weights lack tensors that its configuration asks for{hint}", "weights_lack"
        )
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    for path in (entry.path, entry.config):
        text = text.replace(f"{path.parent}/", "")
    if isinstance(error, KeyError):
        text = f"it lacks {text}"
    return text[:MAX_REASON_CHARS] + (hint if "shape" in text else "")
