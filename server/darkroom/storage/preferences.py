"""What clients have set for themselves, for APIs that keep settings on the server."""

import json
from collections.abc import Mapping

from darkroom.storage.database import Database
from darkroom.storage.tables import ClientOptionsRow

Setting = str | int | float | bool | None


class Preferences:
    """Settings by client and name, for any number of threads and processes.

    Args:
        database: migrated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, client: str) -> dict[str, Setting]:
        """What a client has set; nothing if it never did."""
        with self._database.read() as session:
            row = session.get(ClientOptionsRow, client)
            found: dict[str, Setting] = {} if row is None else json.loads(row.options)
            return found

    def change(self, client: str, changes: Mapping[str, Setting]) -> None:
        """Set some of a client's settings; the others stay. None goes back to the default.

        Args:
            client: as the queue knows it.
            changes: names and values; the caller sees to it that they are few and small.
        """
        with self._database.write() as session:
            row = session.get(ClientOptionsRow, client)
            known = {} if row is None else json.loads(row.options)
            merged = {
                name: value for name, value in {**known, **changes}.items() if value is not None
            }
            if row is None:
                session.add(ClientOptionsRow(client=client, options=json.dumps(merged)))
            else:
                row.options = json.dumps(merged)
