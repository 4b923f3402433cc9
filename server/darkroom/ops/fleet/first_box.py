"""Requests of a box to the first one, over TLS with the certificate that the code names."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

from darkroom.errors import DarkroomError
from darkroom.ops.fleet import code
from darkroom.ops.fleet.handover import Handover, HeadModels
from darkroom.ops.fleet.membership import Membership

KEY = "X-Darkroom-Box"  # header: NAME:SECRET
TIMEOUT_S = 30.0


class FirstBoxError(DarkroomError):
    """The first box cannot be asked, or refuses. Says why and what to do."""


class RemovedError(FirstBoxError):
    """The first box does not know this one any more."""


def certificate_of(url: str, wanted: str) -> tuple[str, bool]:
    """The certificate of a fingerprint, from the server itself, and whether it is its own.

    Nothing is sent but the request for it, and what comes is compared with the fingerprint.

    Raises:
        FirstBoxError: the server has no such certificate, or cannot be reached.
    """
    place = urlsplit(url)
    if place.scheme != "https" or not place.hostname:
        raise FirstBoxError(
            f"{url} is no https:// address; a box joins over TLS alone, because it gets the "
            "database's password: set tls.mode on the first box (docs/security.md)"
        )
    address = place.hostname, place.port or 443
    try:
        own = ssl.get_server_certificate(address, timeout=TIMEOUT_S)
        if _fingerprint(own) == wanted:
            return own, True
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        with httpx2.Client(verify=unverified, timeout=TIMEOUT_S) as http:
            answer = http.get(f"{url}/ca")
        if answer.status_code == httpx2.codes.OK and _fingerprint(answer.text) == wanted:
            return answer.text, False
    except (OSError, httpx2.HTTPError) as error:
        raise FirstBoxError(f"{url} cannot be reached: {error}") from None
    raise FirstBoxError(
        f"the server at {url} is not the one that made this code: its certificate has another "
        "fingerprint; nothing was sent to it"
    )


def _fingerprint(pem: str) -> str | None:
    try:
        return code.fingerprint(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest())
    except ValueError:
        return None


def join(url: str, certificate: str, pinned: bool, secret: str, name: str) -> Handover:
    """Exchange the code for what a box needs.

    Raises:
        FirstBoxError: it is refused, or the server cannot be reached.
    """
    with _client(url, certificate, pinned) as http:
        answer = http.post("/fleet/boxes", json={"code": secret, "name": name})
        return Handover.model_validate_json(_checked(answer).content)


class FirstBox:
    """The first box, asked by one that has joined."""

    def __init__(self, membership: Membership) -> None:
        self._of = membership

    def handover(self) -> Handover:
        """What it says now. Raises RemovedError, or FirstBoxError if it cannot be asked."""
        return Handover.model_validate_json(self._get("/fleet/boxes/own").content)

    def models(self) -> HeadModels:
        """What models it has. Raises as `handover` does."""
        return HeadModels.model_validate_json(self._get("/fleet/models").content)

    def part(self, path: str, offset: int) -> bytes:
        """Some bytes of a file from an offset; none at its end. Raises as `handover` does."""
        return self._get("/fleet/files", path=path, offset=str(offset)).content

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file, hexadecimal. Raises as `handover` does."""
        return self._get("/fleet/digests", path=path).text

    def _get(self, place: str, **query: str) -> httpx2.Response:
        own = self._of
        with _client(own.url, own.certificate, own.pinned) as http:
            key = {KEY: f"{own.handover.name}:{own.secret}"}
            return _checked(http.get(place, params=query, headers=key))


@contextmanager
def _client(url: str, certificate: str, pinned: bool) -> Iterator[httpx2.Client]:
    context = ssl.create_default_context(cadata=certificate)
    if pinned:  # it may be made out for another name than the one by which we come
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    try:
        with httpx2.Client(base_url=url, verify=context, timeout=TIMEOUT_S) as http:
            yield http
    except httpx2.HTTPError as error:
        raise FirstBoxError(f"{url} cannot be reached: {error}") from None


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        kind, detail = problem["type"].rpartition(":")[2], problem["detail"]
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, detail = "", f"it answered {answer.status_code}"
    error = RemovedError if kind == "no-box" else FirstBoxError
    raise error(detail)
