"""Credentials of a user of the bus: a token and its key, in a ``.creds`` file as nsc writes it.

So ``nats --creds`` takes them too. The text of a file is a secret, and stands in no error.
"""

import base64
import contextlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec import Struct

from bus.claims import Claims, ClaimsError, Reader
from bus.door import UnusableError
from bus.nkeys import KeyPair, KeyTextError

_FORM: Final = """\
-----BEGIN NATS USER JWT-----
{token}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""
_TOKEN: Final = re.compile(r"-{3,}BEGIN NATS USER JWT-{3,}\s+(\S+)\s+-{3,}END NATS USER JWT-{3,}")
_SEED: Final = re.compile(r"-{3,}BEGIN USER NKEY SEED-{3,}\s+(\S+)\s+-{3,}END USER NKEY SEED-{3,}")
_LONGEST: Final = 65_536
"""Bytes of a file; a token is a few hundred."""
_NOT_OURS: Final = stat.S_IRWXO | stat.S_IWGRP
"""Others may do nothing. A group may read: systemd shows what it hands to a service like that."""


class _Of(Struct, frozen=True, tag_field="type", tag="user"):
    """A user, of whatever permissions."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who somebody is on the bus, and the key that proves it."""

    token: str = field(repr=False)
    key: KeyPair = field(repr=False)
    name: str
    expires_at: int
    """In seconds since 1970; 0 for never."""

    @classmethod
    def of(cls, token: str, key: KeyPair) -> "Credentials":
        """The credentials of a token and the key of its user.

        Raises:
            ClaimsError: it is no token of a user, or of another key.
        """
        claims = Reader(Claims[_Of]).read(token)
        if claims.sub != key.public or key.kind != "user":
            raise ClaimsError("this token is of another key")
        return cls(token, key, claims.name, claims.exp)

    def sign(self, nonce: str) -> bytes:
        """The proof that a server asks for, as it wants it."""
        return base64.b64encode(self.key.sign(nonce.encode()))


def read(file: Path) -> Credentials:
    """The credentials in a file.

    Raises:
        UnusableError: there are none, or others may read them; the text never holds the content.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_LONGEST + 1)
    except OSError as error:
        raise UnusableError(
            f"The credentials {file} cannot be read ({error.strerror}).",
            "Name a .creds file that this user may read.",
            file,
        ) from None
    if os.name == "posix" and mode & _NOT_OURS:
        raise UnusableError(
            f"The credentials {file} are open to others.",
            "Issue new ones if somebody may have read them, and keep them by chmod 600.",
            file,
        )
    text = content.decode("ascii", "replace")
    token, seed = _TOKEN.search(text), _SEED.search(text)
    if token and seed and len(content) <= _LONGEST:
        with contextlib.suppress(ClaimsError, KeyTextError):
            return Credentials.of(token[1], KeyPair.from_seed(seed[1]))
    raise UnusableError(
        f"The file {file} holds no credentials of a user, or not all of them.",
        "Copy it again, or name another.",
        file,
    )


def write(file: Path, credentials: Credentials) -> None:
    """Puts credentials into a file, at once and whole, for nobody else to read.

    Raises:
        OSError: it cannot be written.
    """
    text = _FORM.format(token=credentials.token, seed=credentials.key.seed)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    made = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        made.replace(file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
