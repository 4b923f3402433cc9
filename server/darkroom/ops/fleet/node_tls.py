"""TLS between the nodes of Ray: only who knows the fleet's token gets through the handshake.

Ray's processes listen on every address of a machine. So each node shows a certificate and asks the
other side for one (https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication). All
are signed by one authority, whose key every node derives from the token: nothing else has to be
handed over, and with a new token all certificates of before are worth nothing.
"""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from darkroom.api.auth.local_ca import general_names, save, save_key

AUTHORITY, CURVE = "Darkroom fleet", ec.SECP256R1()
# 8 bytes more than the group's order has, so that the remainder is as good as uniform
# (FIPS 186-5, appendix A.2.1).
KEY_BYTES = 40
# The token ends what a certificate is worth, not a date: a box's clock may be wrong when it starts.
# The last date means none (RFC 5280, section 4.1.2.5).
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
HERE = ("127.0.0.1", "::1", "localhost")  # by which a node's processes reach each other


def environment(folder: Path, token: str, address: str) -> dict[str, str]:
    """Write a node's key and certificates into a folder; the variables that tell Ray of them.

    Args:
        folder: made if need be, for this user alone.
        token: Ray's token.
        address: of the node, where the others reach it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, own_key = _authority_key(token), ec.generate_private_key(CURVE)
    authority = _certificate(authority_key, AUTHORITY, authority_key, [])
    own = _certificate(own_key, "Darkroom box", authority_key, [address, *HERE])
    paths = {name: folder / name for name in ("ca.pem", "node.pem", "node.key")}
    save(paths["ca.pem"], authority)
    save(paths["node.pem"], own)
    save_key(paths["node.key"], own_key)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": str(paths["ca.pem"]),
        "RAY_TLS_SERVER_CERT": str(paths["node.pem"]),
        "RAY_TLS_SERVER_KEY": str(paths["node.key"]),
    }


def _authority_key(token: str) -> ec.EllipticCurvePrivateKey:
    """The same for the same token (RFC 5869)."""
    derived = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"darkroom fleet authority")
    number = int.from_bytes(derived.derive(token.encode()))
    return ec.derive_private_key(1 + number % (CURVE.group_order - 1), CURVE)


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    authority_key: ec.EllipticCurvePrivateKey,
    hosts: list[str],
) -> x509.Certificate:
    """A node's certificate for its hosts; without any, the authority's."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(AUTHORITY))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if hosts:  # a node answers and asks
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        alternatives = x509.SubjectAlternativeName(general_names(hosts))
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
