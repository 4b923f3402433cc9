"""A pool of threads, for what would keep the event loop waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

Taken = ParamSpec("Taken")
Given = TypeVar("Given")


class Threads:
    """So many threads, started as they are needed.

    Args:
        count: of them.
        name: for the logs and for debuggers.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(
        self, function: Callable[Taken, Given], *args: Taken.args, **kwargs: Taken.kwargs
    ) -> Given:
        """Call a function in a thread, with the context variables of here; raises what it does."""
        loop = asyncio.get_running_loop()
        context = copy_context()
        return await loop.run_in_executor(
            self._pool, lambda: context.run(function, *args, **kwargs)
        )

    def close(self) -> None:
        """Begin nothing more. What has begun goes on to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
