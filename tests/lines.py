"""Lines between servers that can be cut and mended.

Where the system lets us, a line is a pair of virtual network cards into a network namespace of our
own: what is sent over a cut one vanishes, as in life. Elsewhere it is a relay on this machine,
which breaks each connection off; it can be slow, too.
"""

import asyncio
import contextlib
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Protocol

_CHUNK: Final = 65_536
_LIMIT: Final = 10.0


class Way(Protocol):
    """Where a server is reached."""

    @property
    def host(self) -> str:
        """The address at its near end."""

    @property
    def port(self) -> int:
        """The port at its near end."""


class Line(Way, Protocol):
    """A way that can be cut."""

    async def cut(self) -> None:
        """Nothing gets through any more."""

    async def mend(self) -> None:
        """It can be used again."""


class Relay:
    """A line to a port of this machine, on a port of its own."""

    host = "127.0.0.1"

    def __init__(self, to: int, *, delay: float = 0.0) -> None:
        """``delay`` is the seconds that everything takes over it, each way."""
        self._to = to
        self._delay = delay
        self._whole = True
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Relay"]:
        """It is there meanwhile."""
        server = await asyncio.start_server(self._meet, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                yield self
            finally:
                await self.cut()

    async def cut(self) -> None:
        """Whoever speaks over it is cut off, and nobody gets through any more."""
        self._whole = False
        for relay in self._relays:
            relay.cancel()
        if self._relays:
            await asyncio.wait(self._relays)

    async def mend(self) -> None:
        """It can be used again."""
        self._whole = True

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        relay = asyncio.create_task(self._relay(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ExceptionGroup):
            far_reader, far_writer = await asyncio.open_connection(self.host, self._to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pour(reader, far_writer))
                    group.create_task(self._pour(far_reader, writer))
            finally:
                far_writer.transport.abort()
                writer.transport.abort()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


class Namespace:
    """A network namespace that only what is started within it sees."""

    def __init__(self, name: str) -> None:
        """
        Raises:
            OSError: the system does not let us make one.
        """
        self.name: Final = name
        _ip("netns", "add", name)
        self.within: Final = ["ip", "netns", "exec", name]
        _ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """It goes, with the lines into it."""
        _ip("netns", "delete", self.name)


class Cable:
    """A pair of virtual network cards: one here, one in a namespace, a subnet of their own."""

    def __init__(self, space: Namespace, port: int) -> None:
        """A line to a port that somebody in the namespace listens on."""
        number = random.randrange(2**13)
        # 198.18.0.0/15 is for measuring networks (RFC 2544): nobody's addresses are from there.
        net = f"198.{18 + number // 2**12}.{number // 16 % 256}"
        last = number % 16 * 16
        self.host: Final = f"{net}.{last + 2}"
        self.port: Final = port
        self._card: Final = f"ii{number}"
        far = f"{self._card}f"
        _ip("link", "add", self._card, "type", "veth", "peer", "name", far, "netns", space.name)
        _ip("address", "add", f"{net}.{last + 1}/30", "dev", self._card)
        _ip("-n", space.name, "address", "add", f"{self.host}/30", "dev", far)
        _ip("-n", space.name, "link", "set", far, "up")
        _ip("link", "set", self._card, "up")

    async def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        await asyncio.to_thread(_ip, "link", "set", self._card, "down")

    async def mend(self) -> None:
        """It can be used again."""
        await asyncio.to_thread(_ip, "link", "set", self._card, "up")


@contextmanager
def namespace() -> Iterator[Namespace | None]:
    """A network namespace, or None where the system does not let us make one."""
    try:
        space = Namespace(f"ii{random.randrange(10**9)}")
    except OSError:
        yield None
        return
    try:
        yield space
    finally:
        space.remove()


def _ip(*arguments: str) -> None:
    """Runs `ip`.

    Raises:
        OSError: it is not there, or is not let.
    """
    try:
        subprocess.run(["ip", *arguments], check=True, timeout=_LIMIT, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.decode()) from error
