"""The boot images of an estate: which has a boot credential, and which is revoked. Pure."""

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from bus.boot_credential import BootCredential, valid_image
from bus.boot_signing import issue
from bus.nkeys import KeyPair
from estate.errors import EstateError, UnknownError
from estate.records import BootImage, Estate

LASTS: Final = 365
"""Days for which a boot credential is good, unless told otherwise."""
_LONGEST: Final = 3650


def issued(
    estate: Estate, image: str, key: KeyPair, days: int, now: datetime
) -> tuple[Estate, str]:
    """A boot credential of an image, good for some days from now, and the estate that knows of it.

    Raises:
        UnknownError: this is no id of an image, or it is revoked.
        EstateError: so many days are none.
    """
    _require(image)
    if not 1 <= days <= _LONGEST:
        raise EstateError(f"{days} days is not from 1 to {_LONGEST}.")
    known = _known(estate, image)
    if known and known.revoked_at:
        raise UnknownError(
            f"The image {image!r} is revoked, and so would be every credential of it. Give "
            "the new image another name."
        )
    begins = now.replace(microsecond=0)
    ends = begins + timedelta(days=days)
    token = issue(
        key,
        BootCredential(
            estate=estate.name,
            image=image,
            issued=int(begins.timestamp()),
            expires=int(ends.timestamp()),
        ),
    )
    return estate.with_image(BootImage(image=image, issued_at=begins, expires_at=ends)), token


def without(estate: Estate, image: str, now: datetime) -> Estate:
    """The estate after an image is revoked; the same if it was already.

    Raises:
        UnknownError: this is no id of an image.
    """
    _require(image)
    known = _known(estate, image)
    if known and known.revoked_at:
        return estate
    # One that this folder knows nothing of may have been issued from another copy of it.
    known = known or BootImage(image=image, issued_at=now, expires_at=now)
    return estate.with_image(replace(known, revoked_at=now))


def _known(estate: Estate, image: str) -> BootImage | None:
    return next((each for each in estate.images if each.image == image), None)


def _require(image: str) -> None:
    if not valid_image(image):
        raise UnknownError(f"{image!r} is no name of an image: 1 to 64 of a-z, 0-9, _ and -")
