"""The boot credential of a boot image: what lets a machine that has booted it on the bus.

It is a short text in the image: ``iib1.<what it says>.<signature>``, both in base64url. It says to
which estate the image belongs, which image it is, and from when until when it is good. The estate's
boot key signs it (`bus/boot_signing.py`). It is a secret: whoever has it can be any machine, until
it expires or its image is revoked.

Nothing here looks at the signature, so that a boot client can tell what it holds without any
package of cryptography.
"""

import base64
import re
import time
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from bus.messages import decoder, encode

Refusal = Literal["malformed", "forged", "other_estate", "expired", "not_yet_valid", "revoked"]
"""Why a boot credential lets nobody in.

``malformed`` is none at all, ``forged`` was not signed by the boot key of the estate whose name it
says, ``not_yet_valid`` was issued after now: a clock is wrong.
"""

CLOCK_SKEW: Final = 300
"""Seconds that the clock of whoever issues one and that of whoever reads it may be apart."""
LONGEST: Final = 1024
"""Characters of a boot credential."""

_MARK: Final = "iib1"
_IMAGE: Final = re.compile(r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+\Z")

Second = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Seconds since 1970, up to the year 9999."""


class CredentialRefused(Exception):
    """A boot credential that lets nobody in; the text says why, and does not repeat it."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Final = reason


class BootCredential(Struct, frozen=True, kw_only=True):
    """What a boot credential says; ``issued`` and ``expires`` in seconds since 1970."""

    estate: Annotated[str, Meta(min_length=1, max_length=64)]
    image: Annotated[str, Meta(pattern=_IMAGE.pattern)]
    issued: Second
    expires: Second


_credential = decoder(BootCredential)


def valid_image(image: str) -> bool:
    """Whether this can be the id of an image: 1 to 64 of ``a-z``, ``0-9``, ``_`` and ``-``."""
    return _IMAGE.match(image) is not None


def parts(token: str) -> tuple[str, BootCredential, bytes]:
    """What is signed, what it says, and the signature, at which nobody has looked.

    Raises:
        CredentialRefused: ``malformed``.
    """
    mark, _, rest = token.partition(".")
    said, _, signature = rest.partition(".")
    if len(token) > LONGEST or mark != _MARK:
        raise CredentialRefused("malformed")
    try:
        return f"{mark}.{said}", _credential.decode(_bytes(said)), _bytes(signature)
    except (ValueError, RecursionError):
        raise CredentialRefused("malformed") from None


def read(token: str) -> BootCredential:
    """What a boot credential says of itself, true or not.

    Raises:
        CredentialRefused: ``malformed``.
    """
    return parts(token)[1]


def to_sign(credential: BootCredential) -> str:
    """The text whose signature makes it a boot credential.

    Raises:
        ValueError: it says what none may say.
    """
    text = encode(credential)
    _credential.decode(text)
    return f"{_MARK}.{encoded(text)}"


def check_time(credential: BootCredential, now: float) -> None:
    """Refuses a credential that is not good at this moment, in seconds since 1970.

    Raises:
        CredentialRefused: ``expired`` or ``not_yet_valid``.
    """
    if now >= credential.expires:
        raise CredentialRefused("expired")
    if now < credential.issued - CLOCK_SKEW:
        raise CredentialRefused("not_yet_valid")


def why_refused(token: str, now: float | None = None) -> Refusal | None:
    """What whoever holds a credential can tell of why it was refused, by the clock here.

    None is something that only the other side can tell: the credential is of another estate, or
    revoked, or forged, or the clock there is wrong.
    """
    try:
        check_time(read(token.strip()), time.time() if now is None else now)
    except CredentialRefused as refused:
        return refused.reason
    return None


def encoded(data: bytes) -> str:
    """Base64url, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    # One text for one credential: Python would pass over padding and bits that nobody needs.
    if not _TEXT.match(text):
        raise ValueError("this is no base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(data) != text:
        raise ValueError("this is not the one way to write it")
    return data
