"""`python -m bench.echo SERVER SUBJECT FILE`: answers every request with the bytes of a file.

Nothing but nats-py and the event loop the services have: the most that a service of this kind
could reach.
"""

import asyncio
import sys
from pathlib import Path

import nats
import uvloop
from nats.aio.msg import Msg


async def _serve(server: str, subject: str, answer: bytes) -> None:
    connection = await nats.connect(server)

    async def respond(message: Msg) -> None:
        await message.respond(answer)

    await connection.subscribe(subject, cb=respond)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
