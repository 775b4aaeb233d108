"""Who signs in to the mail server."""

from msgspec import Struct


class Credentials(Struct, frozen=True, kw_only=True):
    """Who hands mail in; it does not show where it is printed."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, password=...)"


def credentials(text: str) -> Credentials | None:
    """The credentials in a file of two lines, user and password; None if there is nothing in it.

    Raises:
        ValueError: it has other lines than these; the error does not hold them.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        del lines[-1]
    if not lines:
        return None
    if len(lines) != 2 or not lines[0].strip():
        raise ValueError("credentials are two lines: the user and the password")
    return Credentials(user=lines[0].strip(), password=lines[1])
