"""Why a boot image cannot be made."""

from typing import Final


class ImageError(Exception):
    """A boot image cannot be made: ``cause`` and ``cure`` are sentences, and hold no secret."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} {cure}")
        self.cause: Final = cause
        self.cure: Final = cure


class WrongInputError(ImageError):
    """Something that was given for the image makes no sense or is not there."""


class MissingToolError(ImageError):
    """A program that is needed to make the image is not on this computer."""


class PackageError(ImageError):
    """A package cannot be had, or is not what it should be."""


class OutputError(ImageError):
    """The image cannot be written."""
