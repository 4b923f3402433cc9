"""Work that would hold up an event loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read files, compress pictures or wait for the network in a thread, for others to go on."""
    return await asyncio.to_thread(work, *args, **kwargs)
