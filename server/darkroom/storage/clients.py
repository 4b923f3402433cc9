"""What is stored about clients: devices, their tokens, pairing codes, and settings."""

import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import structlog
from sqlalchemy import Select, delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from darkroom.errors import DarkroomError
from darkroom.requests import MAX_NAME_CHARS, Scope
from darkroom.responses import Device, Token
from darkroom.storage import totals
from darkroom.storage.database import Database, DatabaseUnavailableError
from darkroom.storage.records import timestamp
from darkroom.storage.tables import (
    ClientOptionsRow,
    DeviceRow,
    JobRow,
    PairingCodeRow,
    TokenRow,
)

log = structlog.get_logger()

Setting = str | int | float | bool | None | list[Any] | dict[str, Any]  # what JSON can say

USED_EVERY_S = 60.0  # resolution of a token's last use
TOKEN_BYTES = 32  # 256 random bits cannot be guessed, so storing a plain digest is safe
JOINS = "join"  # in place of a scope: of a code that lets a machine join the fleet
CODE_LENGTH = 8  # only 40 random bits: a code expires in minutes, and wrong guesses are limited
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
TOKEN_PREFIX = "dk_"
TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")

# Characters that people mistake for others (https://www.crockford.com/base32.html).
_MISREAD = str.maketrans("OIL", "011", "- \t")


def new_code() -> str:
    """A random pairing code in the form shown to people: XXXX-XXXX."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
    return f"{code[:4]}-{code[4:]}"


def read_code(typed: str) -> str | None:
    """The canonical form of a code as typed by a person, or None if it is not a valid code."""
    code = typed.strip().upper().translate(_MISREAD)
    return code if len(code) == CODE_LENGTH and set(code) <= set(ALPHABET) else None


def digest(secret: str) -> str:
    """The SHA-256 of a token or code in hexadecimal, which is what the database stores."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class NameTakenError(DarkroomError):
    """Another device has this name."""


def client_of(device_id: str) -> str:
    """The queue's name of a device."""
    return f"device:{device_id}"


