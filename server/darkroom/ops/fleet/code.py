"""The code that `darkroom fleet code` prints: a secret, and the fingerprint of a certificate.

XXXX-XXXX and then four groups of eight: the first 160 bits of the SHA-256 of the certificate by
which the box that joins knows the server. A server that only pretends to be that one would need
another certificate of the same fingerprint.
"""

from darkroom.errors import DarkroomError
from darkroom.storage.clients import ALPHABET, CODE_LENGTH, read_code

DIGITS = 32  # of five bits each


class CodeError(DarkroomError, ValueError):
    """What was typed cannot be a code."""


def fingerprint(sha256: bytes) -> str:
    """The first 160 bits of a certificate's SHA-256, in Crockford's base 32."""
    number = int.from_bytes(sha256[: DIGITS * 5 // 8], "big")
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(DIGITS)))


def write(secret: str, print_of_server: str) -> str:
    """The code as it is shown."""
    groups = [print_of_server[at : at + 8] for at in range(0, DIGITS, 8)]
    return "-".join((secret, *groups))


def read(typed: str) -> tuple[str, str]:
    """The secret and the fingerprint of a code as a person types it.

    Raises:
        CodeError: it is none.
    """
    joined = "".join(typed.split()).replace("-", "").upper()
    secret = read_code(joined[:CODE_LENGTH])
    digits = joined[CODE_LENGTH:].translate(str.maketrans("OIL", "011"))
    if secret is None or len(digits) != DIGITS or not set(digits) <= set(ALPHABET):
        raise CodeError(
            "this is no code of `darkroom fleet code`, which has 40 letters and digits; copy all "
            "of it"
        )
    return secret, digits
