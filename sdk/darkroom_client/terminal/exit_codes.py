"""Exit codes for scripts, and error messages for people."""

import functools
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import click

from darkroom_client.core.errors import (
    APIError,
    ConnectionFailedError,
    DarkroomError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    WaitTimeoutError,
)
from darkroom_client.terminal.plain import plain

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit statuses. 2 is also what a wrong command line ends with."""

    FAILED = 1
    INVALID = 2
    NOT_REACHED = 3
    DENIED = 4
    NOT_FOUND = 5
    BUSY = 6
    TIMEOUT = 124
    INTERRUPTED = 130


STATUSES: tuple[tuple[type[DarkroomError], Exit], ...] = (
    (InvalidRequestError, Exit.INVALID),
    (PermissionDeniedError, Exit.DENIED),
    (NotFoundError, Exit.NOT_FOUND),
    (RateLimitedError, Exit.BUSY),
    (ServerError, Exit.BUSY),
    (ConnectionFailedError, Exit.NOT_REACHED),
    (WaitTimeoutError, Exit.TIMEOUT),
)


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C, after what it means for jobs is settled. The message says it."""


def status_of(error: DarkroomError) -> Exit:
    """The exit status of an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), Exit.FAILED)


def print_note(message: str) -> None:
    """Print a line for people on standard error, apart from the answers."""
    click.echo(plain(message), err=True)


def report(error: DarkroomError) -> None:
    """Say what went wrong, and with which field."""
    print_note(f"darkroom-client: {error}")
    if isinstance(error, APIError):
        for field in error.errors:
            print_note(f"  {field.pointer.removeprefix('#/')}: {field.detail}")
    if isinstance(error, PermissionDeniedError) and error.status == 401:
        print_note(
            "  `darkroom pair` on the server prints a code; then: darkroom-client pair URL-OR-CODE"
        )
    if isinstance(error, ConnectionFailedError):
        print_note("  is it the right address? `darkroom-client discover` looks for servers")


def with_exit_code(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command its exit statuses."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except DarkroomError as error:
            report(error)
            raise click.exceptions.Exit(status_of(error)) from error
        except BrokenPipeError:
            raise  # the reader of the answers has ended; click ends quietly
        except (ValueError, TypeError, ImportError) as error:
            print_note(f"darkroom-client: {error}")
            raise click.exceptions.Exit(Exit.INVALID) from error
        except OSError as error:
            print_note(f"darkroom-client: {error}")
            raise click.exceptions.Exit(Exit.FAILED) from error
        except Interrupted as error:
            print_note(str(error))
            raise click.exceptions.Exit(Exit.INTERRUPTED) from error
        except KeyboardInterrupt as error:
            print_note("interrupted")
            raise click.exceptions.Exit(Exit.INTERRUPTED) from error

    return run
