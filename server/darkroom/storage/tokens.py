"""Tokens of devices, and the codes by which devices get them."""

import hmac
import secrets
import time
from collections.abc import Callable

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from darkroom.requests import Scope
from darkroom.responses import Token
from darkroom.storage import codes
from darkroom.storage.database import Database, DatabaseUnavailableError
from darkroom.storage.records import timestamp
from darkroom.storage.tables import PairingCodeRow, TokenRow

log = structlog.get_logger()

USED_EVERY_S = 60.0  # how exactly a token's last use is kept


class Tokens:
    """Who has been let in, for any number of threads and processes.

    The database is asked each time, so a token is good until the commit that revokes it and for
    no request after that.

    Args:
        database: migrated.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # --- tokens ----------------------------------------------------------------------------

    def create(self, name: str, scope: Scope) -> tuple[Token, str]:
        """A new token, and its secret, which is not kept and cannot be had again."""
        with self._database.write() as session:
            return _issue(session, name, scope, self._clock())

    def find(self, secret: str) -> Token | None:
        """The good token with this secret."""
        if not codes.TOKEN.fullmatch(secret):
            return None
        asked = codes.digest(secret)
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.digest == asked, _GOOD))
            if row is None or not hmac.compare_digest(row.digest, asked):
                return None
            found = _record(row)
            used_at = row.used_at
        now = self._clock()
        if used_at is None or now - used_at >= USED_EVERY_S:
            self._note_use(found.id, now)
        return found

    def is_good(self, token_id: str) -> bool:
        """Whether this token has not been revoked: for who was let in long ago."""
        with self._database.read() as session:
            found = session.scalar(select(TokenRow.id).where(TokenRow.id == token_id, _GOOD))
            return found is not None

    def good(self) -> list[Token]:
        """The tokens that have not been revoked, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(select(TokenRow).where(_GOOD).order_by(TokenRow.created_at))
            return [_record(row) for row in rows]

    def revoke(self, token_id: str) -> Token | None:
        """Let a token be good for nothing from now on; None if there is none of that id."""
        with self._database.write() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.id == token_id, _GOOD))
            if row is None:
                return None
            row.revoked_at = self._clock()
            return _record(row)

    def has_owner(self) -> bool:
        """Whether anybody holds a token that lets others in."""
        return any(token.scope is Scope.OWN for token in self.good())

    def _note_use(self, token_id: str, now: float) -> None:
        try:
            with self._database.write(durable=False) as session:
                session.execute(update(TokenRow).where(TokenRow.id == token_id).values(used_at=now))
        except (SQLAlchemyError, DatabaseUnavailableError) as error:
            # A full disk, say, which is no reason to keep anybody out.
            log.warning("a token's use could not be noted", token=token_id, error=str(error))

    # --- pairing ---------------------------------------------------------------------------

    def new_code(self, scope: Scope, lifetime_s: float) -> tuple[str, float]:
        """A code that is good for one token within `lifetime_s`, and when it dies."""
        code = codes.new_code()
        plain = codes.read_code(code)
        assert plain is not None
        with self._database.write() as session:
            now = self._clock()
            _prune(session, now)
            session.add(
                PairingCodeRow(
                    digest=codes.digest(plain),
                    scope=scope,
                    created_at=now,
                    expires_at=now + lifetime_s,
                )
            )
            return code, now + lifetime_s

    def redeem(self, code: str, name: str) -> tuple[Token, str] | None:
        """Turn a code into a token; None if the code is wrong, used or too old.

        One transaction, in which the code is deleted: of any number of devices that bring the
        same code at once, one gets a token.
        """
        plain = codes.read_code(code)
        if plain is None:
            return None
        with self._database.write() as session:
            now = self._clock()
            _prune(session, now)
            scope = session.scalar(
                delete(PairingCodeRow)
                .where(PairingCodeRow.digest == codes.digest(plain))
                .returning(PairingCodeRow.scope)
            )
            return None if scope is None else _issue(session, name, Scope(scope), now)

    def drop_codes(self) -> None:
        """Let every pairing code die now."""
        with self._database.write() as session:
            session.execute(delete(PairingCodeRow))


_GOOD = TokenRow.revoked_at.is_(None)


def _issue(session: Session, name: str, scope: Scope, now: float) -> tuple[Token, str]:
    secret = codes.new_token()
    row = TokenRow(
        id=secrets.token_hex(6),
        name=name,
        scope=scope,
        digest=codes.digest(secret),
        created_at=now,
    )
    session.add(row)
    session.flush()
    return _record(row), secret


def _prune(session: Session, now: float) -> None:
    session.execute(delete(PairingCodeRow).where(PairingCodeRow.expires_at <= now))


def _record(row: TokenRow) -> Token:
    created = timestamp(row.created_at)
    assert created is not None
    return Token(
        id=row.id,
        name=row.name,
        scope=Scope(row.scope),
        created_at=created,
        used_at=timestamp(row.used_at),
    )
