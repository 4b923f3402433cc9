"""Logging: one line per event, as text or as JSON."""

import faulthandler
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


class Lines:
    """A thread-safe logger to an open stream. Lines that cannot be written are dropped."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        with self._lock:
            print_line(message, self._file)

    log = debug = info = warning = error = critical = exception = msg


class _Forward(logging.Handler):
    """Passes the log records of libraries on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def print_line(message: str, file: TextIO | None = None) -> None:
    """Print a line, to standard output by default. A closed or full stream is no error."""
    file = file or sys.stdout
    try:
        file.write(message + "\n")
        file.flush()
    except BrokenPipeError:
        # The rest of the buffer would fail again when Python ends, and make its exit status 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    except (OSError, ValueError):
        pass


def configure(form: Literal["console", "json"], process: str) -> None:
    """Set up logging and crash reports. Every line has the name of this process as a field."""
    _keep_standard_streams()
    faulthandler.enable(file=2)

    def name_process(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
        fields.setdefault("process", process)
        return fields

    rendering: list[Processor]
    if form == "json":
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        rendering = [
            _on_one_line,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    lines = Lines(sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            name_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)
    logging.captureWarnings(True)


def _on_one_line(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Escape unprintable characters: a path or name in a request must not forge log lines."""
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            fields[name] = ascii(value)[1:-1]
    return fields


def _keep_standard_streams() -> None:
    """Open the standard streams that were closed before the start (`2>&-`).

    Otherwise the next file that is opened, such as the database, gets descriptor 2, to which
    libraries write their messages.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
