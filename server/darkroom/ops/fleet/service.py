"""`darkroom fleet start` and `darkroom join`: keep Ray's processes of a box running."""

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import structlog

from darkroom.config import PREFIX, Settings
from darkroom.ops.fleet import handover, joining, node
from darkroom.ops.fleet.first_box import FirstBoxError, RemovedError
from darkroom.ops.fleet.membership import Membership
from darkroom.ops.supervisor import LOOK_S, Child, end

log = structlog.get_logger()

ASK_EVERY_S = 15.0  # how soon a box knows that Ray's token has changed, or that it was removed
GRACE_S = 15.0  # for Ray's processes to end, on top of what workers get


def run_head(settings: Settings) -> None:
    """Run Ray's head and what manages the workers, until SIGTERM or SIGINT.

    Raises:
        NoRayError: Ray is not installed.
        NoFleetError: the settings are of one box alone.
    """
    node.check()
    handover.check(settings)
    _grant_again(settings)
    words = ["fleet", "manage", "--data-dir", str(settings.data_dir)]

    def children(token: str) -> list[Child]:
        stored = _storage(settings.data_dir / "ray", token)
        given = node.environment(settings, token, settings.fleet.address, stored)
        return [
            Child("ray", node.head_command(settings), variables=given),
            Child("manager", [sys.executable, "-m", "darkroom", *words], variables=given),
        ]

    _keep(settings, children, lambda: handover.ray_token(settings), every_s=1.0)


def _storage(folder: Path, token: str) -> Path:
    """Where Ray's head keeps what it knows: with another token it begins with nothing.

    All nodes start again then, and nothing of the old ones is of use.
    """
    own = folder / hashlib.sha256(token.encode()).hexdigest()[:16]
    for other in folder.glob("*"):
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


def _grant_again(settings: Settings) -> None:
    """Boxes may need more than before an upgrade."""
    from darkroom.storage.boxes import Boxes  # needs psycopg
    from darkroom.storage.database import Database, place_of

    with closing(Database(place_of(settings))) as database:
        Boxes(database).grant_again()


def run_box(settings: Settings, joined: Membership) -> None:
    """Run Ray's node of a box that has joined, until SIGTERM or SIGINT.

    Raises:
        NoRayError: Ray is not installed.
        RemovedError: the first box says that this one was removed.
    """
    node.check()
    joining.check_version(joined.handover)
    known = [joined]

    def ask() -> str:
        """What has to be the same for the node to go on."""
        try:
            known[0] = joining.refresh(settings, known[0])
        except RemovedError:
            raise
        except FirstBoxError as error:  # it goes on with what it knows
            log.warning("the first box cannot be asked", error=str(error))
        return known[0].handover.model_dump_json()

    def children(_told: str) -> list[Child]:
        told = known[0].handover
        command = node.box_command(settings, told.name, known[0].address, told.ray_address)
        given = node.environment(settings, told.ray_token, known[0].address) | told.environment
        given |= {f"{PREFIX}DATA_DIR": str(settings.data_dir)} | _own_choices(told.environment)
        return [Child("ray", command, variables=given)]

    _keep(settings, children, ask, every_s=ASK_EVERY_S)


def _own_choices(told: Mapping[str, str]) -> dict[str, str]:
    """The settings in this box's own environment: they go before those of the first box."""
    return {name: os.environ[name] for name in told if name in os.environ}


def _keep(
    settings: Settings,
    children: Callable[[str], list[Child]],
    ask: Callable[[], str],
    *,
    every_s: float,
) -> None:
    """Keep children running, and start them again when what `ask` says has changed."""
    with _signals() as signals:
        while not signals:
            told = ask()
            running = children(told)
            asked_at = time.monotonic()
            try:
                while not signals:
                    now = time.monotonic()
                    for child in running:
                        child.look(now)
                    if now - asked_at >= every_s:
                        asked_at = now
                        if ask() != told:
                            log.info("what this box was told has changed, starting Ray again")
                            break
                    time.sleep(LOOK_S)
            finally:
                processes = [child.process for child in running if child.process is not None]
                timeout_s = settings.queue.shutdown_timeout_s + GRACE_S
                end(processes, timeout_s, hurries=lambda: len(signals) > 1)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Context with the signals that have come."""
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    yield came
