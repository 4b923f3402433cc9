"""Secrets and what is kept of them: device tokens, and pairing codes that a person can type."""

import re
import secrets
from hashlib import sha256

TOKEN_BYTES = 32  # 256 random bits cannot be guessed, so a plain digest of them is kept safely
CODE_LENGTH = 8  # 40 random bits, which is why a code lives for minutes and guesses are counted
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
TOKEN = re.compile(r"dk_[A-Za-z0-9_-]{43}")

# What people read a character as that it is not (https://www.crockford.com/base32.html).
_MISREAD = str.maketrans("OIL", "011", "- \t")


def new_token() -> str:
    """A secret that nobody has seen: `dk_` and 43 characters of base64url."""
    return f"dk_{secrets.token_urlsafe(TOKEN_BYTES)}"


def new_code() -> str:
    """A pairing code as it is shown: XXXX-XXXX."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
    return f"{code[:4]}-{code[4:]}"


def digest(secret: str) -> str:
    """What is kept of a secret: its SHA-256, as hexadecimal."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def read_code(typed: str) -> str | None:
    """The one way of writing a code that a person typed, or None if it is no code."""
    code = typed.strip().upper().translate(_MISREAD)
    return code if len(code) == CODE_LENGTH and set(code) <= set(ALPHABET) else None
