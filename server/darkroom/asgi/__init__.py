"""The event loop of web: connections, the bridge to Flask, and everything that only waits.

Must not import torch.
"""

from collections.abc import Awaitable, Callable
from typing import Any

# ASGI 3.0, "HTTP & WebSocket ASGI Message Format".
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
