"""A local certificate authority, whose root certificate is installed on phones.

Its key could sign for any site that the phones visit. So only the server's user can read it, and
name constraints limit the root to private addresses and this machine's names.
"""

import ipaddress
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

log = structlog.get_logger()

ROOT_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=397)  # Apple and Chrome take at most 398 (CA/B Forum, ballot SC31)
RENEW_BEFORE = timedelta(days=30)
SKEW = timedelta(days=1)  # a phone's clock may be behind ours

PRIVATE_NAMES = ("localhost", "local", "lan", "home.arpa", "internal")
PRIVATE_NETWORKS = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
    "100.64.0.0/10", "fc00::/7", "fe80::/10", "::1/128",
)  # fmt: skip

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Names:
    """Names of a server: DNS names and IP addresses."""

    dns: frozenset[str]
    addresses: frozenset[str]

    @classmethod
    def of(cls, hosts: Iterable[str]) -> "Names":
        """Sort hosts into names and addresses."""
        dns, addresses = set(), set()
        for host in hosts:
            try:
                addresses.add(str(ipaddress.ip_address(host)))
            except ValueError:
                dns.add(host.lower().rstrip("."))
        return cls(frozenset(dns), frozenset(addresses))

    def general(self) -> list[x509.GeneralName]:
        """All of them in a fixed order, for a certificate."""
        return [
            *(x509.DNSName(name) for name in sorted(self.dns)),
            *(x509.IPAddress(ipaddress.ip_address(name)) for name in sorted(self.addresses)),
        ]


class Authority:
    """The authority in a folder.

    Args:
        folder: made if need be, for this user alone.
        clock: the time, with its zone.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self.root = folder / "ca.pem"
        self.leaf = folder / "server.pem"
        self.leaf_key = folder / "server.key"
        self._root_key = folder / "ca.key"
        self._folder = folder
        self._clock = clock

    def issue(self, names: Names) -> None:
        """Make sure that `leaf` and `leaf_key` are a valid certificate for these names and its key.

        A name that the root's constraints exclude is left out and logged.

        Raises:
            ValueError: a file is no certificate or no key.
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self._folder / "lock"):
            root, key = self._root(names)
            allowed = _within(names, root)
            if not self._is_good(allowed, root):
                self._sign(allowed, root, key)

    def fingerprint(self) -> str:
        """The root's SHA-256 as phones show it: pairs of hexadecimal digits."""
        digest = _load(self.root).fingerprint(hashes.SHA256())
        return ":".join(f"{byte:02X}" for byte in digest)

    def _root(self, names: Names) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if self.root.exists() and self._root_key.exists():
            root, key = _load(self.root), _load_key(self._root_key)
            if self._clock() < root.not_valid_after_utc - RENEW_BEFORE:
                return root, key
            log.warning("the authority's root lapses; a new one is made, install it on all phones")
        key = ec.generate_private_key(ec.SECP256R1())
        root = self._make_root(names, key)
        _write(self._root_key, _pem_key(key), 0o600)
        _write(self.root, root.public_bytes(serialization.Encoding.PEM), 0o644)
        return root, key

    def _make_root(self, names: Names, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        now = self._clock()
        own = [str(ipaddress.ip_network(address)) for address in sorted(names.addresses)]
        domains = dict.fromkeys((*PRIVATE_NAMES, *sorted(names.dns)))
        networks = dict.fromkeys((*PRIVATE_NETWORKS, *own))
        constraints = x509.NameConstraints(
            permitted_subtrees=[
                *(x509.DNSName(domain) for domain in domains),
                *(x509.IPAddress(ipaddress.ip_network(network)) for network in networks),
            ],
            excluded_subtrees=None,
        )
        # Each authority has its own name, so that a phone that trusts two can tell them apart.
        mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"Darkroom {mark.digest.hex()[:8]}")]
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(constraints, critical=True)
            .add_extension(mark, critical=False)
            .sign(key, hashes.SHA256())
        )

    def _is_good(self, names: Names, root: x509.Certificate) -> bool:
        """Whether the certificate is one of `root` for these names, and lasts long enough."""
        if not (self.leaf.exists() and self.leaf_key.exists()):
            return False
        leaf, key = _load(self.leaf), _load_key(self.leaf_key)
        try:
            leaf.verify_directly_issued_by(root)
        except Exception:  # ValueError, TypeError or InvalidSignature: another root's in any case
            return False
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            list(alternatives) == names.general()
            and leaf.public_key() == key.public_key()
            and leaf.not_valid_before_utc <= self._clock()
            and self._clock() < leaf.not_valid_after_utc - RENEW_BEFORE
        )

    def _sign(
        self, names: Names, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
    ) -> None:
        now = self._clock()
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Darkroom")]))
            .issuer_name(root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(min(now - SKEW + LEAF_LIFE, root.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names.general()), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
            .sign(root_key, hashes.SHA256())
        )
        # A crash in between leaves a pair that does not match, which the next start makes anew.
        _write(self.leaf_key, _pem_key(key), 0o600)
        _write(self.leaf, leaf.public_bytes(serialization.Encoding.PEM), 0o644)


def _within(names: Names, root: x509.Certificate) -> Names:
    """Those of the names that the root holds for."""
    constraints = root.extensions.get_extension_for_class(x509.NameConstraints).value
    domains: list[str] = []
    networks: list[Network] = []
    for tree in constraints.permitted_subtrees or ():
        if isinstance(tree, x509.DNSName):
            domains.append(tree.value)
        elif isinstance(tree, x509.IPAddress):
            networks.append(ipaddress.ip_network(str(tree.value)))
    dns = {
        name
        for name in names.dns
        if any(name == domain or name.endswith(f".{domain}") for domain in domains)
    }
    addresses = {
        name
        for name in names.addresses
        if any(ipaddress.ip_address(name) in network for network in networks)
    }
    allowed = Names(frozenset(dns), frozenset(addresses))
    left_out = sorted((names.dns | names.addresses) - (dns | addresses))
    if left_out:
        log.warning(
            "the authority does not hold for these names; delete data/tls to make another, and "
            "install it on all phones",
            names=left_out,
        )
    return allowed


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds another kind of key")
    return key


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """All of it or nothing, and never readable by others in between."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
