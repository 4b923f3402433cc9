"""A local certificate authority, whose root certificate is installed on phones.

Its key could sign for any site that the phones visit. So only the server's user can read it, and
name constraints limit the root to private addresses and this machine's names.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from darkroom.storage.files import write_file, write_key

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


def general_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """DNS names and IP addresses for a certificate, each once, in a fixed order."""
    dns, addresses = set(), set()
    for host in hosts:
        try:
            addresses.add(str(ipaddress.ip_address(host)))
        except ValueError:
            dns.add(host.lower().rstrip("."))
    return [
        *(x509.DNSName(name) for name in sorted(dns)),
        *(x509.IPAddress(ipaddress.ip_address(name)) for name in sorted(addresses)),
    ]


class Authority:
    """The authority in a folder.

    The folder is made if need be, for this user alone. The clock's times have their zone.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self.root = folder / "ca.pem"
        self.leaf = folder / "server.pem"
        self.leaf_key = folder / "server.key"
        self._root_key = folder / "ca.key"
        self._folder = folder
        self._clock = clock

    def issue(self, hosts: Iterable[str]) -> None:
        """Make sure that `leaf` and `leaf_key` are a valid certificate for these hosts and its key.

        A name that the root's constraints exclude is left out and logged.

        Raises:
            ValueError: a file is no certificate or no key.
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self._folder / "lock"):
            names = general_names(hosts)
            root, key = self._root(names)
            allowed = _within(names, root)
            if not self._is_good(allowed, root):
                self._sign(allowed, root, key)

    def fingerprint(self) -> str:
        """The root's SHA-256 as phones show it: pairs of hexadecimal digits."""
        digest = _load(self.root).fingerprint(hashes.SHA256())
        return ":".join(f"{byte:02X}" for byte in digest)

    def _root(
        self, names: Sequence[x509.GeneralName]
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if self.root.exists() and self._root_key.exists():
            root, key = _load(self.root), _load_key(self._root_key)
            if self._clock() < root.not_valid_after_utc - RENEW_BEFORE:
                return root, key
            log.warning("the authority's root lapses; a new one is made, install it on all phones")
        key = ec.generate_private_key(ec.SECP256R1())
        root = self._make_root(names, key)
        save_key(self._root_key, key)
        save(self.root, root)
        return root, key

    def _make_root(
        self, names: Sequence[x509.GeneralName], key: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        now = self._clock()
        networks = dict.fromkeys(ipaddress.ip_network(network) for network in PRIVATE_NETWORKS)
        domains = dict.fromkeys(PRIVATE_NAMES)
        for name in names:
            if isinstance(name, x509.IPAddress):
                networks[ipaddress.ip_network(str(name.value))] = None
            else:
                domains[str(name.value)] = None
        constraints = x509.NameConstraints(
            permitted_subtrees=[*map(x509.DNSName, domains), *map(x509.IPAddress, networks)],
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

    def _is_good(self, names: Sequence[x509.GeneralName], root: x509.Certificate) -> bool:
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
            list(alternatives) == names
            and leaf.public_key() == key.public_key()
            and leaf.not_valid_before_utc <= self._clock()
            and self._clock() < leaf.not_valid_after_utc - RENEW_BEFORE
        )

    def _sign(
        self,
        names: Sequence[x509.GeneralName],
        root: x509.Certificate,
        root_key: ec.EllipticCurvePrivateKey,
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
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
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
        save_key(self.leaf_key, key)
        save(self.leaf, leaf)


def _within(names: Sequence[x509.GeneralName], root: x509.Certificate) -> list[x509.GeneralName]:
    """Those of the names that the root holds for."""
    constraints = root.extensions.get_extension_for_class(x509.NameConstraints).value
    trees = constraints.permitted_subtrees or ()
    allowed = [name for name in names if any(_covers(tree, name) for tree in trees)]
    left_out = sorted(str(name.value) for name in names if name not in allowed)
    if left_out:
        log.warning(
            "the authority does not hold for these names; delete data/tls to make another, and "
            "install it on all phones",
            names=left_out,
        )
    return allowed


def _covers(tree: x509.GeneralName, name: x509.GeneralName) -> bool:
    if isinstance(tree, x509.DNSName) and isinstance(name, x509.DNSName):
        return f".{name.value}".endswith(f".{tree.value}")
    if isinstance(tree, x509.IPAddress) and isinstance(name, x509.IPAddress):
        network = ipaddress.ip_network(str(tree.value))
        return ipaddress.ip_address(str(name.value)) in network
    return False


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


def save_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a key as PEM, for this user alone."""
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_key(path, key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))


def save(path: Path, certificate: x509.Certificate) -> None:
    """Write a certificate as PEM."""
    write_file(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
