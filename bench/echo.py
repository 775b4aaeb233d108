"""`python -m bench.echo SERVER SUBJECT FOLDER`: answers each machine with the bytes of its file.

Nothing but nats-py and the event loop the services have: the most that a service of this kind
could reach. It listens on SUBJECT.*, and the file of an answer is named after the last token, the
machine's key.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import nats
import uvloop
from nats.aio.msg import Msg

from bus.subjects import machine_of


async def _serve(server: str, subject: str, answers: Mapping[str, bytes]) -> None:
    connection = await nats.connect(server)

    async def respond(message: Msg) -> None:
        await message.respond(answers[machine_of(message.subject)])

    await connection.subscribe(f"{subject}.*", cb=respond)
    await asyncio.Event().wait()


if __name__ == "__main__":
    files = Path(sys.argv[3]).iterdir()
    uvloop.run(_serve(sys.argv[1], sys.argv[2], {file.name: file.read_bytes() for file in files}))
