"""The secrets that a request carries, in whichever header its program puts a key."""

from flask import Request

from darkroom.storage.clients import TOKEN_PREFIX

KEY_HEADERS = ("Api-Key", "X-Api-Key")  # of OpenAI's clients in Azure mode, and of others
SCHEMES = ("basic", "bearer")


def secrets_in(request: Request, *, foreign: bool) -> list[str]:
    """All secrets of a request, without empty ones: those in `Authorization` come first.

    A browser that knows a password sends it by itself, wherever the request comes from
    (Fetch standard, HTTP-network-or-cache fetch), so of a foreign page Basic is not read. The
    other headers only a program can have set.
    """
    given = request.headers.get("Authorization", "").strip()
    scheme, _, rest = given.partition(" ")
    if scheme.lower() != "basic":
        # Some programs send a key without a scheme.
        found = [rest if rest or scheme.lower() in SCHEMES else scheme]
    elif foreign:
        found = []
    elif request.authorization is None:
        found = [rest]  # not Base64
    else:
        found = [request.authorization.password or "", request.authorization.username or ""]
    found += [request.headers.get(name, "") for name in KEY_HEADERS]
    return [secret for secret in map(str.strip, found) if secret]


def looks_like_token(secret: str) -> bool:
    """Whether a secret is a token of a Darkroom, valid or not. Placeholders are none."""
    return secret.startswith(TOKEN_PREFIX)
