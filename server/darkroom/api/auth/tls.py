"""The server's TLS certificate: the owner's files, or one issued by the local authority.

`cryptography` is imported only where certificates are used.
"""

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.ops import discovery

if TYPE_CHECKING:
    from darkroom.api.auth.local_ca import Authority


class CertificateError(DarkroomError, ValueError):
    """TLS is configured, but cannot be used. Says why and what to do."""


class Certificate(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


def authority(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> "Authority":
    """The local authority; it may not exist yet."""
    from darkroom.api.auth.local_ca import Authority

    return Authority(settings.data_dir / "tls", clock)


def certificate(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Certificate | None:
    """The certificate to serve with; None is without TLS.

    For `local_ca` the authority is made on the first start. The certificate is renewed if it
    expires within a month, or if the machine's names or addresses have changed.

    Raises:
        CertificateError: there is none that can be used.
    """
    match settings.tls.mode:
        case "off":
            return None
        case "files":
            return _own_files(settings, clock())
        case "local_ca":
            made = authority(settings, clock)
            try:
                made.issue(_hosts(settings))
            except (ValueError, OSError) as error:
                raise CertificateError(
                    f"the authority in {settings.data_dir / 'tls'} cannot be used: {error}; delete "
                    "the folder to make a new one, and install that on all phones"
                ) from None
            return Certificate(made.leaf, made.leaf_key)


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS settings for local clients, which verify that they talk to this server.

    Raises:
        OSError: there is no certificate yet.
    """
    match settings.tls.mode:
        case "off":
            return None
        case "local_ca":
            return ssl.create_default_context(cafile=authority(settings).root)
        case "files":
            # Made out for a name by which we do not come; that it is this very one proves as much.
            context = ssl.create_default_context(cafile=settings.tls.certificate)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
            return context


def _hosts(settings: Settings) -> tuple[str, ...]:
    """The names and addresses by which this server may be reached."""
    own = socket.gethostname().lower().partition(".")[0]
    usual = ("localhost", "127.0.0.1", "::1", own, f"{own}.local")
    bound = () if settings.host in discovery.EVERYWHERE else (settings.host,)
    return (*usual, *bound, *discovery.lan_addresses(), *settings.auth.host_names)


def _own_files(settings: Settings, now: datetime) -> Certificate:
    from cryptography import x509

    found, key = settings.tls.certificate, settings.tls.key
    if found is None or key is None:
        raise CertificateError("tls.mode is files: name tls.certificate and tls.key")
    for path in (found, key):
        if not path.is_file():
            raise CertificateError(f"there is no file {path}")

    def no_password() -> NoReturn:
        raise CertificateError(f"{key} asks for a password; the server starts without anybody")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(found, key, no_password)
        first = x509.load_pem_x509_certificates(found.read_bytes())[0]
    except ssl.SSLError as error:
        raise CertificateError(
            f"{found} and {key} do not belong together, or are not PEM: {error.reason}"
        ) from None
    except CertificateError:
        raise
    except (OSError, ValueError) as error:
        raise CertificateError(f"{found} or {key} cannot be read: {error}") from None
    if now >= first.not_valid_after_utc:
        raise CertificateError(f"{found} lapsed on {first.not_valid_after_utc:%Y-%m-%d}")
    if now < first.not_valid_before_utc:
        raise CertificateError(f"{found} holds only from {first.not_valid_before_utc:%Y-%m-%d}")
    return Certificate(found, key)
