"""A line to a server of the bus: it ends when it should, and whatever comes by it can be read."""

import asyncio
import contextlib
import ssl
from typing import Final
from urllib.parse import ParseResult

from nats.aio.client import PING_OP, PONG_PROTO
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, MAX_CONTROL_LINE_SIZE, Parser

_FAREWELL: Final = 1.0
"""Seconds in which a line must have ended; Python waits 30 for a dead server's word of parting."""
_MISTAKEN: Final = b"\v\f"
"""White space to nats-py, and not to a server."""
_READABLE: Final = bytes.maketrans(_MISTAKEN, b"??")


class Line(TcpTransport):
    """nats-py's own, but for its end.

    nats-py 2.16 waits for ever for the end of a line whose encryption has failed. It lets a server
    send over an encrypted one faster than it reads. And it takes the ping of a server, which asks
    the auth service meanwhile, for a welcome.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given_up = False

    def __bool__(self) -> bool:
        """nats-py puts one of its own in the place of a line that is not up yet."""
        return True

    @property
    def encrypted(self) -> bool:
        """Whether nobody between can listen."""
        return self._told("ssl_object") is not None

    @property
    def peer(self) -> str:
        """The IP address at the other end; empty where there is none."""
        name = self._told("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def certificate_ends(self) -> float | None:
        """When the server's certificate expires, in seconds since 1970."""
        encrypted = self._told("ssl_object")
        if not isinstance(encrypted, ssl.SSLObject):
            return None
        end = (encrypted.getpeercert() or {}).get("notAfter")
        return ssl.cert_time_to_seconds(end) if isinstance(end, str) else None

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """As nats-py does it; a line that cannot be encrypted is given up."""
        try:
            await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        except BaseException:
            self.abort()
            raise
        if self._io_writer is not None:
            encrypted = self._io_writer.transport
            encrypted.get_protocol().connection_made(encrypted)

    def writelines(self, payload: list[bytes]) -> None:
        """Writes messages; encrypted ones together, as each writing makes a record of its own."""
        if self._io_writer is not None:
            self._io_writer.writelines([b"".join(payload)] if self.encrypted else payload)

    async def read(self, buffer_size: int) -> bytes:
        """What has come; an encrypted line is read once more, since it comes in small records."""
        came: bytes = await super().read(buffer_size)
        if came and self.encrypted:
            await asyncio.sleep(0)
            if self._has_more():
                came += await super().read(buffer_size)
        return came

    async def readline(self) -> bytes:
        """The next line of a server that has not welcomed us yet."""
        if self._io_reader is None or self._io_writer is None:
            return b""
        while (line := await self._io_reader.readline()).startswith(PING_OP):
            self._io_writer.write(PONG_PROTO)
        return line

    def close(self) -> None:
        """Ends it, having sent what was written."""
        if self._io_writer is not None and not self._given_up:
            self._io_writer.close()

    async def wait_closed(self) -> None:
        """Returns when it has ended, however that was."""
        if self._io_writer is not None and not self._given_up:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._io_writer.wait_closed()
            self.abort()

    def abort(self) -> None:
        """Ends it at once."""
        self._given_up = True
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    def _has_more(self) -> bool:
        # A reader does not tell, and would wait.
        return bool(getattr(self._io_reader, "_buffer", b""))

    def _told(self, what: str) -> object:
        return None if self._io_writer is None else self._io_writer.get_extra_info(what)


class Reader(Parser):
    """nats-py's own, which a client can stop by where it wants its answer.

    Any character but a space or a tab may stand in a subject for a server. nats-py takes two more
    for white space; then it knows the line for none of the protocol, and hangs up, or waits for the
    rest of it for ever.
    """

    async def parse(self, data: bytes = b"") -> None:
        """Takes what was read.

        Raises:
            ProtocolError: it is none of a server's.
        """
        self.buf.extend(data)
        while True:
            try:
                await super().parse()
            except ProtocolError:
                if not self._mended():
                    raise
            else:
                is_long = len(self.buf) >= MAX_CONTROL_LINE_SIZE
                if not (is_long and self.state == AWAITING_CONTROL_LINE and self._mended()):
                    return

    def _mended(self) -> bool:
        line, end, _ = self.buf.partition(b"\r\n")
        self.buf[: len(line)] = line.translate(_READABLE)
        return bool(end) and any(each in line for each in _MISTAKEN)
