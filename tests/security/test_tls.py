"""TLS: the owner's own files, or an authority of the box's own that a phone can trust."""

import ipaddress
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from darkroom.api.auth import tls
from darkroom.config import AuthSettings, Settings, TlsSettings
from darkroom.ops import discovery
from darkroom_client import Client, ConnectionFailedError
from tests.serving import RunningServer, running
from tests.test_cli import darkroom

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a local authority and no worker."""
    folder = tmp_path_factory.mktemp("tls")
    root = tls.certificate(local_ca(folder))
    assert root is not None
    with running(
        folder, process="web", trusting=folder / "tls" / "ca.pem", DARKROOM_TLS__MODE="local_ca"
    ) as started:
        yield started


def local_ca(folder: Path, **auth: object) -> Settings:
    tls_settings = TlsSettings(mode="local_ca")
    return Settings(data_dir=folder, tls=tls_settings, auth=AuthSettings(**auth))


def leaf_of(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "tls" / "server.pem").read_bytes())


def names_of(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def days_later(days: float) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(days=days)


def test_who_has_the_root_reaches_the_server_by_name_and_by_address(
    tls_server: RunningServer,
) -> None:
    context = ssl.create_default_context(cafile=tls_server.data_dir / "tls" / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    port = httpx2.URL(tls_server.url).port
    with httpx2.Client(verify=context, timeout=60) as http:
        for host in ("localhost", "127.0.0.1"):
            assert http.get(f"https://{host}:{port}/healthz").status_code == 200


def test_a_caller_that_leaves_is_no_error(tls_server: RunningServer) -> None:
    host, port = tls_server.url.removeprefix("https://").split(":")
    ssl.get_server_certificate((host, int(port)))  # and goes

    assert tls_server.http.get("/healthz", headers={"connection": "close"}).status_code == 200
    assert tls_server.http.get("/healthz").status_code == 200
    assert "Traceback" not in tls_server.log.read_text()


def test_who_has_not_is_warned(tls_server: RunningServer) -> None:
    with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx2.get(f"{tls_server.url}/healthz", timeout=60)


def test_the_sdk_takes_the_root(tls_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tls_server.data_dir / "tls" / "ca.pem"

    with Client(tls_server.url, ca=root) as client:
        assert client.models()
    monkeypatch.setenv("DARKROOM_CA", str(root))
    with Client(tls_server.url) as client:
        assert client.models()


def test_without_the_root_the_sdk_says_what_is_wrong(
    tls_server: RunningServer, tmp_path: Path
) -> None:
    with (
        Client(tls_server.url, max_retries=0) as client,
        pytest.raises(ConnectionFailedError, match=r"(?i)certificate"),
    ):
        client.models()
    (tmp_path / "not.pem").write_text("a fox")
    for name in ("not.pem", "missing.pem"):
        with pytest.raises(ValueError, match=f"{name} holds no certificate"):
            Client(tls_server.url, ca=tmp_path / name)


def test_a_phone_gets_the_root_without_a_token(tls_server: RunningServer) -> None:
    answer = tls_server.http.get("/ca", headers={"x-forwarded-for": "203.0.113.9"})

    assert answer.headers["content-type"] == "application/x-x509-ca-cert"
    assert answer.content == (tls_server.data_dir / "tls" / "ca.pem").read_bytes()
    assert b"PRIVATE" not in answer.content


def test_without_an_authority_there_is_no_root_to_get(idle_server: RunningServer) -> None:
    assert idle_server.http.get("/ca").status_code == 404


def test_over_tls_the_cookie_is_secure_and_pages_are_ours_by_https(
    tls_server: RunningServer,
) -> None:
    code = tls_server.http.post("/pair/codes", json={}).json()["code"]
    paired = tls_server.http.post("/pair", json={"code": code, "name": "phone"})
    tls_server.http.cookies.clear()
    plain = {"origin": tls_server.url.replace("https", "http")}

    assert "Secure" in paired.headers["set-cookie"].split("; ")
    assert tls_server.http.get("/me", headers={"origin": tls_server.url}).status_code == 200
    assert tls_server.http.get("/me", headers=plain).status_code == 403


@pytest.mark.slow
def test_the_supervisor_knows_its_own_server(tmp_path: Path) -> None:
    with running(
        tmp_path, trusting=tmp_path / "tls" / "ca.pem", DARKROOM_TLS__MODE="local_ca"
    ) as server:
        server.wait_for("/readyz")
        said = server.log.read_text()

    assert f"Darkroom is at https://localhost:{httpx2.URL(server.url).port}" in said
    assert tls.authority(local_ca(tmp_path)).fingerprint() in said


# --- the authority -------------------------------------------------------------------------


def test_the_certificate_has_every_name_of_this_machine(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path, host_names=("pictures.example", "10.9.8.7")))
    own = socket.gethostname().lower().partition(".")[0]

    expected = {
        "localhost",
        "127.0.0.1",
        "::1",
        own,
        f"{own}.local",
        "pictures.example",
        "10.9.8.7",
    }
    assert names_of(leaf_of(tmp_path)) == expected | set(discovery.lan_addresses())


def test_keys_are_for_the_servers_user_alone(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))

    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_the_root_holds_for_private_names_only(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))
    root = x509.load_pem_x509_certificate((tmp_path / "tls" / "ca.pem").read_bytes())
    allowed = root.extensions.get_extension_for_class(x509.NameConstraints)

    assert allowed.critical
    trees = allowed.value.permitted_subtrees or []
    networks = [tree.value for tree in trees if isinstance(tree, x509.IPAddress)]
    assert not any(ipaddress.ip_address("8.8.8.8") in network for network in networks)  # type: ignore[operator]
    assert not [tree.value for tree in trees if tree.value in ("", "com", "example")]


def test_a_certificate_is_kept_until_it_nearly_lapses(tmp_path: Path) -> None:
    here = local_ca(tmp_path)
    tls.certificate(here, days_later(0))
    first, root = leaf_of(tmp_path), (tmp_path / "tls" / "ca.pem").read_bytes()
    assert first.not_valid_after_utc - first.not_valid_before_utc <= timedelta(days=398)

    tls.certificate(here, days_later(300))
    assert leaf_of(tmp_path) == first
    tls.certificate(here, days_later(370))
    renewed = leaf_of(tmp_path)
    assert renewed.not_valid_after_utc > first.not_valid_after_utc
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == root


def test_a_new_name_makes_a_new_certificate(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))
    root = (tmp_path / "tls" / "ca.pem").read_bytes()
    tls.certificate(local_ca(tmp_path, host_names=("studio.lan",)))

    assert "studio.lan" in names_of(leaf_of(tmp_path))
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == root


def test_a_name_beyond_the_root_is_left_out(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))
    tls.certificate(local_ca(tmp_path, host_names=("bank.example", "8.8.8.8")))

    assert not names_of(leaf_of(tmp_path)) & {"bank.example", "8.8.8.8"}


def test_a_start_after_a_crash_makes_a_pair_that_fits(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))
    old_key = (tmp_path / "tls" / "server.key").read_bytes()
    (tmp_path / "tls" / "server.pem").unlink()
    pair = tls.certificate(local_ca(tmp_path))
    assert pair is not None
    pair.key.write_bytes(old_key)
    pair = tls.certificate(local_ca(tmp_path))
    assert pair is not None

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair)


def test_a_broken_authority_is_said_plainly(tmp_path: Path) -> None:
    tls.certificate(local_ca(tmp_path))
    (tmp_path / "tls" / "ca.pem").write_bytes(b"not a certificate")
    result = darkroom("web", "--data-dir", str(tmp_path), DARKROOM_TLS__MODE="local_ca")

    assert result.returncode == 1
    assert "the authority in" in result.stderr
    assert "Traceback" not in result.stderr


# --- own files -----------------------------------------------------------------------------


def own_files(folder: Path, *, ends: datetime, password: bytes | None = None) -> TlsSettings:
    """A certificate as an owner brings it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pictures.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=90))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), False)
        .sign(key, hashes.SHA256())
    )
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        lock = serialization.BestAvailableEncryption(password)
    (folder / "own.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "own.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    )
    return TlsSettings(mode="files", certificate=folder / "own.pem", key=folder / "own.key")


