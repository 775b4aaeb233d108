"""What the boot client was told: by its arguments, the environment and the kernel command line.

An argument outranks the environment, and the environment the kernel command line. No password may
stand on that: whoever starts a program, looks at a log or listens to the network boot can read it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bus.subjects import valid_site

LONGEST_TIMEOUT: Final = 86_400
"""Seconds in a day, the longest countdown there is."""

_KERNEL_PREFIX = "imageinvoker."
_SECRET = re.compile(r"[^/,\s]*@")
_YES: Final = frozenset({"", "1", "y", "yes", "on", "true"})
_NO: Final = frozenset({"0", "n", "no", "off", "false"})
_OPEN_TO_ALL: Final = (
    "imageinvoker.password on the kernel command line: everybody can read it there. Take it out, "
    "change that password, and give it by IMAGEINVOKER_PASSWORD or by pipe."
)
_IN_ADDRESS: Final = (
    "imageinvoker.server on the kernel command line holds a password or token, which everybody can "
    "read there. Take it out and change it; IMAGEINVOKER_SERVER may hold one."
)
KERNEL_NAMES: Final = frozenset(
    {
        *("server", "site", "timeout", "machine", "item", "name", "username", "ca"),
        *("boot-credential", "password-stdin", "json", "clock"),
        *("then", "network", "floor", "ntp"),
    }
)
"""What may stand behind ``imageinvoker.``; the last few are for boot images of our own."""
_SCHEMES = frozenset({"", "nats", "tls", "ws", "wss"})


class WrongUseError(Exception):
    """Something the client was told makes no sense; the text names it and the cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the boot client goes by.

    ``server`` is None when nobody named one, and so is ``site``: the bus is asked for it then.
    ``timeout`` is in seconds, 0 waits for ever, None leaves it to the site. With an ``item``
    nothing is asked. ``boot_card`` is the hardware address of the network card this machine has
    booted from. ``ca`` holds whom to believe, else it is whom the system believes;
    ``boot_credential`` holds what lets this boot image in. ``sets_clock`` in a boot image, whose
    clock is set by what the server says. ``unknown`` are names on the kernel command line that
    look like ours, but mean nothing.
    """

    server: str | None = field(default=None, repr=False)
    site: str | None = None
    timeout: int | None = None
    machine: Path | None = None
    item: str | None = None
    name: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_stdin: bool = False
    json: bool = False
    boot_card: str | None = None
    ca: Path | None = None
    boot_credential: Path | None = None
    sets_clock: bool = False
    unknown: tuple[str, ...] = ()


def resolve(
    *,
    server: str | None = None,
    site: str | None = None,
    timeout: int | None = None,
    machine: Path | None = None,
    item: str | None = None,
    name: str | None = None,
    password_stdin: bool = False,
    json: bool = False,
    ca: Path | None = None,
    boot_credential: Path | None = None,
    environment: Mapping[str, str],
    kernel: str = "",
) -> Settings:
    """The settings from the arguments, the environment and the kernel command line's text.

    Raises:
        WrongUseError: a value that makes no sense; the text says where it stands.
    """
    # To the kernel a hyphen in a name is as good as an underscore.
    booted = {name.replace("_", "-"): value for name, value in kernel_parameters(kernel)}

    def told(argument: str | None, variable: str | None, parameter: str) -> tuple[str | None, str]:
        kernel_name = _KERNEL_PREFIX + parameter
        if argument:
            return argument, f"--{parameter}"
        if variable and environment.get(variable):
            return environment[variable], variable
        return booted.get(kernel_name) or None, f"{kernel_name} on the kernel command line"

    if _KERNEL_PREFIX + "password" in booted:
        raise WrongUseError(_OPEN_TO_ALL)
    if "@" in booted.get(_KERNEL_PREFIX + "server", ""):
        raise WrongUseError(_IN_ADDRESS)
    where, where_from = told(server, "IMAGEINVOKER_SERVER", "server")
    token, token_from = told(site, "IMAGEINVOKER_SITE", "site")
    trusted = told(_argument(ca), "IMAGEINVOKER_CA", "ca")[0]
    credential = told(
        _argument(boot_credential), "IMAGEINVOKER_BOOT_CREDENTIAL", "boot-credential"
    )[0]
    if where and (credential or "@" in where):
        _safe(_server(where, where_from), where_from, credential)
    described = told(_argument(machine), None, "machine")[0]
    seconds, seconds_from = told(None if timeout is None else str(timeout), None, "timeout")
    return Settings(
        server=_server(where, where_from) if where else None,
        site=_site(token, token_from) if token else None,
        timeout=_seconds(seconds, seconds_from) if seconds else None,
        machine=Path(described) if described else None,
        item=told(item, None, "item")[0],
        name=told(name, None, "name")[0],
        username=told(None, "IMAGEINVOKER_USERNAME", "username")[0],
        password=environment.get("IMAGEINVOKER_PASSWORD") or None,
        password_stdin=password_stdin or _is_set(booted, "password-stdin"),
        json=json or _is_set(booted, "json"),
        boot_card=boot_card(booted.get("BOOTIF", "")),
        ca=Path(trusted) if trusted else None,
        boot_credential=Path(credential) if credential else None,
        sets_clock=_clock(booted.get(f"{_KERNEL_PREFIX}clock", "")),
        unknown=tuple(
            name
            for name in booted
            if name.startswith(_KERNEL_PREFIX)
            and name.removeprefix(_KERNEL_PREFIX) not in KERNEL_NAMES
        ),
    )


def _is_set(booted: Mapping[str, str], flag: str) -> bool:
    """A flag may stand alone, as the kernel's own do, or say yes or no."""
    name = _KERNEL_PREFIX + flag
    value = booted.get(name, "no").lower()
    if value not in _YES | _NO:
        raise WrongUseError(f"{name} on the kernel command line: {value!r} is neither yes nor no.")
    return value in _YES


