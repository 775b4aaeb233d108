"""A hub and its sites as real NATS servers that trust everybody, and lines that can be cut.

Each site is a leaf node of the hub with a JetStream domain of its own, as in life; who may do what
there is another matter (`tests.secured`).
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bus import hub
from bus.buckets import prepare
from bus.connection import Connection, connect
from tests.buses import BusServer, free_port
from tests.lines import Cable, Line, Namespace, Relay, Way, namespace


class Hub(BusServer):
    """The server at the hub, to which leaf nodes may come; perhaps in a namespace of its own."""

    def __init__(self, folder: Path, space: Namespace | None = None) -> None:
        folder.mkdir()
        self.leaf_port: Final = free_port()
        here = "0.0.0.0" if space else "127.0.0.1"
        super().__init__(
            folder,
            listen=here,
            more=f'server_name: "hub"\n'
            f'jetstream {{ store_dir: "{folder / "store"}", domain: {hub.DOMAIN} }}\n'
            # Else a site whose line is cut comes by an address that the hub has told it of.
            f'leafnodes {{ listen: "{here}:{self.leaf_port}", no_advertise: true }}',
        )
        if space:
            self.host = Cable(space, self.port).host
            self._command = [*space.within, *self._command]


class SiteBus(BusServer):
    """The server of a site, whose leaf node comes to the hub over a line."""

    def __init__(self, folder: Path, site: str, hub: Way) -> None:
        folder.mkdir()
        # Events go to the hub by its stream alone: without this, sites would hear each other's.
        events = '["imaging.*.event.>"]'
        super().__init__(
            folder,
            more=f'server_name: "{site}"\n'
            f'jetstream {{ store_dir: "{folder / "store"}", domain: {site} }}\n'
            f'leafnodes {{ reconnect: "250ms", remotes: [ {{ '
            f'url: "nats-leaf://{hub.host}:{hub.port}",'
            f" deny_imports: {events}, deny_exports: {events} }} ] }}",
        )


class Estate:
    """A hub with some sites, the lines between them, and a connection to each bus."""

    def __init__(self, hub_bus: Hub) -> None:
        self.hub_bus: Final = hub_bus
        self.buses: Final[dict[str, SiteBus]] = {}
        self.lines: Final[dict[str, Line]] = {}
        self.at: Final[dict[str, Connection]] = {}
        """Connections, by the name of the site, or ``hub``."""

    @property
    def hub(self) -> Connection:
        """A connection to the hub."""
        return self.at["hub"]


@asynccontextmanager
async def estate_of(
    folder: Path, sites: Iterable[str], *, apart: bool = False
) -> AsyncIterator[Estate]:
    """An estate that runs meanwhile; its hub collects from no site yet.

    With ``apart``, the hub is in a network namespace of its own, where the system allows that.
    """
    async with AsyncExitStack() as stack:
        space = stack.enter_context(namespace()) if apart else None
        made = Estate(Hub(folder / "hub", space))
        made.hub_bus.start()
        stack.callback(made.hub_bus.stop)
        made.at["hub"] = await connect(made.hub_bus.url, "hub")
        stack.push_async_callback(made.hub.close)
        await hub.prepare(made.hub.jetstream(), ())
        for site in sites:
            port = made.hub_bus.leaf_port
            made.lines[site] = (
                Cable(space, port) if space else await stack.enter_async_context(Relay(port).laid())
            )
            server = made.buses[site] = SiteBus(folder / site, site, made.lines[site])
            server.start()
            stack.callback(server.stop)
            made.at[site] = await connect(server.url, site)
            stack.push_async_callback(made.at[site].close)
            await prepare(made.at[site].jetstream(), hub=hub.DOMAIN)
        yield made
