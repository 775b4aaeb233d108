"""The folder with what the auth service needs to decide who comes on a site's bus.

| file | holds |
|---|---|
| ``callout.creds`` | the user of the account AUTH whom the server asks |
| ``system.creds`` | a user of the system account, who sees who comes and goes, and ends them |
| ``account.pub`` | the public key of the site's account, where boot clients are let in |
| ``auth.seed`` | the key of the account AUTH, which signs answers to the server |
| ``boot-signing.seed`` | the site's boot signing key, which makes boot clients and nothing else |
| ``boot.pub`` | the estate's public boot key, by which boot credentials are known |
| ``estate`` | the estate's name |

The seeds are secrets: none stands in an error, and a file that others may read is refused.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bus.nkeys import KeyPair, KeyTextError, Kind, kind_of

_LONGEST: Final = 4096
_NOT_OURS: Final = stat.S_IRWXO | stat.S_IWGRP
"""Others may do nothing. A group may read: systemd shows what it hands to a service like that."""


class CalloutKeysError(ValueError):
    """A folder that is not fit; the text names the file and the cure, and never its content."""


@dataclass(frozen=True, slots=True)
class CalloutKeys:
    """What the folder holds; the two credentials stay files, since they are read anew."""

    callout: Path
    system: Path
    account: str
    auth: KeyPair = field(repr=False)
    signing: KeyPair = field(repr=False)
    boot_key: str
    estate: str


def read_callout_keys(folder: Path) -> CalloutKeys:
    """What is in the folder.

    Raises:
        CalloutKeysError: a file is not there, holds something else, or is open to others.
    """
    credentials = folder / "callout.creds", folder / "system.creds"
    for each in credentials:
        _text(each)
    estate = _text(folder / "estate")
    if not estate.isprintable() or len(estate) > 64:
        raise CalloutKeysError(f"{folder / 'estate'} holds no name of an estate; copy it again")
    return CalloutKeys(
        callout=credentials[0],
        system=credentials[1],
        account=_public(folder / "account.pub", ("account",)),
        auth=_key(folder / "auth.seed"),
        signing=_key(folder / "boot-signing.seed"),
        boot_key=_public(folder / "boot.pub", ("account", "user", "operator", "server")),
        estate=estate,
    )


def _public(file: Path, kinds: tuple[Kind, ...]) -> str:
    text = _text(file)
    try:
        good = kind_of(text) in kinds
    except KeyTextError:
        good = False
    if not good:
        raise CalloutKeysError(f"{file} holds no such public key as belongs there; copy it again")
    return text


def _key(file: Path) -> KeyPair:
    text = _text(file, secret=True)
    try:
        key = KeyPair.from_seed(text)
    except KeyTextError:
        key = None
    if key is None or key.kind != "account":
        raise CalloutKeysError(f"{file} holds no seed of an account's key; copy it again")
    return key


def _text(file: Path, *, secret: bool = False) -> str:
    """A file's text, which is not empty.

    Raises:
        CalloutKeysError: there is none.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_LONGEST)
        text = content.decode("ascii").strip()
    except OSError as error:
        raise CalloutKeysError(
            f"{file} cannot be read ({error.strerror}); "
            "copy the site's keys folder there as `imageinvoker site add` has made it"
        ) from None
    except UnicodeDecodeError:
        text = ""
    if secret and os.name == "posix" and mode & _NOT_OURS:
        raise CalloutKeysError(f"{file} is open to others; keep it by chmod 600")
    if not text:
        raise CalloutKeysError(f"{file} holds nothing that can be read; copy it again")
    return text
