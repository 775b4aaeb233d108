"""What an image of Windows PE holds of the client: looked at from outside."""

import json
import time
from dataclasses import dataclass
from typing import Final, Literal

from boot.winpe import CLIENT, MENU, NOTE
from boot.winpe_scripts import CA, CREDENTIAL, added, script_text, server_in
from boot.winpe_startup import STARTNET, WINPESHL, has_call
from boot.winpe_wim import Wim
from bus.__about__ import __version__
from bus.boot_credential import CLOCK_SKEW, CredentialRefused, read
from client.words import plain

_AGAIN: Final = "Put the client in anew: imageinvoker boot winpe --wim FILE --in-place ..."
_SOON: Final = 30 * 86_400
"""Seconds before its end from which a credential is worth a word."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at; what is wrong with it has a ``cure``."""

    check: str
    state: Literal["ok", "warn", "fail"]
    text: str
    cure: str = ""


def look_into(wim: Wim, index: int) -> list[Seen]:
    """Whether the client is there, which version, which server, and whether something starts it.

    Raises:
        ImageError: the image cannot be read.
    """
    here = wim.files(index)
    note = wim.read(index, NOTE)
    if note is None:
        return [Seen("client", "fail", "is not in this image", _AGAIN)]
    menu = wim.read(index, MENU)
    seen = [_client(note), *_files(here), *_told(here, menu)]
    if f"{CLIENT}/{CREDENTIAL}".lower() in here:
        seen.append(_credential(wim.read(index, f"{CLIENT}/{CREDENTIAL}") or b""))
    if has_call(wim.read(index, WINPESHL), wim.read(index, STARTNET)):
        seen.append(Seen("start", "ok", "Windows PE calls the portal when it starts"))
    else:
        cure = r"Unless something else calls X:\startup\menu.bat: put it in without --no-start."
        seen.append(Seen("start", "warn", "nothing calls the portal when Windows PE starts", cure))
    return seen


def _client(note: bytes) -> Seen:
    try:
        said = json.loads(note)
        version, python = str(said["version"]), str(said["python"])
    except (ValueError, KeyError, TypeError):
        return Seen("client", "fail", "is there, but its image.json is damaged", _AGAIN)
    text = f"version {version}, with Python {python}"
    if version != __version__:
        return Seen("client", "warn", f"{text}; here is {__version__}", _AGAIN)
    return Seen("client", "ok", text)


def _files(here: frozenset[str]) -> list[Seen]:
    needed = ("python.exe", "Lib/site-packages/cli/__main__.py", "Lib/site-packages/client/main.py")
    missing = [name for name in needed if f"{CLIENT}/{name}".lower() not in here]
    return [Seen("files", "fail", f"{', '.join(missing)} missing", _AGAIN)] if missing else []


def _told(here: frozenset[str], menu: bytes | None) -> list[Seen]:
    if menu is None:
        return [Seen("menu.bat", "fail", r"X:\startup\menu.bat is not there", _AGAIN)]
    text = script_text(menu)
    server = server_in(text)
    if server is None:
        cure = _AGAIN + " --server tls://HOST:PORT"
        return [Seen("server", "fail", "menu.bat names none", cure)]
    options = plain(added(text).strip())
    seen = [Seen("server", "ok", f"{server}{', with ' + options if options else ''}")]
    for variable, name in (("CA", CA), ("BOOT_CREDENTIAL", CREDENTIAL)):
        if f"IMAGEINVOKER_{variable}=" in text and f"{CLIENT}/{name}".lower() not in here:
            seen.append(Seen(name, "fail", "is named in menu.bat, but is not there", _AGAIN))
    if server.startswith("tls://") and f"{CLIENT}/{CA}".lower() not in here:
        cure = "An estate's servers have certificates of its own: --ca ca.pem"
        seen.append(Seen(CA, "warn", "is not there: Windows' own authorities are believed", cure))
    return seen


def _credential(content: bytes) -> Seen:
    try:
        said = read(content.decode("ascii", "replace").strip())
    except CredentialRefused:
        return Seen("credential", "fail", "is damaged", _AGAIN)
    until = time.strftime("%Y-%m-%d", time.gmtime(said.expires))
    text = f"of estate {said.estate}, image {said.image}, good until {until}"
    now = time.time()
    if now >= said.expires:
        return Seen("credential", "fail", f"{text}: it has expired", _AGAIN)
    if now < said.issued - CLOCK_SKEW:
        return Seen("credential", "warn", f"{text}: not valid yet", "Is the clock here right?")
    if now > said.expires - _SOON:
        return Seen("credential", "warn", f"{text}: soon no longer", _AGAIN)
    return Seen("credential", "ok", text)