def test_a_server_with_own_files_insists_on_tls(tmp_path: Path) -> None:
    files = own_files(tmp_path, ends=NOW + timedelta(days=30))
    context = tls.client_context(Settings(tls=files))
    assert context is not None
    with running(
        tmp_path,
        process="web",
        trusting=context,
        DARKROOM_TLS__MODE="files",
        DARKROOM_TLS__CERTIFICATE=str(files.certificate),
        DARKROOM_TLS__KEY=str(files.key),
    ) as server:
        answer = server.http.get("/healthz")

    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_what_is_wrong_with_own_files_is_said(tmp_path: Path) -> None:
    def wrong(settings: TlsSettings) -> str:
        with pytest.raises(tls.CertificateError) as raised:
            tls.certificate(Settings(tls=settings))
        return str(raised.value)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    good = own_files(tmp_path / "a", ends=NOW + timedelta(days=30))
    other = own_files(tmp_path / "b", ends=NOW + timedelta(days=30))
    assert "name tls.certificate and tls.key" in wrong(TlsSettings(mode="files"))
    assert "there is no file" in wrong(good.model_copy(update={"key": tmp_path / "none"}))
    assert "do not belong together" in wrong(good.model_copy(update={"key": other.key}))
    assert "asks for a password" in wrong(
        own_files(tmp_path, ends=NOW + timedelta(days=30), password=b"secret")
    )
    assert "lapsed on" in wrong(own_files(tmp_path, ends=NOW - timedelta(days=1)))
    (tmp_path / "own.pem").write_text("nonsense")
    assert "not PEM" in wrong(
        TlsSettings(mode="files", certificate=tmp_path / "own.pem", key=tmp_path / "own.key")
    )
