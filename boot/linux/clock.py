"""The clock, right enough for a certificate to be checked.

A clock that stands before the image was made is wrong for sure and is set to that time: nothing
ever sets it back beyond. What the time is after that is asked of time servers (SNTP, RFC 4330), if
DHCP or the command line names any, and of the server's certificate: when it begins has passed for
sure, since the authority has signed it. This is done for a clock that was wrong, or with which the
portal does not come in; once it is in, it sets the clock by what the server says.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from boot.linux.told import Told

_SINCE_1900: Final = 2_208_988_800
"""Seconds between the beginnings of NTP's time and of Unix's."""
_ERA: Final = 1 << 32
_ANSWER: Final = struct.Struct(">B39xII")
_SERVER: Final = 4
_PATIENCE: Final = 2.0
_PAUSE: Final = 5.0
_NO_CHECK_OF_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, of OpenSSL."""
_LONGEST_PAUSE: Final = 600.0
_ENOUGH: Final = 2.0
"""Seconds that a clock may be off without being set."""


def not_before(floor: int) -> bool:
    """Sets the clock to ``floor`` if it stands before; whether it did."""
    if time.time() >= floor:
        return False
    _set(floor)
    return True


class Setting:
    """Sets the clock, each time in a process of its own, for as long as it may be off."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._is_wrong = not_before(told.floor)
        self._next: float | None = None
        self._pause = _PAUSE

    def go_on(self, ntp: tuple[str, ...]) -> None:
        """Tells that the network is up, and which time servers DHCP has named; does not wait."""
        now = time.monotonic()
        if self._next is None:
            self._next = now if self._is_wrong else now + _PAUSE
        if now < self._next:
            return
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if os.fork() == 0:
            try:
                set_by((*self._told.ntp, *ntp), self._told)
            finally:
                os._exit(0)


def set_by(ntp: Iterable[str], told: Told) -> None:
    """Sets the clock by the first time server that answers, else by the server's certificate."""
    for server in ntp:
        with contextlib.suppress(OSError, ValueError):
            moment = asked(server)
            if moment >= told.floor:
                if abs(moment - time.time()) > _ENOUGH:
                    _set(moment)
                return
    for address in filter(None, map(str.strip, told.server.split(","))):
        with contextlib.suppress(OSError, ValueError):
            begins = certificate_begins(address, told.ca)
            if begins is not None and begins > time.time():
                _set(begins)
            return


def asked(server: str) -> float:
    """The time by a time server, in seconds since 1970.

    Raises:
        OSError: it cannot be asked, or does not answer within two seconds.
        ValueError: its answer makes no sense.
    """
    kind, _, _, _, place = socket.getaddrinfo(server, 123, type=socket.SOCK_DGRAM)[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as line:
        line.settimeout(_PATIENCE)
        line.connect(place)
        sent = os.urandom(8)
        line.send(question(sent))
        return answered(line.recv(512), sent)


def question(sent: bytes) -> bytes:
    """What is sent to a time server; ``sent`` are 8 bytes that it repeats."""
    version_and_client = 4 << 3 | 3
    return bytes((version_and_client,)) + bytes(39) + sent


def answered(answer: bytes, sent: bytes) -> float:
    """The time in a time server's answer to a question with ``sent``, in seconds since 1970.

    Raises:
        ValueError: it is no answer to this question, or of a server that has no time itself.
    """
    if len(answer) < 48 or answer[24:32] != sent:
        raise ValueError("no answer to this question")
    first: int
    seconds: int
    fraction: int
    first, seconds, fraction = _ANSWER.unpack_from(answer)
    stratum = answer[1]
    if first & 7 != _SERVER or first >> 6 == 3 or not 1 <= stratum <= 15 or seconds == 0:
        raise ValueError("a server without the time")
    # The count of seconds began anew in 2036; nobody asks for a time before 1968 (RFC 4330, 3).
    era = 0 if seconds & 0x80000000 else _ERA
    return float(seconds + era - _SINCE_1900 + fraction / _ERA)


def certificate_begins(address: str, ca: str | None) -> float | None:
    """When the certificate of a server begins, in seconds since 1970; None of one without.

    The authority and the name are checked, and only the dates are not: nothing is told to it.

    Raises:
        OSError: it cannot be reached, or is not believed.
    """
    # Only here: what comes before the first screen does without.
    import ssl  # noqa: PLC0415

    parts = urlsplit(address if "//" in address else f"nats://{address}")
    if parts.scheme not in {"tls", "wss"} or parts.hostname is None:
        return None
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_OF_TIME)
    with socket.create_connection((parts.hostname, parts.port or 4222), _PATIENCE) as line:
        if parts.scheme == "tls":
            _hear_out(line)  # a NATS server speaks first, before it encrypts
        with context.wrap_socket(line, server_hostname=parts.hostname) as safe:
            begins = (safe.getpeercert() or {}).get("notBefore")
    return float(ssl.cert_time_to_seconds(begins)) if isinstance(begins, str) else None


def _hear_out(line: socket.socket) -> None:
    """Reads one line."""
    for _ in range(16_384):
        if line.recv(1) in {b"\n", b""}:
            return


def _set(moment: float) -> None:
    with contextlib.suppress(OSError):
        time.clock_settime(time.CLOCK_REALTIME, moment)
