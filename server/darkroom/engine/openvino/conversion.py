"""Converts models for OpenVINO beside the engine's loop, and keeps what it made between starts."""

import fcntl
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
import torch

from darkroom.catalog.model_entry import ModelEntry, NumberBytes
from darkroom.engine.openvino.network import Examples, Files, Network, Wanted

log = structlog.get_logger()

FORMAT = 1  # of the files; another one is converted anew
COMMAND = (sys.executable, "-m", "darkroom.engine.openvino.convert")
PARTS = ("unet", "decoder", "encoder")
USED = "used"  # its time of change is when a model's networks were last opened
UNFINISHED = ".tmp"
REASON_CHARS = 300
NICENESS = 19  # pictures come first
GIB = 2**30
FLOATS = NumberBytes(unet=4, transformer=4)  # the weights are written in float32
SPARE_BYTES = 2 * GIB  # of the disk, for pictures


class Cache:
    """A folder of converted models, one folder each.

    Several workers may share it: its lock is held while one converts or opens a model.

    Args:
        max_bytes: what it keeps at most, besides the model that was used last.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, entry: ModelEntry) -> Path:
        """Where a model's networks are, or will be; another place when a file of it changes."""
        parts = (part.path for part in entry.parts.values())
        roots = {entry.path, entry.config, *parts, *filter(None, [entry.vae])}
        files = sorted({file for root in roots for file in (root, *root.rglob("*"))})
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        libraries = [version(name) for name in ("openvino", "torch", "diffusers")]
        said = json.dumps([FORMAT, libraries, stamps]).encode()
        return self._folder / f"{entry.info.name}-{hashlib.sha256(said).hexdigest()[:16]}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def add(self, path: Path, entry: ModelEntry, examples: Examples) -> None:
        """Convert a model in a process of its own; the lock is held.

        Raises:
            OSError: there is no room, or it did not end well, with the end of what it wrote.
        """
        for left in self._folder.glob(f"*{UNFINISHED}"):
            shutil.rmtree(left)
        parts = entry.expected_parts(FLOATS)
        needed, free = parts["unet"] + parts["vae"], shutil.disk_usage(self._folder).free
        if free < needed + SPARE_BYTES:
            raise OSError(
                f"it takes {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free on the disk"
            )
        with tempfile.TemporaryDirectory(dir=self._folder, suffix=UNFINISHED) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            _run(Wanted(entry, examples, made, NICENESS))
            (made / USED).touch()
            made.rename(path)
        self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        """Delete the models that were not used for longest, until what is left may stay."""
        others = [mark.parent for mark in self._folder.glob(f"*/{USED}") if mark.parent != newest]
        others.sort(key=lambda path: (path / USED).stat().st_mtime_ns)
        taken = sum(map(_bytes, (newest, *others)))
        for path in others:
            if taken <= self._max_bytes:
                return
            taken -= _bytes(path)
            shutil.rmtree(path)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _run(wanted: Wanted) -> None:
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        try:
            pickle.dump(wanted, process.stdin)
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it says why below
        said = process.stderr.read()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"exit status {process.returncode}"
        raise OSError(why[-REASON_CHARS:])


class Conversion:
    """The networks of one loaded model in OpenVINO's form, as soon as they are there.

    The attributes named like `PARTS` are None until then. Nothing that goes wrong here ends a job:
    torch computes what OpenVINO does not.

    Args:
        dtype: of the computation.
        unet: whether the UNet is wanted, too.
    """

    def __init__(
        self, cache: Cache, entry: ModelEntry, dtype: torch.dtype, *, unet: bool = True
    ) -> None:
        self.unet: Network | None = None
        self.decoder: Network | None = None
        self.encoder: Network | None = None
        self._cache = cache
        self._entry = entry
        self._dtype = dtype
        self._wants_unet = unet
        self._examples: Examples | None = None
        self._begun = False

    def expect(self, call: Mapping[str, Any], latents: torch.Tensor, pixels: torch.Tensor) -> None:
        """Say how the model is called, by examples. What was converted before is opened now."""
        self._examples = Examples(call if self._wants_unet else None, latents, pixels)
        if self._cache.path(self._entry).is_dir():
            self.begin()

    def begin(self) -> None:
        """Have the model converted, if that was not asked for yet; returns at once."""
        if self._begun or self._examples is None:
            return
        self._begun = True
        # A daemon, so that nobody waits for it when the worker ends.
        threading.Thread(target=self._work, args=(self._examples,), daemon=True).start()

    def drop(self, part: str, error: Exception) -> None:
        """Leave a network to torch from now on, because it failed."""
        setattr(self, part, None)
        self._tell(error)

    def _work(self, examples: Examples) -> None:
        try:
            path = self._cache.path(self._entry)
            with self._cache.locked():
                if not path.is_dir():
                    self._cache.add(path, self._entry, examples)
                networks = self._open(path)
        except Exception as error:  # of the disk, of the process, of OpenVINO
            self._tell(error)
            return
        for part, network in networks.items():
            setattr(self, part, network)
        log.info("OpenVINO computes the model", model=self._entry.info.name)

    def _open(self, path: Path) -> dict[str, Network]:
        """The model's networks; what cannot be opened is deleted, to be made anew."""
        try:
            (path / USED).touch()
            return {
                part: Network(Files(path, part), self._dtype)
                for part in PARTS
                if part != "unet" or self._wants_unet
            }
        except Exception:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _tell(self, error: Exception) -> None:
        name = self._entry.info.name
        log.warning("torch computes the model, not OpenVINO", model=name, reason=str(error))


class Part(torch.nn.Module):
    """A part of a VAE that OpenVINO computes where it can.

    Args:
        plain: torch's.
        name: among `PARTS`.

    Attributes:
        exact: whether torch computes the next calls.
    """

    def __init__(self, plain: torch.nn.Module, conversion: Conversion, name: str) -> None:
        super().__init__()
        self.plain = plain
        self.exact = False
        self._conversion = conversion
        self._name = name

    def forward(self, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        network: Network | None = getattr(self._conversion, self._name)
        given = any(argument is not None for argument in rest)
        # A VAE that overflowed in half precision is in float32 since.
        if network is not None and not (self.exact or given) and sample.dtype == network.dtype:
            try:
                return network(sample=sample)[0]
            except (RuntimeError, MemoryError) as error:
                self._conversion.drop(self._name, error)
        computed: torch.Tensor = self.plain(sample, *rest)
        return computed
