"""Reads the options file of an old installation, ``menu_options.ini``. Pure.

No list of its keys was ever published, so the obvious spellings of each option are accepted, with
or without sections, and what is not understood is named.
"""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from bus import options
from bus.options import OptionError

_SPELLINGS: Final[dict[str, str]] = {
    "timeout": "timeout",
    "menutimeout": "timeout",
    "clienttimeout": "timeout",
    "timeoutseconds": "timeout",
    "menutype": "menu_type",
    "menustyle": "menu_type",
    "rootfolder": "root_folder",
    "root": "root_folder",
    "imageinvokerrootfolder": "root_folder",
    "menurootfolder": "root_folder",
    "tag": "tag",
    "menutag": "tag",
    "mayrename": "may_rename",
    "allowrename": "may_rename",
    "clientrename": "may_rename",
    "enablerename": "may_rename",
    "enableclientrename": "may_rename",
    "disablerename": "!may_rename",
    "disableclientrename": "!may_rename",
    "norename": "!may_rename",
    "protection": "protection",
    "passwordprotection": "protection",
    "clientmenupasswordprotection": "protection",
    "menupasswordprotection": "protection",
    "authentication": "protection",
    "auth": "protection",
    "detailedlogging": "detailed_logging",
    "enabledetailedlogging": "detailed_logging",
    "debug": "detailed_logging",
    "verbose": "detailed_logging",
    "logging": "detailed_logging",
    "hash": options.PASSWORD,
    "password": options.PASSWORD,
    "passwordhash": options.PASSWORD,
    "md5": options.PASSWORD,
    "md5hash": options.PASSWORD,
    "menupassword": options.PASSWORD,
}
_MENU_TYPES: Final = {
    "flat": "flat",
    "0": "flat",
    "folder": "folders",
    "folders": "folders",
    "tree": "folders",
    "hierarchical": "folders",
    "hierachical": "folders",
    "hierarchy": "folders",
    "1": "folders",
}
_PROTECTIONS: Final = {"": "none", "0": "none", "1": "hash"}
_YES: Final = frozenset({"1", "yes", "true", "on", "enabled", "detailed"})
_NO: Final = frozenset({"0", "no", "false", "off", "disabled", "normal", "basic", ""})
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_ENCODINGS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


class OldOptions(Struct, frozen=True):
    """What an old file said: values as the bucket keeps them, and the lines that say nothing."""

    values: dict[str, bytes]
    not_understood: list[str]


def read_old_options(data: bytes) -> OldOptions:
    """The options in the file ``data``, of whatever encoding Windows gave it.

    Raises:
        ValueError: it is no text.
    """
    values: dict[str, bytes] = {}
    not_understood: list[str] = []
    for number, line in enumerate(map(str.strip, _text(data).splitlines()), 1):
        if not line or line[0] in ";#" or re.fullmatch(r"\[.*\]", line):
            continue
        key, separator, value = line.partition("=")
        name = _SPELLINGS.get(re.sub(r"[^a-z0-9]", "", key.lower()))
        if not separator or name is None:
            not_understood.append(f"line {number}: {key.strip()[:64]}")
            continue
        try:
            option, parsed = _value(name, value.strip().strip('"'))
        except OptionError as error:
            not_understood.append(f"line {number}: {error}")
        else:
            values[option] = parsed
    return OldOptions(values, not_understood)


def _text(data: bytes) -> str:
    encoding = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        raise ValueError("it is no text")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _value(name: str, value: str) -> tuple[str, bytes]:
    if name == options.PASSWORD:
        if not _MD5.fullmatch(value.lower()):
            # The value may be a password in clear, so it is not repeated.
            raise OptionError(
                "a password that is no MD5 hash; set one: imageinvoker options password"
            )
        return name, f"md5${value.lower()}".encode()
    option = name.removeprefix("!")
    return option, options.parse(option, _CONVERSIONS.get(name, str)(value))


def _yes(value: str) -> str:
    if value.lower() not in _YES | _NO:
        raise OptionError(f"{value[:32]!r} is neither yes nor no.")
    return "true" if value.lower() in _YES else "false"


def _no(value: str) -> str:
    return "false" if _yes(value) == "true" else "true"


_CONVERSIONS: Final[dict[str, Callable[[str], str]]] = {
    "may_rename": _yes,
    "!may_rename": _no,
    "detailed_logging": _yes,
    "menu_type": lambda value: _MENU_TYPES.get(value.lower(), value),
    "protection": lambda value: _PROTECTIONS.get(value.lower(), value.lower()),
    "root_folder": lambda value: value.replace("\\", "/").strip("/"),
}
