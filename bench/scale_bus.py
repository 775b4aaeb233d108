"""What the bus tells of itself, and what goes over it."""

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct
from nats.aio.msg import Msg

from bench.harness import MeasureError
from bus.connection import connect

_TIMEOUT: Final = 30.0


class BusCounts(Struct, frozen=True, kw_only=True):
    """What a server has counted so far, and what there is on it now; bytes."""

    messages_in: int
    messages_out: int
    connections: int
    subscriptions: int
    consumers: Mapping[str, int]
    """The consumers of each stream."""
    streams: Mapping[str, int]
    """The bytes of each stream."""


def monitored(address: str) -> BusCounts:
    """What the server tells at the address of its monitoring.

    Raises:
        MeasureError: it does not answer.
    """
    server, jetstream = _page(address, "varz"), _page(address, "jsz?streams=1")
    return counted(server, jetstream)


def counted(server: Mapping[str, object], jetstream: Mapping[str, object]) -> BusCounts:
    """The counts on the server's pages ``varz`` and ``jsz``. Pure.

    Raises:
        MeasureError: a count is missing.
    """
    streams: dict[str, int] = {}
    consumers: dict[str, int] = {}
    for account in _list(jetstream, "account_details"):
        for stream in _list(account, "stream_detail"):
            state = stream.get("state")
            if not isinstance(state, dict):
                raise MeasureError("the bus does not tell the state of a stream")
            streams[str(stream["name"])] = _count(state, "bytes")
            consumers[str(stream["name"])] = _count(state, "consumer_count")
    return BusCounts(
        messages_in=_count(server, "in_msgs"),
        messages_out=_count(server, "out_msgs"),
        connections=_count(server, "connections"),
        subscriptions=_count(server, "subscriptions"),
        consumers=consumers,
        streams=streams,
    )


def _page(address: str, name: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(f"{address}/{name}", timeout=_TIMEOUT) as answer:
            page: dict[str, object] = json.load(answer)
    except (OSError, urllib.error.URLError) as error:
        raise MeasureError(f"the bus tells nothing: {error}") from error
    return page


def _list(page: Mapping[str, object], name: str) -> list[dict[str, object]]:
    found = page.get(name)
    return found if isinstance(found, list) else []


def _count(page: Mapping[str, object], name: str) -> int:
    found = page.get(name)
    if not isinstance(found, int):
        raise MeasureError(f"the bus does not tell {name}")
    return found


class Traffic:
    """Messages and their bytes (subject, headers, body), by the kind of their subject."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    async def take(self, message: Msg) -> None:
        """One message more."""
        kind = kind_of(message.subject)
        headers = sum(len(name) + len(value) + 4 for name, value in (message.headers or {}).items())
        self.messages[kind] += 1
        self.bytes[kind] += len(message.subject) + headers + len(message.data)


@asynccontextmanager
async def overheard(server: str) -> AsyncIterator[Traffic]:
    """All that is published meanwhile, by whomever, with what the bus itself sends."""
    traffic = Traffic()
    connection = await connect(server, "listener")
    try:
        await connection.subscribe(">", cb=traffic.take)
        await connection.flush()
        yield traffic
        await connection.flush()
    finally:
        await connection.close()


_KINDS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"imaging\.[^.]+\.event\.[^.]+\.([^.]+)"), r"event \1"),
    (re.compile(r"imaging\.[^.]+\.(request|rejected)\.[^.]+"), r"\1"),
    (re.compile(r"imaging\.[^.]+\.([^.]+)\.([^.]+)\.[^.]+"), r"\1 \2"),
    (re.compile(r"imaging\.[^.]+\.menu-checked"), "between copies"),
    (re.compile(r"\$KV\.([^.]+)\..+"), r"bucket \1"),
    (re.compile(r"\$JS\.API\.([A-Z]+)\.([A-Z]+)\..+"), r"JetStream \1 \2"),
    (re.compile(r"\$JS\.ACK\..+"), "acknowledgements"),
    (re.compile(r"_INBOX.+"), "answers and deliveries"),
)


def kind_of(subject: str) -> str:
    """The kind of a subject: without sites, machines, ids and names of consumers. Pure."""
    for pattern, kind in _KINDS:
        if found := pattern.fullmatch(subject):
            return found.expand(kind)
    return subject.partition(".")[0]


def pid_of(settings: Path) -> int:
    """The process of the server that was started with these settings.

    Raises:
        MeasureError: there is none.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if str(settings).encode() in command:
            return int(process.name)
    raise MeasureError("the bus has ended")


def resident_bytes(process: int) -> float:
    """What a process holds in memory, shared libraries included (VmRSS of proc(5))."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return float(status.partition("VmRSS:")[2].split()[0]) * 1024
