"""First-block cache: most steps of a transformer end after its first block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import count
from typing import Any

from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.first_block_cache import (
    _FBC_LEADER_BLOCK_HOOK,
    FBCHeadBlockHook,
    FirstBlockCacheConfig,
    apply_first_block_cache,
)
from diffusers.hooks.hooks import CacheContext, HookRegistry, _set_cache_context

from darkroom.engine.adapters import LoraSet
from darkroom.engine.calls import Applied

WHOLE = "whole"


class BlockCache:
    """Skips the blocks behind the first one at steps where its output has hardly changed.

    What they added to it at an earlier step is added again
    (https://github.com/chengzeyi/ParaAttention, "First Block Cache"). diffusers' hooks do that, and
    keep what a sequence of calls needs under a name. Each sample has names of its own, so what it
    gets does not depend on its company; calls of several samples are not joined.

    Args:
        network: a transformer of diffusers; its blocks get hooks for good.
        threshold: of the mean change of the first block's output, relative to its size.

    Raises:
        ValueError: diffusers does not know this transformer's blocks.
    """

    def __init__(self, network: Any, threshold: float) -> None:
        head = _check(network)
        self._network = network
        apply_first_block_cache(network, FirstBlockCacheConfig(threshold=threshold))
        HookRegistry.check_if_exists_or_initialize(network).invalidate_child_registries_cache()
        hook = HookRegistry.check_if_exists_or_initialize(head).get_hook(_FBC_LEADER_BLOCK_HOOK)
        assert isinstance(hook, FBCHeadBlockHook)
        self._kept: dict[str, Any] = hook.state_manager._state_cache

    def sequence(self, name: str, rows: int, applied: Applied) -> Applied:
        """`applied` for one step of a sample: each part of its call goes on where it was.

        Args:
            name: of the sample, and of the kind of this call.
            rows: a call may have; where that changes from step to step, nothing is skipped.
        """
        parts = count()
        return lambda loras: self._named(f"{name} {rows} {next(parts)}", loras, applied)

    def whole(self, applied: Applied) -> Applied:
        """`applied` for calls of which nothing is skipped or kept."""

        @contextmanager
        def made(loras: Sequence[LoraSet]) -> Iterator[None]:
            try:
                with self._named(WHOLE, loras, applied):
                    yield
            finally:
                self.forget(WHOLE)

        return made

    def forget(self, name: str) -> None:
        """Free what is kept for a sample."""
        for known in [known for known in self._kept if known.startswith(name)]:
            del self._kept[known]

    @contextmanager
    def _named(self, name: str, loras: Sequence[LoraSet], applied: Applied) -> Iterator[None]:
        _set_cache_context(self._network, CacheContext(name))
        try:
            with applied(loras):
                yield
        finally:
            _set_cache_context(self._network, None)


def _check(network: Any) -> Any:
    """The first block. ValueError if the cache would not work with one of them."""
    blocks = [
        block
        for name, part in network.named_children()
        if name in _ALL_TRANSFORMER_BLOCK_IDENTIFIERS
        for block in part
    ]
    if len(blocks) < 2:
        raise ValueError("it has too few blocks")
    if not all("hidden_states" in signature(block.forward).parameters for block in blocks):
        raise ValueError("diffusers cannot skip its blocks")  # Z-Image
    if getattr(blocks[-1], "context_pre_only", False):  # Stable Diffusion 3
        raise ValueError("its last block gives no text")
    known = [TransformerBlockRegistry.get(type(block)) for block in blocks]
    if len({block.return_encoder_hidden_states_index is None for block in known}) > 1:
        # As FLUX.2's: what the hooks keep of the first block does not fit the last one's output.
        raise ValueError("its first and last blocks give different outputs")
    return blocks[0]
