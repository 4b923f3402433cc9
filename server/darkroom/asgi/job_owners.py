"""Whose jobs are whose, asked once."""

import threading
from collections import OrderedDict
from collections.abc import Set

from darkroom.queue.store import Store

MAX_REMEMBERED = 4096


class Owners:
    """The clients of jobs, which never change. Any thread may ask.

    Args:
        store: knows them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, job_ids: Set[str]) -> dict[str, str]:
        """The client of each job; jobs that are no more are left out."""
        with self._lock:
            found = {job_id: self._known[job_id] for job_id in job_ids & self._known.keys()}
        missing = set(job_ids - found.keys())
        if missing:
            asked = self._store.owners(missing)
            found |= asked
            with self._lock:
                self._known |= asked
                while len(self._known) > MAX_REMEMBERED:
                    self._known.popitem(last=False)
        return found
