"""A process that plans one download, or makes it: `python -m darkroom.ops.pull_process`.

It reads one line of JSON and writes others, see `pull_messages`. It ends when its standard input
does, which web holds open as long as it lives.
"""

import os
import sys
import threading
import traceback
from typing import TextIO

from darkroom.catalog import pulls
from darkroom.catalog.downloads import (
    Download,
    HubError,
    NameTakenError,
    NoRoomError,
    PullError,
)
from darkroom.errors import Message, fault, text_of
from darkroom.ops.pull_messages import Arrived, Asked, Planned, Progress, Refused
from darkroom.requests import Schema

PROGRESS_S = 0.5
NICENESS = 5  # web and pictures come first


def main() -> None:
    """Do what standard input asks for."""
    os.nice(NICENESS)
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints
    asked = Asked.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        download = pulls.look_up(asked.wanted, asked.hubs)
        if asked.action == "plan":
            _say(answers, _planned(download, asked))
        else:
            threading.Thread(target=_tell, args=(download, answers), daemon=True).start()
            download.fetch(lambda _line: None)
            _say(answers, Arrived())
    except PullError as error:
        _say(answers, _refused(error))
    except Exception as error:  # of a library; another try would end alike
        traceback.print_exc()
        _say(answers, Refused(reason="pull", detail=str(fault(error))))


def _planned(download: Download, asked: Asked) -> Planned:
    judged = pulls.judge(download, asked.hubs, asked.workers)
    plan = download.plan
    return Planned(
        pinned=plan.pinned,
        kind=plan.kind,
        name=plan.name,
        title=plan.title,
        target=str(plan.target),
        unfinished=str(plan.unfinished),
        files=plan.files,
        total_bytes=plan.total_bytes,
        family=judged.family,
        lacks=judged.lacks,
        memory_bytes=judged.memory_bytes,
    )


def _refused(error: PullError) -> Refused:
    said = text_of(error)
    coded = {"code": said.code, "values": said.values} if isinstance(said, Message) else {}
    match error:
        case HubError():
            return Refused(reason="hub", detail=str(said), **coded)
        case NoRoomError():
            return Refused(reason="room", detail=str(said), **coded)
        case NameTakenError():
            return Refused(reason="taken", detail=str(said), **coded)
    return Refused(reason="pull", detail=str(said), **coded)


def _tell(download: Download, answers: TextIO) -> None:
    """Say how much has arrived, until the process ends."""
    pause = threading.Event()
    while True:
        _say(answers, Progress(done_bytes=download.plan.here_bytes()))
        pause.wait(PROGRESS_S)


def _say(answers: TextIO, message: Schema) -> None:
    answers.write(message.model_dump_json() + "\n")
    answers.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