def shown(server: str) -> str:
    """The addresses fit to be shown: without any user, password or token in them."""
    return _SECRET.sub("", server)


def read_kernel_command_line(path: Path = Path("/proc/cmdline")) -> str:
    """The text this system's kernel was started with; nothing where there is no such thing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def kernel_parameters(text: str) -> Iterator[tuple[str, str]]:
    """Each parameter with its value, in order, by the kernel's own rules of quoting.

    Double quotes hold white space together, around a value or around the whole parameter; there is
    no escape for a quote (Linux, ``lib/cmdline.c``, ``next_arg``).
    """
    for word in _words(text):
        name, _, value = word.strip('"').partition("=")
        yield name, value.strip('"')


def _words(text: str) -> Iterator[str]:
    word = ""
    quoted = False
    for char in text:
        if char == '"':
            quoted = not quoted
        if char.isspace() and not quoted:
            if word:
                yield word
            word = ""
        else:
            word += char
    if word:
        yield word


def _server(text: str, told_by: str) -> str:
    for address in filter(None, map(str.strip, text.split(","))):
        try:
            parts = urlsplit(address if "//" in address else f"//{address}")
            sound = bool(parts.hostname) and parts.scheme in _SCHEMES and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise WrongUseError(
                f"{told_by}: {shown(address)!r} is no address of a server; give nats://HOST:PORT."
            )
    if not text.strip(" ,"):
        raise WrongUseError(f"{told_by}: an address is needed; give nats://HOST:PORT.")
    return text.strip()


def _argument(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _safe(server: str, told_by: str, credential: str | None) -> None:
    """Refuses a server to which a secret would go in the clear."""
    # Only here: a client without a secret starts without it.
    from bus.door import BootLogin, Door, UnprotectedError, addresses_in  # noqa: PLC0415

    try:
        boot = BootLogin("", Path(credential)) if credential else None
        Door(boot=boot).check(addresses_in(server))
    except UnprotectedError as error:
        raise WrongUseError(f"{told_by}: {error}") from error


def _site(text: str, told_by: str) -> str:
    if not valid_site(text):
        raise WrongUseError(
            f"{told_by}: {text!r} is no site; a site is 1 to 32 of a-z, 0-9 and hyphen."
        )
    return text


def _seconds(text: str, told_by: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) > LONGEST_TIMEOUT:
        raise WrongUseError(
            f"{told_by}: {text!r} is no time-out; give seconds from 0 (for ever) "
            f"to {LONGEST_TIMEOUT}."
        )
    return int(text[:9])


def _clock(text: str) -> bool:
    if text not in {"", "server", "keep"}:
        raise WrongUseError(
            f"imageinvoker.clock on the kernel command line: {text!r} is neither server nor keep."
        )
    return text == "server"


def boot_card(text: str) -> str | None:
    """The address in PXELINUX's ``BOOTIF``, which puts the hardware type in front of it."""
    address = text.lower().replace("-", ":")
    return address[3:] if len(address) == len("01:00:11:22:33:44:55") else address or None
