"""A cluster of three real NATS servers, any of which may die."""

import asyncio
import time
import urllib.request
from pathlib import Path
from typing import Final

from tests.buses import BusServer, free_port

_READY_WITHIN: Final = 30.0
_LOOK: Final = 0.1
SIZE: Final = 3


class Member(BusServer):
    """One server of a cluster."""

    def __init__(self, folder: Path, number: int, ports: list[int]) -> None:
        folder.mkdir()
        self._health: Final = free_port()
        routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
        super().__init__(
            folder,
            more=f'server_name: "hub-{number}"\n'
            f'http: "127.0.0.1:{self._health}"\n'
            f'jetstream {{ store_dir: "{folder / "store"}", domain: hub, sync_interval: always }}\n'
            f'cluster {{ name: hub, listen: "127.0.0.1:{ports[number]}", routes: [ {routes} ] }}',
        )

    @property
    def ready(self) -> bool:
        """Whether it has a leader, and all that it keeps is up to date."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=1):
                return True
        except OSError:
            return False


class Cluster:
    """Three servers that keep each message three times, if they are told to."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(SIZE)]
        self.members: Final = [Member(folder / f"hub{each}", each, ports) for each in range(SIZE)]

    @property
    def url(self) -> str:
        """Where clients connect: all of them."""
        return ",".join(member.url for member in self.members)

    def start(self) -> None:
        """Starts all of them."""
        for member in self.members:
            member.start()

    def stop(self) -> None:
        """Ends all of them."""
        for member in self.members:
            member.stop()

    async def ready(self) -> None:
        """Returns when each server is."""
        deadline = time.monotonic() + _READY_WITHIN
        for member in self.members:
            while not await asyncio.to_thread(lambda member=member: member.ready):
                assert time.monotonic() < deadline, "the cluster has no leader"
                await asyncio.sleep(_LOOK)
