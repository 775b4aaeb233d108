"""What `docs/scaling.md` reckons of a thousand sites, from the tables of that page. Pure.

Nothing is measured here. Whatever is not in a table of the page is a constant below.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bench.scale_report import table
from bus.subjects import EVENTS, LIVE, REJECTED, REQUESTS, TRIES

SITES: Final = 1_000
MACHINES: Final = 1_000_000
"""Each is deployed once a month."""
DAYS: Final = 20
"""Working days of a month."""
HOURS: Final = 4
"""Hours of a day in which machines are deployed."""
JOBS: Final = 10
"""Jobs of an item."""
AT_PORTAL: Final = 300.0
"""Seconds that a machine is connected."""
STORM: Final = (10_000, 60.0)
"""Machines of one site, and the seconds in which they come."""
REJECTIONS: Final = 0.01
"""The share of requests that are rejected."""

EVENTS_DAYS: Final = 90
REJECTED_DAYS: Final = 30
LIVE_DAYS: Final = 2
TRIES_DAYS: Final = 1
"""For how long streams and buckets keep what they hold, as `bus/buckets.py` makes them."""
REMEMBERED: Final = 3600
"""Seconds for which the bus remembers the ids of what it has kept, as made there too."""

CONSUMERS: Final = 1_000
"""What NATS 2.15 and later allow on a stream unless told otherwise (`default_max_consumers`)."""
CONSUMERS_SET: Final = 20_000
STORE_SET: Final = 10e9
"""What `deploy/nats/nats.conf` allows: consumers on a stream, and bytes of all streams."""
CONNECTIONS: Final = 65_536
"""What NATS allows unless told otherwise (`max_connections`)."""
FSYNCS: Final[Mapping[str, float]] = {
    "1 ms (a good SSD in a datacentre)": 0.001,
    "5 ms (a network disk)": 0.005,
    "10 ms (a turning disk)": 0.010,
}

_KINDS_OF_JOBS: Final = 3
"""Kinds of events that tell how far the jobs are: started, finished, and that of the whole."""


def reckoned(page: str) -> str:
    """The tables of the reckoning.

    Raises:
        ValueError: the page lacks a measure that is reckoned with.
    """
    sites = {name: cells[-1] for name, cells in rows(page, "sites").items()}
    try:
        journey = Journey(rows(page, "journey"), sites["a journey: messages, in and out"])
        on_bus = max(rows(page, "copies")["bus, ms of processor a journey"]) / 1000
        return _tables(journey, sites, on_bus)
    except KeyError as error:
        raise ValueError(f"the page does not tell what is reckoned with: {error}") from error


def _tables(journey: "Journey", sites: Mapping[str, float], on_bus: float) -> str:
    return "\n\n".join(
        (
            table(_deployment(journey)),
            table(_rates(journey, sites, on_bus)),
            table(_streams(journey)),
            table(_ends(journey, sites, on_bus)),
            table(_disks(journey)),
        )
    )


def rows(page: str, name: str) -> dict[str, list[float]]:
    """The numbers of each row of the tables between two marks of the page, by what it begins with.

    Where two rows begin alike, the numbers of both.

    Raises:
        ValueError: there are no such marks.
    """
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    if not found:
        raise ValueError(f"the page has no place for {name}")
    numbers: dict[str, list[float]] = {}
    for line in found[1].splitlines():
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        for cell in others:
            if number := re.fullmatch(r"(\d[\d,]*(?:\.\d+)?)(?: %)?", cell):
                numbers.setdefault(first, []).append(float(number[1].replace(",", "")))
    return numbers


class Journey:
    """What a journey takes, and what the jobs that follow it take, as far as it is reckoned."""

    def __init__(self, measured: Mapping[str, Sequence[float]], messages: float) -> None:
        """Takes the rows of the table of a journey, counts and bytes, and its messages in and out.

        Raises:
            KeyError, ValueError: one is missing.
        """
        told = [cells for name, cells in measured.items() if name.startswith("event ")]
        heard, size = (sum(each) for each in zip(*told, strict=True))
        # What is not sent or kept at all has no row.
        tries, live = (measured.get(f"bucket {name}", (0,))[0] for name in (TRIES, LIVE))
        self.tries_bytes, self.live_bytes = (
            measured.get(f"KV_{name}", (0,))[0] for name in (TRIES, LIVE)
        )
        self.bytes = measured["all"][1]
        self.request_bytes = measured["request"][1] / measured["request"][0]
        self.kept = measured[EVENTS][0]
        self.subject_memory = measured["a subject more of `IMAGING_EVENTS`"][0]
        self.event_memory = measured["an event, for an hour"][0]
        self.fsync = measured["an fsync"][0] / 1000
        self.messages = messages
        self.kinds = len(told)
        """Events of a journey, each of another kind."""
        self.later = 2 * JOBS + 1
        """Events of its jobs: each begins and ends, and so does the whole."""
        # One job ends and the next begins within one look, and the live view tells both at once.
        written = JOBS + 1
        # Beside being heard, each is acknowledged.
        self.later_messages = self.later * (heard / self.kinds + 1) + 2 * written
        self.later_bytes = self.later * size / self.kinds + written * self.live_bytes
        # A request is kept, and then noted as done.
        self.flushes = self.kinds + 2 + tries + live
        self.later_flushes = self.later + written
        self.later_kept = self.later * self.kept / self.kinds

    @property
    def events(self) -> int:
        """Events of a deployment to its end."""
        return self.kinds + self.later


def _deployment(journey: Journey) -> list[list[str]]:
    def row(name: str, first: float, later: float, digits: int = 0) -> list[str]:
        return [name, *(f"{each:,.{digits}f}" for each in (first, later, first + later))]

    return [
        ["one deployment", "the journey", f"its {JOBS} jobs", "together"],
        row("events", journey.kinds, journey.later),
        row("messages in and out of the bus", journey.messages, journey.later_messages),
        row("kB on the bus", journey.bytes / 1e3, journey.later_bytes / 1e3, 1),
        row("fsyncs of the bus", journey.flushes, journey.later_flushes, 1),
        row("kB kept in `IMAGING_EVENTS`", journey.kept / 1e3, journey.later_kept / 1e3, 1),
    ]


def _day() -> tuple[float, float]:
    """Deployments of a day, and of a second of its hours."""
    day = MACHINES / DAYS
    return day, day / (HOURS * 3600)


def _rates(journey: Journey, sites: Mapping[str, float], on_bus: float) -> list[list[str]]:
    _, rate = _day()
    machines, seconds = STORM
    storm = machines / seconds
    rest = SITES * sites["at rest: messages a second and site, in and out"]
    bus = SITES * sites["at rest: bus, ms of processor a second and site"] / 1000
    messages, size = journey.messages + journey.later_messages, journey.bytes + journey.later_bytes
    flushes = journey.flushes + journey.later_flushes
    remembered = machines * journey.kinds * (journey.event_memory + journey.subject_memory)
    each = {name.removesuffix(" a site"): SITES * count for name, count in sites.items()}
    consumers = [SITES * count for count in _consumers(sites)]
    lines = (
        ("journeys a second", "0", f"{rate:.1f}", f"{storm:.0f}"),
        (
            "messages a second, in and out",
            f"{rest:,.0f}", f"{rate * messages:,.0f}", f"{storm * journey.messages:,.0f}",
        ),
        ("MB a second", "", f"{rate * size / 1e6:.2f}", f"{storm * journey.bytes / 1e6:.1f}"),
        ("fsyncs a second", "0", f"{rate * flushes:,.0f}", f"{storm * journey.flushes:,.0f}"),
        (
            "cores of processor",
            f"{bus:.1f}", f"{rate * on_bus * messages / journey.messages:.2f}",
            f"{storm * on_bus:.1f}",
        ),
        (
            "connections",
            f"{each['connections']:,.0f}", f"{rate * AT_PORTAL:,.0f}", f"up to {machines:,}",
        ),
        ("subscriptions", f"{each['subscriptions']:,.0f}", "", ""),
        ("consumers", f"{sum(consumers):,.0f}", "", ""),
        ("of these on the stream with most", f"{max(consumers):,.0f}", "", ""),
        (
            "GB of memory",
            f"{each['bus, MB'] / 1e3:.1f}", f"{_memory(journey) / 1e9:.1f}",
            f"{remembered / 1e9:.2f}",
        ),
    )  # fmt: skip
    return [["on the bus", "at rest", "a normal day adds", "a storm adds"], *map(list, lines)]


def _consumers(sites: Mapping[str, float]) -> list[float]:
    return [count for name, count in sites.items() if name.startswith("consumers a site of ")]


def _subjects(journey: Journey) -> float:
    """Subjects of `IMAGING_EVENTS`, when every machine has been deployed within its days."""
    return MACHINES * (journey.kinds + _KINDS_OF_JOBS)


def _memory(journey: Journey) -> float:
    """Bytes of memory for the subjects of all machines, and for the ids of an hour of the day."""
    ids = _day()[1] * journey.events * REMEMBERED
    return _subjects(journey) * journey.subject_memory + ids * journey.event_memory


def _streams(journey: Journey) -> list[list[str]]:
    day, _ = _day()
    events = journey.kept + journey.later_kept
    return [
        ["stream or bucket", "kept for", "bytes each", "a day", "in all"],
        _stream(EVENTS, f"{EVENTS_DAYS} days", events, day, EVENTS_DAYS * DAYS / 30),
        _stream(REQUESTS, "until carried out", journey.request_bytes, day, 0),
        _stream(
            REJECTED,
            f"{REJECTED_DAYS} days",
            journey.request_bytes,
            REJECTIONS * day,
            REJECTED_DAYS * DAYS / 30,
        ),
        _stream(LIVE, f"{LIVE_DAYS} days", journey.live_bytes, day, LIVE_DAYS),
        _stream(TRIES, f"{TRIES_DAYS} day", journey.tries_bytes, day, TRIES_DAYS),
    ]


def _stream(name: str, kept: str, each: float, a_day: float, days: float) -> list[str]:
    daily = each * a_day
    return [f"`{name}`", kept, f"{each:,.0f}", _bytes(daily), _bytes(daily * days)]


def _bytes(count: float) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count else "nearly nothing"


def _ends(journey: Journey, sites: Mapping[str, float], on_bus: float) -> list[list[str]]:
    day, rate = _day()
    most = max(_consumers(sites))
    store = STORE_SET / ((journey.kept + journey.later_kept) * day)
    rest = sites["at rest: bus, ms of processor a second and site"] / 1000
    each = sites["connections a site"] + rate * AT_PORTAL / SITES
    return [
        ["limit", "reached at"],
        [f"{CONSUMERS:,} consumers of a stream (NATS's default)", f"{CONSUMERS / most:,.0f} sites"],
        [f"{CONSUMERS_SET:,} (`deploy/nats`)", f"{CONSUMERS_SET / most:,.0f} sites"],
        [
            f"{STORE_SET / 1e9:.0f} GB of `max_file_store` (`deploy/nats`)",
            f"{store:.0f} working days of {day:,.0f} deployments",
        ],
        ["a core of the bus, at rest", f"{1 / rest:,.0f} sites"],
        ["a core of the bus, journeys", f"{1 / on_bus:,.0f} a second"],
        [f"{CONNECTIONS:,} connections (NATS's default)", f"{CONNECTIONS / each:,.0f} sites"],
    ]


def _disks(journey: Journey) -> list[list[str]]:
    here = {f"{1000 * journey.fsync:.2f} ms (the machine of this page)": journey.fsync}
    head = [
        "an fsync takes",
        "messages a second in one stream",
        f"journeys a second ({journey.kinds} events)",
        f"deployments a second to their end ({journey.events} events)",
    ]
    return [
        head,
        *(
            [
                name,
                f"{1 / each:,.0f}",
                f"{1 / each / journey.kinds:,.0f}",
                f"{1 / each / journey.events:,.1f}",
            ]
            for name, each in (here | dict(FSYNCS)).items()
        ),
    ]