class Tokens:
    """Devices, tokens and pairing codes. Safe to use from any number of threads and processes.

    A device has a name of its own and any number of tokens: each has been given out once, and lets
    in until it is revoked. Nothing is cached, so a revoked token is refused from the next request
    on. Every method raises DatabaseUnavailableError while the database cannot be used. The clock
    gives seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # --- tokens ----------------------------------------------------------------------------

    def create(self, name: str, scope: Scope, device_id: str | None = None) -> tuple[Token, str]:
        """Create a token of a device. Returns its record, and its secret, which is not stored.

        Without an id, a device is made; if the name is taken, it gets a number too.
        """
        with self._database.write() as session:
            return _issue(session, name, scope, self._clock(), device_id)

    def find(self, secret: str) -> Token | None:
        """The valid token with this secret, or None."""
        if not TOKEN.fullmatch(secret):
            return None
        with self._database.read() as session:
            rows = session.execute(_TOKENS.where(TokenRow.digest == digest(secret))).first()
            if rows is None:
                return None
            found, used_at = _record(*rows), rows[0].used_at
        now = self._clock()
        if used_at is None or now - used_at >= USED_EVERY_S:
            self._note_use(found.id, now)
        return found

    def is_good(self, token_id: str) -> bool:
        """Whether a token is still valid; for connections that were authorized earlier."""
        with self._database.read() as session:
            return session.execute(_TOKENS.where(TokenRow.id == token_id)).first() is not None

    def good(self) -> list[Token]:
        """All tokens that are not revoked, oldest first."""
        with self._database.read() as session:
            return [_record(*rows) for rows in session.execute(_TOKENS)]

    def revoke(self, token_id: str) -> Token | None:
        """Revoke a token. Returns its record, or None if there is no valid token of this id."""
        with self._database.write() as session:
            rows = session.execute(_TOKENS.where(TokenRow.id == token_id)).first()
            if rows is None:
                return None
            rows[0].revoked_at = self._clock()
            return _record(*rows)

    def has_owner(self) -> bool:
        """Whether a valid token with the scope `own` exists."""
        return any(token.scope is Scope.OWN for token in self.good())

    def _note_use(self, token_id: str, now: float) -> None:
        try:
            with self._database.write(durable=False) as session:
                session.execute(update(TokenRow).where(TokenRow.id == token_id).values(used_at=now))
        except (SQLAlchemyError, DatabaseUnavailableError) as error:
            # A full disk, for example, must not refuse valid tokens.
            log.warning(
                "the last use of a token could not be recorded", token=token_id, error=str(error)
            )

    # --- devices ---------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """All devices, oldest first, also those without a valid token."""
        with self._database.read() as session:
            return _devices(session)

    def device(self, device_id: str) -> Device | None:
        """The device of this id, or None."""
        with self._database.read() as session:
            return next(iter(_devices(session, device_id)), None)

    def rename(self, device_id: str, name: str) -> Device | None:
        """Rename a device, also in its jobs. Returns it, or None if there is none of this id.

        Raises:
            NameTakenError: another device has this name.
        """
        with self._database.write() as session:
            row = session.get(DeviceRow, device_id)
            if row is None:
                return None
            if name.casefold() in _names(session) - {row.name.casefold()}:
                raise NameTakenError(f"another device is called {name!r}")
            row.name = name
            session.execute(
                update(JobRow).where(JobRow.client == client_of(device_id)).values(client_name=name)
            )
            session.flush()
            return _devices(session, device_id)[0]

    def revoke_all(self, device_id: str) -> bool:
        """Revoke all tokens of a device. Returns whether there is one of this id.

        What it made stays, and another token of it finds that again.
        """
        with self._database.write() as session:
            session.execute(
                update(TokenRow)
                .where(TokenRow.device_id == device_id, TokenRow.revoked_at.is_(None))
                .values(revoked_at=self._clock())
            )
            return session.get(DeviceRow, device_id) is not None

    # --- pairing codes ---------------------------------------------------------------------

    def new_code(
        self, scope: Scope, lifetime_s: float, device_id: str | None = None
    ) -> tuple[str, float]:
        """Create a pairing code, for another token of a device or, without an id, a new device.

        Returns:
            The code, and when it expires, in seconds since the epoch.
        """
        return self._add_code(scope, lifetime_s, device_id)

    def new_join_code(self, lifetime_s: float) -> tuple[str, float]:
        """Create a code that lets a machine join the fleet, see `boxes.Boxes.join`.

        It pairs no device, and a pairing code lets no machine join.
        """
        return self._add_code(JOINS, lifetime_s, None)

    def _add_code(self, grants: str, lifetime_s: float, device_id: str | None) -> tuple[str, float]:
        code = new_code()
        with self._database.write() as session:
            now = self._clock()
            expires_at = now + lifetime_s
            _prune(session, now)
            stored = digest(code.replace("-", ""))
            session.add(
                PairingCodeRow(
                    digest=stored,
                    device_id=device_id,
                    scope=grants,
                    created_at=now,
                    expires_at=expires_at,
                )
            )
            return code, expires_at

    def redeem(self, code: str, name: str) -> tuple[Token, str] | None:
        """Exchange a code for a token and its secret; None if it is wrong, used or expired.

        The code is deleted in the same transaction, so it gives one token even when several
        devices send it at the same time. A device that the code was made for keeps its name.
        """
        plain = read_code(code)
        if plain is None:
            return None
        with self._database.write() as session:
            now = self._clock()
            _prune(session, now)
            found = session.execute(
                delete(PairingCodeRow)
                .where(PairingCodeRow.digest == digest(plain), PairingCodeRow.scope != JOINS)
                .returning(PairingCodeRow.scope, PairingCodeRow.device_id)
            ).first()
            if found is None:
                return None
            return _issue(session, name, Scope(found.scope), now, found.device_id)

    def drop_codes(self) -> None:
        """Delete all pairing codes."""
        with self._database.write() as session:
            session.execute(delete(PairingCodeRow))


def redeem_join_code(session: Session, code: str, now: float) -> bool:
    """Delete a code that lets a machine join; whether it was right, unused and not expired.

    If the transaction is rolled back, the code stays valid.
    """
    plain = read_code(code)
    if plain is None:
        return False
    _prune(session, now)
    wanted = delete(PairingCodeRow).where(
        PairingCodeRow.digest == digest(plain), PairingCodeRow.scope == JOINS
    )
    return session.execute(wanted.returning(PairingCodeRow.digest)).first() is not None


# Valid tokens and their devices.
_TOKENS: Select[TokenRow, DeviceRow] = (
    select(TokenRow, DeviceRow)
    .join(DeviceRow, DeviceRow.id == TokenRow.device_id)
    .where(TokenRow.revoked_at.is_(None))
    .order_by(TokenRow.created_at)
)


def _issue(
    session: Session, name: str, scope: Scope, now: float, device_id: str | None
) -> tuple[Token, str]:
    if device_id is not None:
        device = session.get_one(DeviceRow, device_id)
    else:
        taken = _names(session)
        free = next(found for found in _numbered(name) if found.casefold() not in taken)
        device = DeviceRow(id=secrets.token_hex(6), name=free, created_at=now)
        session.add(device)
        session.flush()
    secret = f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"  # 43 characters of base64url
    row = TokenRow(
        id=secrets.token_hex(6),
        device_id=device.id,
        scope=scope,
        digest=digest(secret),
        created_at=now,
    )
    session.add(row)
    session.flush()
    return _record(row, device), secret


def _names(session: Session) -> set[str]:
    """The names of all devices. People take names that differ in case only for one."""
    return {name.casefold() for name in session.scalars(select(DeviceRow.name))}


def _numbered(name: str) -> Iterator[str]:
    """A name, and the same with 2, 3 and so on."""
    yield name
    for number in itertools.count(2):
        end = f" {number}"
        yield name[: MAX_NAME_CHARS - len(end)].rstrip() + end


def _devices(session: Session, device_id: str | None = None) -> list[Device]:
    """The device of this id, or all devices, oldest first."""
    query = select(DeviceRow).order_by(DeviceRow.created_at, DeviceRow.id)
    tokens = select(TokenRow).order_by(TokenRow.created_at)
    if device_id is not None:
        query = query.where(DeviceRow.id == device_id)
        tokens = tokens.where(TokenRow.device_id == device_id)
    counts = totals.read(session).jobs_of
    of_device: dict[str, list[TokenRow]] = {}
    for token in session.scalars(tokens):
        of_device.setdefault(token.device_id, []).append(token)
    return [
        _device(row, of_device[row.id], counts.get(client_of(row.id), 0))
        for row in session.scalars(query)
    ]


def _device(row: DeviceRow, tokens: Sequence[TokenRow], jobs: int) -> Device:
    """A device by its tokens, oldest first: it has one at least, perhaps a revoked one."""
    used = [token.used_at for token in tokens if token.used_at is not None]
    return Device(
        id=row.id,
        client_id=client_of(row.id),
        name=row.name,
        scope=Scope(tokens[-1].scope),
        created_at=timestamp(row.created_at),
        used_at=timestamp(max(used)) if used else None,
        jobs=jobs,
        tokens=tuple(_record(token, row) for token in tokens if token.revoked_at is None),
    )


def _prune(session: Session, now: float) -> None:
    session.execute(delete(PairingCodeRow).where(PairingCodeRow.expires_at <= now))


def _record(row: TokenRow, device: DeviceRow) -> Token:
    return Token(
        id=row.id,
        device=device.id,
        name=device.name,
        scope=Scope(row.scope),
        created_at=timestamp(row.created_at),
        used_at=None if row.used_at is None else timestamp(row.used_at),
    )


class Preferences:
    """Settings by client and name, for APIs that keep them on the server.

    Safe to use from any number of threads and processes. Both methods raise
    DatabaseUnavailableError while the database cannot be used; nothing was written then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, client: str) -> dict[str, Setting]:
        """The settings of a client; empty if it has none."""
        with self._database.read() as session:
            row = session.get(ClientOptionsRow, client)
            found: dict[str, Setting] = {} if row is None else json.loads(row.options)
            return found

    def change(self, client: str, changes: Mapping[str, Setting]) -> None:
        """Set some of a client's settings, and keep the others. None removes one.

        The caller limits their number and size.
        """
        with self._database.write() as session:
            row = session.get(ClientOptionsRow, client)
            merged = ({} if row is None else json.loads(row.options)) | dict(changes)
            kept = {name: value for name, value in merged.items() if value is not None}
            session.merge(ClientOptionsRow(client=client, options=json.dumps(kept)))
