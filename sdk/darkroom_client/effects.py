"""Time and chance, so that tests can hold them."""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


def _new_key() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Effects:
    """What a client takes from the world beside the network.

    Attributes:
        clock: seconds, never going back.
        sleep: for so many seconds.
        chance: uniform from 0 to 1.
        new_key: never the same twice, for any caller.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    new_key: Callable[[], str] = _new_key


@dataclass(frozen=True)
class AsyncEffects:
    """The same for an asynchronous client, whose pauses let others work."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    new_key: Callable[[], str] = _new_key
