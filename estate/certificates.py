"""The estate's X.509 authority, and the certificates of its servers.

Every server shows a certificate of the estate's own authority, in which the names and addresses
stand at which it is reached. A server of the hub may also use it to reach the others of its
cluster; a site's may not, so that nobody who has a site's key can pose as a part of the hub.

An authority gives way to a new one without an outage. The old one signs the new one's key: that
certificate is the bridge. A server shows it beside its own, so that whoever knows the old authority
alone believes what the new one has signed; and whoever knows the new one believes the old one, too,
until it is dropped.
"""

import ipaddress
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

AUTHORITY_LASTS: Final = timedelta(days=20 * 365)
SERVER_LASTS: Final = timedelta(days=397)
_EARLIER: Final = timedelta(hours=1)
"""By how much a clock may be behind that of who makes a certificate."""


_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n.+?-----END \1-----\n", re.DOTALL)


class Pair(Struct, frozen=True):
    """A certificate and its private key, both PEM; what a client needs to believe it may follow."""

    certificate: bytes
    key: bytes


class Authority(Struct, frozen=True, kw_only=True):
    """Who signs certificates, all PEM.

    ``before`` is the certificate of the authority whose place it has taken, while that is still
    believed, and ``bridge`` its own, signed by that one; else both are empty.
    """

    key: bytes
    certificate: bytes
    bridge: bytes = b""
    before: bytes = b""

    @classmethod
    def read(cls, text: bytes) -> "Authority":
        """What `text` has written.

        Raises:
            ValueError: it is something else.
        """
        match [(found[1], found[0]) for found in _PEM.finditer(text)]:
            case [(b"PRIVATE KEY", key), (b"CERTIFICATE", own)]:
                return cls(key=key, certificate=own)
            case [
                (b"PRIVATE KEY", key),
                (b"CERTIFICATE", own),
                (b"CERTIFICATE", bridge),
                (b"CERTIFICATE", before),
            ]:
                return cls(key=key, certificate=own, bridge=bridge, before=before)
            case _:
                raise ValueError("this is no authority")

    @property
    def text(self) -> bytes:
        """All of it, the key too."""
        return self.key + self.certificate + self.bridge + self.before

    @property
    def believed(self) -> bytes:
        """What servers and clients are to believe: its certificate first."""
        return self.certificate + self.before


def new_authority(estate: str) -> Authority:
    """The authority of a new estate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _authority_name(estate)
    own = _pair(_authority(name, key.public_key(), name, key, AUTHORITY_LASTS), key)
    return Authority(key=own.key, certificate=own.certificate)


def next_authority(estate: str, old: Authority) -> Authority:
    """An authority that takes the place of an old one, which is still believed."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _authority_name(estate)
    own = _pair(_authority(name, key.public_key(), name, key, AUTHORITY_LASTS), key)
    before = x509.load_pem_x509_certificate(old.certificate)
    left = before.not_valid_after_utc - datetime.now(UTC)
    bridge = _authority(name, key.public_key(), before.subject, _signer(old), left)
    return Authority(
        key=own.key, certificate=own.certificate, bridge=_pem(bridge), before=old.certificate
    )


def new_server(authority: Authority, hosts: Iterable[str], *, reaches_others: bool = False) -> Pair:
    """A certificate for a server that is reached at these names and addresses.

    Args:
        authority: the estate's.
        hosts: at least one.
        reaches_others: whether the server may show it as a client, too.
    """
    known = tuple(hosts)
    root = x509.load_pem_x509_certificate(authority.certificate)
    signer = _signer(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.SERVER_AUTH]
    if reaches_others:
        uses.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _begun(_name(known[0]), root.subject, key.public_key(), SERVER_LASTS)
        .add_extension(x509.SubjectAlternativeName(map(_alternative, known)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(_issued_by(signer), critical=False)
        .sign(signer, hashes.SHA256())
    )
    own = _pair(certificate, key)
    return Pair(own.certificate + authority.bridge, own.key)


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate (PEM, the first there), as tools show it.

    Raises:
        ValueError: it is none.
    """
    digest = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    return digest.hex(":").upper()


def ends(certificate: bytes) -> datetime:
    """When a certificate (PEM, the first there) ends.

    Raises:
        ValueError: it is none.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def _authority(
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    lasts: timedelta,
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _begun(name, issuer, key, lasts)
        # One more may stand between it and a server: the bridge to the one after it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_issued_by(signer), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _signer(authority: Authority) -> ec.EllipticCurvePrivateKey:
    signer = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the key of the authority is of another kind than it makes")
    return signer


def _issued_by(signer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _begun(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        _pem(certificate),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority_name(estate: str) -> x509.Name:
    return _name(f"{estate} (ImageInvoker estate {datetime.now(UTC):%Y-%m})")


def _name(text: str) -> x509.Name:
    # The longest that X.509 allows (RFC 5280, ub-common-name).
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
