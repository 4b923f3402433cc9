"""What is stored about clients: tokens, pairing codes to exchange for them, and settings."""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import sha256

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from darkroom.requests import Scope
from darkroom.responses import Token
from darkroom.storage.database import Database, DatabaseUnavailableError
from darkroom.storage.records import timestamp
from darkroom.storage.tables import ClientOptionsRow, PairingCodeRow, TokenRow

log = structlog.get_logger()

Setting = str | int | float | bool | None

USED_EVERY_S = 60.0  # resolution of a token's last use
TOKEN_BYTES = 32  # 256 random bits cannot be guessed, so storing a plain digest is safe
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


class Tokens:
    """Tokens in the database. Safe to use from any number of threads and processes.

    Nothing is cached, so a revoked token is refused from the next request on. Every method raises
    DatabaseUnavailableError while the database cannot be used. The clock gives seconds since the
    epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # --- tokens ----------------------------------------------------------------------------

    def create(self, name: str, scope: Scope) -> tuple[Token, str]:
        """Create a token. Returns its record, and its secret, which is not stored."""
        with self._database.write() as session:
            return _issue(session, name, scope, self._clock())

    def find(self, secret: str) -> Token | None:
        """The valid token with this secret, or None."""
        if not TOKEN.fullmatch(secret):
            return None
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.digest == digest(secret), _GOOD))
            if row is None:
                return None
            found, used_at = _record(row), row.used_at
        now = self._clock()
        if used_at is None or now - used_at >= USED_EVERY_S:
            self._note_use(found.id, now)
        return found

    def is_good(self, token_id: str) -> bool:
        """Whether a token is still valid; for connections that were authorized earlier."""
        with self._database.read() as session:
            found = session.scalar(select(TokenRow.id).where(TokenRow.id == token_id, _GOOD))
            return found is not None

    def good(self) -> list[Token]:
        """All tokens that are not revoked, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(select(TokenRow).where(_GOOD).order_by(TokenRow.created_at))
            return [_record(row) for row in rows]

    def revoke(self, token_id: str) -> Token | None:
        """Revoke a token. Returns its record, or None if there is no valid token of this id."""
        with self._database.write() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.id == token_id, _GOOD))
            if row is None:
                return None
            row.revoked_at = self._clock()
            return _record(row)

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

    # --- pairing codes ---------------------------------------------------------------------

    def new_code(self, scope: Scope, lifetime_s: float) -> tuple[str, float]:
        """Create a pairing code. Returns it, and when it expires, in seconds since the epoch."""
        code = new_code()
        with self._database.write() as session:
            now = self._clock()
            expires_at = now + lifetime_s
            _prune(session, now)
            stored = digest(code.replace("-", ""))
            session.add(
                PairingCodeRow(digest=stored, scope=scope, created_at=now, expires_at=expires_at)
            )
            return code, expires_at

    def redeem(self, code: str, name: str) -> tuple[Token, str] | None:
        """Exchange a code for a token and its secret; None if it is wrong, used or expired.

        The code is deleted in the same transaction, so it gives one token even when several
        devices send it at the same time.
        """
        plain = read_code(code)
        if plain is None:
            return None
        with self._database.write() as session:
            now = self._clock()
            _prune(session, now)
            scope = session.scalar(
                delete(PairingCodeRow)
                .where(PairingCodeRow.digest == digest(plain))
                .returning(PairingCodeRow.scope)
            )
            return None if scope is None else _issue(session, name, Scope(scope), now)

    def drop_codes(self) -> None:
        """Delete all pairing codes."""
        with self._database.write() as session:
            session.execute(delete(PairingCodeRow))


_GOOD = TokenRow.revoked_at.is_(None)


def _issue(session: Session, name: str, scope: Scope, now: float) -> tuple[Token, str]:
    secret = f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"  # 43 characters of base64url
    row = TokenRow(
        id=secrets.token_hex(6), name=name, scope=scope, digest=digest(secret), created_at=now
    )
    session.add(row)
    session.flush()
    return _record(row), secret


def _prune(session: Session, now: float) -> None:
    session.execute(delete(PairingCodeRow).where(PairingCodeRow.expires_at <= now))


def _record(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
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
