"""An https receiver must show a certificate that this machine trusts."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.receiver import Receiver, allowing
from tests.serving import running
from tests.webhooks.conftest import webhook

pytestmark = pytest.mark.slow


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def test_only_one_that_is_trusted_is_told(tmp_path: Path, ports: list[int]) -> None:
    certificate, key = certified(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    receiver = Receiver(port=ports[0], tls=tls)
    url = f"https://localhost:{receiver.port}/told"
    # A proxy of the environment is not asked.
    trusting = {"SSL_CERT_FILE": str(certificate), "HTTPS_PROXY": "http://127.0.0.1:9"}
    with receiver.listening():
        for trusted, environment in ((False, {}), (True, trusting)):
            folder = tmp_path / str(trusted)
            with running(folder, process="web", **allowing(ports), **environment) as web:
                job = web.submit(webhook=url)
                web.http.delete(job["url"])
                found = webhook(web, job["id"], "delivered", "failed")

            assert found["state"] == ("delivered" if trusted else "failed")
            if not trusted:
                assert "certificate" in found["last_error"]
                assert receiver.count() == 0
