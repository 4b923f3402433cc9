"""Settings stored for each client, for APIs that keep them on the server."""

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
        """The settings of a client; empty if it has none.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.
        """
        with self._database.read() as session:
            row = session.get(ClientOptionsRow, client)
            found: dict[str, Setting] = {} if row is None else json.loads(row.options)
            return found

    def change(self, client: str, changes: Mapping[str, Setting]) -> None:
        """Set some of a client's settings, and keep the others. None removes one.

        Args:
            client: as in `JobRow.client`.
            changes: by name; the caller limits their number and size.

        Raises:
            DatabaseUnavailableError: nothing was written.
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
