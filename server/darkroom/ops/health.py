"""Health of web and worker, seen from outside: for container engines and service managers.

Apart from the watchdog, because the worker, which imports that, needs no HTTP.
"""

import time
import urllib.request
from http.client import HTTPException

from darkroom.api.auth import tls
from darkroom.config import Settings
from darkroom.ops import addresses
from darkroom.ops.watchdog import is_beating

ANSWER_S = 5.0


def answers(settings: Settings, path: str) -> bool:
    """Whether the web process of this machine answers a path with 2xx."""
    try:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # no proxy of the environment
            urllib.request.HTTPSHandler(context=tls.client_context(settings)),
        )
        with opener.open(addresses.local_url(settings) + path, timeout=ANSWER_S):
            return True
    except (OSError, HTTPException):
        return False


def web_is_well(settings: Settings) -> bool:
    """Whether web answers; the worker may be down."""
    return answers(settings, "/healthz")


def worker_is_well(settings: Settings) -> bool:
    """Whether the worker has loaded its model and its loop runs, in this container or another."""
    allowed_s = settings.engine.stall_timeout_s + settings.queue.poll_s
    return is_beating(settings.pulse_path, allowed_s, time.monotonic())
