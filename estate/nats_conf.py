"""The configuration of NATS for the servers of an estate, as text. Pure.

Paths are those on the machine that it is copied to: NATS would look for others in the folder that
it was started in.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from estate.accounts import Trust
from estate.permissions import HUB

LEAF_PORT: Final = 7422
ROUTE_PORT: Final = 6222
CLIENT_PORT: Final = 4222
HEALTH_PORT: Final = 8222

INSTALLED: Final = "/etc/imageinvoker"
STORED: Final = "/var/lib/imageinvoker-nats"


class Place(Struct, frozen=True, kw_only=True):
    """Where a server finds its files, and where it listens.

    ``host`` is the address that it binds; ``watch`` is HOST:PORT of its health and figures.
    """

    folder: str = INSTALLED
    store: str = STORED
    host: str = "0.0.0.0"  # noqa: S104 (PCs of the automation environment come here)
    port: int = CLIENT_PORT
    watch: str = f"127.0.0.1:{HEALTH_PORT}"


class Site(Struct, frozen=True, kw_only=True):
    """The server of a site.

    ``sentinel`` is the token of who has shown no credential yet, ``account`` the site's public
    key, ``hub`` where the hub takes leaf nodes: HOST:PORT each, none where there is no hub.
    """

    name: str
    trust: Trust
    account: str
    sentinel: str
    hub: tuple[str, ...] = ()
    place: Place = Place()


class HubServer(Struct, frozen=True, kw_only=True):
    """A server of the hub; ``routes`` are HOST:PORT of the others of its cluster."""

    name: str
    trust: Trust
    routes: tuple[str, ...] = ()
    leaf_port: int = LEAF_PORT
    route_port: int = ROUTE_PORT
    place: Place = Place()


_LIMITS: Final = """\
# What one client may cost. Answers of the menu service are the largest messages.
max_payload: 1MB
max_connections: {connections}
max_subscriptions: {subscriptions}
max_pending: 16MB
# A client that does not read for so long is dropped.
write_deadline: "10s"
ping_interval: "20s"
ping_max: 2"""

_STREAMS: Final = """\
jetstream {{
  store_dir: {store}
  domain: {domain}
  # An acknowledged request is on disk, not in a cache: the default waits up to two minutes.
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: 10GB
  limits {{
    # NATS 2.15 and later allow 1,000 consumers on a stream unless told otherwise.
    default_max_consumers: 20000
  }}
}}"""

_TRUST: Final = """\
# Only users of these accounts come in; what each may do is signed into the accounts.
operator: {operator}
system_account: {system}
resolver: MEMORY
resolver_preload {{
{accounts}
}}"""

_SENTINEL: Final = """\
# Who shows no credentials, as boot clients do, is nobody until the auth service has decided.
default_sentinel: {sentinel}"""

_TLS: Final = """\
tls {{
  cert_file: {folder}/tls/server.pem"
  key_file: {folder}/tls/server.key"
  timeout: 5
}}
# The auth service is waited for so long. Who comes in waits for four, and is told.
authorization {{ timeout: 3 }}"""

_LEAF: Final = """\
# The line to the hub: the events of this site there, and what holds for all sites here.
leafnodes {{
  reconnect: "2s"
  remotes: [
    {{
      urls: [{urls}]
      account: {account}
      credentials: {folder}/creds/leaf.creds"
      tls {{ ca_file: {folder}/tls/ca.pem" }}
    }}
  ]
}}"""

_LEAVES: Final = """\
# Here the sites come in.
leafnodes {{
  listen: {listen}
  tls {{
    cert_file: {folder}/tls/server.pem"
    key_file: {folder}/tls/server.key"
    timeout: 5
  }}
  authorization {{ timeout: 5 }}
  # Sites keep to the addresses that they were told.
  no_advertise: true
}}"""

_CLUSTER: Final = """\
# The other servers of the hub. Only they have certificates of the estate that are good for clients.
cluster {{
  name: {name}
  listen: {listen}
  routes: [{routes}]
  tls {{
    cert_file: {folder}/tls/server.pem"
    key_file: {folder}/tls/server.key"
    ca_file: {folder}/tls/ca.pem"
    verify: true
    timeout: 5
  }}
}}"""


def site_server(site: Site) -> str:
    """The configuration of a site's server."""
    parts = [
        f"# The bus of site {site.name}. Made by `imageinvoker site add`; change nothing here.",
        *_common(
            site.name, site.name, site.trust, site.place, connections=20_000, subscriptions=1_000
        ),
        _SENTINEL.format(sentinel=site.sentinel),
    ]
    if site.hub:
        parts.append(
            _LEAF.format(
                urls=_listed(f"tls://{each}" for each in site.hub),
                account=site.account,
                folder=_opened(site.place.folder),
            )
        )
    return "\n\n".join(parts) + "\n"


def hub_server(server: HubServer) -> str:
    """The configuration of a server of the hub."""
    place = server.place
    parts = [
        f"# The hub of the estate, server {server.name}. Made by `imageinvoker pki`; change "
        "nothing here.",
        *_common(server.name, HUB, server.trust, place, connections=2_000, subscriptions=100_000),
        _LEAVES.format(
            listen=_quoted(at(place.host, server.leaf_port)), folder=_opened(place.folder)
        ),
    ]
    if server.routes:
        parts.append(
            _CLUSTER.format(
                name=HUB,
                listen=_quoted(at(place.host, server.route_port)),
                routes=_listed(f"tls://{each}" for each in server.routes),
                folder=_opened(place.folder),
            )
        )
    return "\n\n".join(parts) + "\n"


def at(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        version = 4
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


def _common(
    name: str, domain: str, trust: Trust, place: Place, *, connections: int, subscriptions: int
) -> Sequence[str]:
    head = (
        f"server_name: {_quoted(name)}\n"
        f"listen: {_quoted(at(place.host, place.port))}\n"
        "# Health and figures, for this machine only.\n"
        f"http: {_quoted(place.watch)}"
    )
    return (
        head,
        _TLS.format(folder=_opened(place.folder)),
        _TRUST.format(
            operator=trust.operator,
            system=trust.system_account,
            accounts="\n".join(f"  {key}: {token}" for key, token in trust.accounts.items()),
        ),
        _STREAMS.format(store=_quoted(place.store), domain=_quoted(domain)),
        _LIMITS.format(connections=connections, subscriptions=subscriptions),
    )


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _opened(folder: str) -> str:
    """A path in quotes whose end is still to come."""
    return _quoted(folder).removesuffix('"')


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(map(_quoted, texts))
