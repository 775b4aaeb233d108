"""A line to a server of the bus that ends when it should, encrypted or not."""

import asyncio
import contextlib
import ssl
from typing import Final
from urllib.parse import ParseResult

from nats.aio.client import PING_OP, PONG_PROTO
from nats.aio.transport import TcpTransport

_FAREWELL: Final = 1.0
"""Seconds in which a line must have ended; Python waits 30 for a dead server's word of parting."""


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

    def _told(self, what: str) -> object:
        return None if self._io_writer is None else self._io_writer.get_extra_info(what)
