"""Keys that all web processes of a queue have in common.

Each keeps its keys in its data folder. Where the database is elsewhere, web processes may have data
folders of their own. There the database has each key too: that of the first one who needed it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import select, text

from darkroom.config import Settings
from darkroom.storage.database import Database
from darkroom.storage.files import write_key
from darkroom.storage.tables import SecretRow

Agree = Callable[[Path, bytes], bytes]


def alone(_path: Path, own: bytes) -> bytes:
    """The key itself: nobody else has another."""
    return own


def agreement(settings: Settings, database: Database) -> Agree:
    """A function of a key's file and its contents, which gives the key that all have."""
    return alone if settings.storage.database_url is None else partial(agree, database)


def agree(database: Database, path: Path, own: bytes) -> bytes:
    """The database's key; it is this one if there was none. The file has it afterwards.

    Raises:
        DatabaseUnavailableError: it cannot be asked now.
        OSError: the file cannot be written.
    """
    wanted = select(SecretRow.value).where(SecretRow.name == path.name)
    kept = text("INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING")
    with database.read() as session:
        key = session.scalar(wanted)
    if key is None:
        with database.write() as session:
            session.execute(kept, {"name": path.name, "value": own})
            key = session.scalars(wanted).one()
    if key != own:
        write_key(path, key)
    return key
