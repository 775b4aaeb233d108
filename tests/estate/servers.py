"""Real servers of an estate on this machine: what its folder says is copied, started from there."""

import json
import signal
import time
from pathlib import Path
from urllib.request import urlopen

from bus.door import Door
from estate.folder import EstateFolder
from estate.nats_conf import Place
from estate.permissions import HUB
from estate.records import HubServer
from estate.wishes import Wish
from tests.buses import BusServer, free_port

HERE = "127.0.0.1"


def place(folder: Path, store: Path) -> Place:
    """Where a server runs that is copied nowhere: on this machine, at ports of its own."""
    return Place(
        folder=str(folder),
        store=str(store),
        host=HERE,
        port=free_port(),
        watch=f"{HERE}:{free_port()}",
    )


def new_estate(folder: Path, *, hub: int = 0, name: str = "acme") -> EstateFolder:
    """An estate whose hub has so many servers, all of them on this machine."""
    servers = tuple(
        HubServer(
            name=f"{HUB}-{number}",
            address=HERE,
            place=place(folder / "hub" / f"{HUB}-{number}", folder / "store" / str(number)),
            leaf_port=free_port(),
            route_port=free_port(),
        )
        for number in range(1, hub + 1)
    )
    estate, begun = EstateFolder.begin(folder, name, servers)
    assert begun
    return estate


def add_site(estate: EstateFolder, name: str, *subnets: str) -> None:
    """Adds a site whose server runs on this machine."""
    where = place(estate.site_folder(name), estate.folder / "store" / name)
    assert estate.add_site(Wish(name=name, addresses=(HERE,), subnets=subnets, place=where))


class EstateServer(BusServer):
    """A server with the configuration that was made for it."""

    def __init__(self, ready: Path, at: Place) -> None:
        scratch = Path(at.store)
        scratch.mkdir(parents=True, exist_ok=True)
        super().__init__(scratch)
        self.port = at.port
        self.ready = ready
        self.store = scratch
        self._settings = ready / "nats.conf"
        self._command = [self._command[0], "-c", str(self._settings)]
        self._watch = at.watch

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"tls://{HERE}:{self.port}"

    def door(self, credentials: str) -> Door:
        """The way in with credentials that were made for it."""
        folder = "keys" if credentials in {"callout", "system"} else "creds"
        return Door(
            ca=self.ready / "tls" / "ca.pem",
            credentials=self.ready / folder / f"{credentials}.creds",
        )

    def reload(self) -> None:
        """Has it read its configuration; returns when it says that it has."""
        assert self._process is not None
        before = self.log().count("Reloaded server configuration")
        self._process.send_signal(signal.SIGHUP)
        give_up = time.monotonic() + 10
        while self.log().count("Reloaded server configuration") == before:
            assert time.monotonic() < give_up, self.log()[-2000:]
            time.sleep(0.01)

    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text()

    def violations(self) -> list[str]:
        """What it has refused to those who are on it."""
        return [line for line in self.log().splitlines() if "Violation" in line]

    def monitoring(self, page: str) -> dict[str, object]:
        """A page of its own monitoring."""
        with urlopen(f"http://{self._watch}/{page}", timeout=5) as answer:
            found = json.load(answer)
        assert isinstance(found, dict)
        return found


def site_server(estate: EstateFolder, name: str) -> EstateServer:
    """The server of a site, not started yet."""
    site = estate.record.site(name)
    assert site
    return EstateServer(estate.site_folder(name), site.place)


def hub_servers(estate: EstateFolder) -> list[EstateServer]:
    """The servers of the hub, not started yet."""
    return [
        EstateServer(estate.folder / "hub" / each.name, each.place)
        for each in estate.record.hub.servers
    ]
