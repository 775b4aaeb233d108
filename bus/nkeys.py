"""NATS keys: Ed25519 key pairs whose text says what they are for.

The text is base32 of a prefix, the key and a checksum (github.com/nats-io/nkeys, ``strkey.go``);
the prefix makes its first letters: O an operator, A an account, U a user, N a server, and S before
any of them the seed, which is the secret.
"""

import base64
import binascii
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Kind = Literal["operator", "account", "user", "server"]

_PREFIXES: Final[dict[Kind, int]] = {
    "operator": 14 << 3,
    "account": 0,
    "user": 20 << 3,
    "server": 13 << 3,
}
_KINDS: Final = {prefix: kind for kind, prefix in _PREFIXES.items()}
_SEED: Final = 18 << 3
_KEY: Final = 32


class KeyTextError(ValueError):
    """A text that is no NATS key, or one for something else; it does not repeat the text."""


class KeyPair:
    """A key that can sign; nothing shows its seed but `seed`."""

    def __init__(self, kind: Kind, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.kind: Final = kind
        self.public: Final = _text(
            bytes([_PREFIXES[kind]]), private.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls, kind: Kind) -> "KeyPair":
        """A new one."""
        return cls(kind, Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: str) -> "KeyPair":
        """The key pair of a seed.

        Raises:
            KeyTextError: it is none.
        """
        raw = _raw(seed)
        # Eight bits of a prefix and eight of another, shifted by five so that both make a letter.
        kind = _KINDS.get((raw[0] & 7) << 5 | raw[1] >> 3)
        if len(raw) != _KEY + 2 or raw[0] & 0xF8 != _SEED or kind is None:
            raise KeyTextError("this is no seed of a NATS key")
        return cls(kind, Ed25519PrivateKey.from_private_bytes(raw[2:]))

    @property
    def seed(self) -> str:
        """The secret, as it is kept in a file."""
        prefix = _PREFIXES[self.kind]
        first = bytes([_SEED | prefix >> 5, (prefix & 31) << 3])
        return _text(first, self._private.private_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of a signature."""
        return self._private.sign(data)


def kind_of(public: str) -> Kind:
    """What a public key is for.

    Raises:
        KeyTextError: it is none.
    """
    raw = _raw(public)
    kind = _KINDS.get(raw[0])
    if len(raw) != _KEY + 1 or kind is None:
        raise KeyTextError("this is no public NATS key")
    return kind


def verified(public: str, signature: bytes, data: bytes) -> bool:
    """Whether the owner of a public key has signed the data.

    Raises:
        KeyTextError: it is no public key.
    """
    kind_of(public)
    try:
        Ed25519PublicKey.from_public_bytes(_raw(public)[1:]).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _text(prefix: bytes, key: bytes) -> str:
    body = prefix + key
    # CRC-16/XMODEM.
    return (
        base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little"))
        .decode()
        .rstrip("=")
    )


def _raw(text: str) -> bytes:
    """Prefix and key.

    Raises:
        KeyTextError: this is neither.
    """
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise KeyTextError("this is no NATS key") from None
    body, checksum = raw[:-2], raw[-2:]
    whole = len(body) > _KEY and binascii.crc_hqx(body, 0).to_bytes(2, "little") == checksum
    # The last letter may hold bits that nobody needs; there is one text for one key.
    if not whole or base64.b32encode(raw).decode().rstrip("=") != text:
        raise KeyTextError("this is no NATS key, or a part of it is lost")
    return body
