"""`python -m tests.faults.release VERSION SERVICE`: a copy of a service as another release has it.

It says another version of the wire contract; and as a later one may, it puts a field that nobody
here knows into every message that it sends: answers, events, requests, what it keeps in buckets.
"""

import sys
from typing import Any

import msgspec

from bus import subjects
from bus.connection import Connection
from cli.main import main

_decoder = msgspec.json.Decoder()


class LaterConnection(Connection):
    """What a later release sends."""

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: Any
    ) -> None:
        if payload.startswith(b"{") and not subject.startswith("$JS.API"):
            message = _decoder.decode(payload)
            payload = msgspec.json.encode(message | {"of_a_later_release": {"since": 2}})
        await super()._send_publish(subject, reply, payload, len(payload), headers)


if __name__ == "__main__":
    ours, subjects.VERSION = subjects.VERSION, int(sys.argv[1])
    if ours < subjects.VERSION:
        import bus.connection

        bus.connection.Connection = LaterConnection  # type: ignore[misc]
    main(sys.argv[2:])
