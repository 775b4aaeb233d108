"""A TCP server that speaks just enough NATS to write down what a client sends, in its order."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Recorder:
    """What the clients have sent: a line for each command, payloads left out."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._meetings: list[asyncio.Task[None]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client until it leaves."""
        meeting = asyncio.current_task()
        assert meeting is not None
        self._meetings.append(meeting)
        self._writers.append(writer)
        info = {"server_id": "R", "version": "2.12.0", "max_payload": 1_048_576, "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            command = line.decode().strip()
            self.commands.append(command)
            verb, *words = command.split()
            if verb == "PING":
                writer.write(b"PONG\r\n")
            elif verb in {"PUB", "HPUB"}:
                await reader.readexactly(int(words[-1]) + 2)
        writer.close()

    async def end(self) -> None:
        """Ends every connection and waits until all have gone."""
        self.hang_up()
        await asyncio.gather(*self._meetings, return_exceptions=True)

    def hang_up(self) -> None:
        """Ends every connection."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def recorder() -> AsyncIterator[Recorder]:
    """A recorder that listens."""
    record = Recorder()
    server = await asyncio.start_server(record.meet, "127.0.0.1", 0)
    record.port = server.sockets[0].getsockname()[1]
    try:
        yield record
    finally:
        server.close()
        await record.end()
        await server.wait_closed()
