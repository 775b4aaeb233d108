"""Keeps the network up: drivers, links and DHCP of all cards side by side; a process of its own."""

import dataclasses
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from boot.linux import cards, clock, network
from boot.linux.devices import Devices
from boot.linux.network import Card, Network
from boot.linux.told import Told

FILE: Final = cards.RUN / "network.json"
_LESS: Final = 19
"""Of a busy processor it gets what the screen leaves."""
_LOOK: Final = 0.2
"""Seconds between two looks at the links."""
_DHCP: Final = (
    "udhcpc",
    "-f",
    "-R",
    "-t",
    "8",
    "-T",
    "1",
    "-A",
    "4",
    "-O",
    "ntpsrv",
    "-O",
    "search",
)
"""Asks eight times in eight seconds, pauses for four, and so on for ever."""
_SCRIPT: Final = "/usr/lib/imageinvoker/lease"


def start(told: Told) -> int:
    """Starts the keeper; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        # Nothing that is typed on a console concerns it.
        os.setsid()
        os.nice(_LESS)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Keeper(told).keep()
    finally:
        os._exit(1)


def tells() -> Network:
    """What the keeper has told last."""
    now = time.monotonic()
    try:
        told = msgspec.json.decode(FILE.read_bytes(), type=Network)
    except (OSError, msgspec.DecodeError):
        return Network(began=now, at=now)
    return dataclasses.replace(told, at=now)


class Keeper:
    """Looks at the cards again and again, and does for each what is next."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._began = time.monotonic()
        self._leased: float | None = None
        self._asking: dict[str, tuple[float, subprocess.Popen[bytes]]] = {}
        self._clock = clock.Setting(told)

    def keep(self) -> None:
        """For ever."""
        devices = Devices()
        devices.look()
        last = b""
        while True:
            devices.load()
            seen = self._network()
            told = msgspec.json.encode(dataclasses.replace(seen, at=0.0))
            if told != last:
                _tell(told)
                last = told
            if network.state(seen) == "up":
                self._clock.go_on(tuple(each for card in seen.cards for each in card.ntp))
            if select.select([devices], [], [], _LOOK)[0]:
                devices.listen()

    def _network(self) -> Network:
        found = tuple(self._cards())
        now = time.monotonic()
        if self._leased is None and any(card.ip for card in found):
            self._leased = now
        return Network(cards=found, began=self._began, leased=self._leased, at=now)

    def _cards(self) -> Iterator[Card]:
        for number, seen in enumerate(cards.seen()):
            lease = cards.lease(seen.name)
            card = Card(
                name=seen.name,
                address=seen.address,
                driver=seen.driver,
                link=seen.link,
                asked=self._asking[seen.name][0] if seen.name in self._asking else None,
                ip=lease.get("ip", "").partition("/")[0],
                ntp=tuple(lease.get("ntp", "").split()),
                booted=seen.address.lower() == self._told.boot_card,
            )
            self._do_next(card, number)
            yield card

    def _do_next(self, card: Card, number: int) -> None:
        if card.link is None:
            subprocess.run(
                ["ip", "link", "set", card.name, "up"],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=10,
            )  # fmt: skip
            return
        asking = self._asking.get(card.name)
        if card.link and (asking is None or asking[1].poll() is not None):
            metric = network.metric(card, number)
            process = subprocess.Popen(
                [*_DHCP, "-s", _SCRIPT, "-i", card.name],
                env=os.environ | {"IMAGEINVOKER_METRIC": str(metric)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._asking[card.name] = (time.monotonic(), process)


def _tell(told: bytes) -> None:
    draft = FILE.with_suffix(".draft")
    draft.write_bytes(told)
    Path(draft).replace(FILE)
