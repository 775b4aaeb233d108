"""What is copied to the server of a site, or of the hub: files by name, each whole. Pure.

What a user's credentials may do stands in `estate/permissions.py`, whom a server believes in
`estate/accounts.py`, how it is told in `estate/nats_conf.py`; here it is put together.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from bus.credentials import Credentials
from bus.nkeys import KeyPair
from estate import accounts, nats_conf, permissions
from estate.accounts import BOOT, LEAF, EstateKeys, SiteKeys
from estate.certificates import Pair
from estate.nats_conf import at
from estate.permissions import HOLDERS, HUB, HUB_HOLDERS, SERVICES
from estate.records import Estate, HubServer, Issued, Registry, Site, revocations

SITE_CREDENTIALS: Final = (*HOLDERS, "leaf", "callout", "system")
"""The names of the credentials that a site has."""
HUB_CREDENTIALS: Final = HUB_HOLDERS

Files = dict[str, bytes | Credentials]


class Made(Struct, frozen=True):
    """Files with new credentials, and what the estate remembers of them."""

    files: Files
    issued: tuple[Issued, ...]


def site_credentials(
    site: str,
    keys: EstateKeys,
    own: SiteKeys,
    names: tuple[str, ...],
    now: datetime,
    expires_at: datetime,
) -> Made:
    """New credentials of a site, by name."""
    until = int(expires_at.timestamp())
    made: dict[str, Credentials] = {}
    for name in names:
        match name:
            case "leaf":
                made[name] = accounts.of_role(keys.hub, keys.roles[LEAF], site, until)
            case "callout":
                allowed = permissions.callout(site)
                key = own.callout
                made[name] = accounts.with_permissions(own.auth, key, name, allowed, until)
            case "system":
                allowed = permissions.system(site, own.account.public)
                key = KeyPair.generate("user")
                made[name] = accounts.with_permissions(own.system, key, name, allowed, until)
            case _:
                made[name] = accounts.of_role(own.account, own.roles[name], name, until)
    return _made(made, now, expires_at)


def hub_credentials(
    keys: EstateKeys, names: tuple[str, ...], now: datetime, expires_at: datetime
) -> Made:
    """New credentials of the hub, by name."""
    until = int(expires_at.timestamp())
    made = {name: accounts.of_role(keys.hub, keys.roles[name], name, until) for name in names}
    return _made(made, now, expires_at)


def site_configuration(estate: Estate, site: Site, keys: EstateKeys, own: SiteKeys) -> Files:
    """What a site's server reads at its start, or anew when it is told to."""
    trust = accounts.site_trust(keys, site.name, own, revocations(site.credentials))
    server = nats_conf.Site(
        name=site.name,
        trust=trust,
        account=own.account.public,
        sentinel=own.sentinel,
        hub=tuple(at(each.address, each.leaf_port) for each in estate.hub.servers),
        place=site.place,
    )
    return {"nats.conf": nats_conf.site_server(server).encode()}


def hub_configuration(estate: Estate, server: HubServer, keys: EstateKeys) -> Files:
    """What a server of the hub reads at its start, or anew when it is told to."""
    gone = revocations(
        (
            *estate.hub.credentials,
            *(each for site in estate.sites for each in site.credentials if each.name == "leaf"),
            *(each for site in estate.gone for each in site.credentials),
        )
    )
    others = (each for each in estate.hub.servers if each != server)
    told = nats_conf.HubServer(
        name=server.name,
        trust=accounts.hub_trust(keys, gone),
        routes=tuple(at(each.address, each.route_port) for each in others),
        leaf_port=server.leaf_port,
        route_port=server.route_port,
        place=server.place,
    )
    return {"nats.conf": nats_conf.hub_server(told).encode()}


def site_constants(estate: Estate, site: Site, own: SiteKeys) -> Files:
    """What stays at a site, whatever is renewed."""
    folder = site.place.folder
    environment = {
        "IMAGEINVOKER_SERVER": site.entry.servers[0],
        "IMAGEINVOKER_SITE": site.name,
        "IMAGEINVOKER_CREDENTIALS": f"{folder}/creds",
        "IMAGEINVOKER_CA": f"{folder}/tls/ca.pem",
        "IMAGEINVOKER_CALLOUT_KEYS": f"{folder}/keys",
    }
    if estate.hub.servers:
        environment["IMAGEINVOKER_HUB"] = HUB
    return {
        "environment": _environment(environment),
        "keys/estate": _line(estate.name),
        "keys/boot.pub": _line(estate.boot),
        "keys/account.pub": _line(own.account.public),
        "keys/auth.seed": _line(own.auth.seed),
        "keys/boot-signing.seed": _line(own.roles[BOOT].seed),
        "README": _SITE_README.format(
            site=site.name,
            estate=estate.name,
            folder=folder,
            store=site.place.store,
            services=", ".join(SERVICES),
            server=site.entry.servers[0],
        ).encode(),
    }


def hub_constants(estate: Estate, server: HubServer) -> Files:
    """What stays at a server of the hub, whatever is renewed."""
    place = server.place
    environment = {
        "IMAGEINVOKER_SERVER": ",".join(
            f"tls://{at(each.address, each.place.port)}" for each in estate.hub.servers
        ),
        "IMAGEINVOKER_CREDENTIALS": f"{place.folder}/creds",
        "IMAGEINVOKER_CA": f"{place.folder}/tls/ca.pem",
    }
    return {
        "environment": _environment(environment),
        "README": _HUB_README.format(
            server=server.name,
            estate=estate.name,
            url=f"tls://{at(server.address, place.port)}",
            folder=place.folder,
            store=place.store,
            leaf=server.leaf_port,
            route=server.route_port,
            port=place.port,
        ).encode(),
    }


def tls(authority: bytes, server: Pair) -> Files:
    """The certificate of a server, its key, and the authority's certificate."""
    return {
        "tls/ca.pem": authority,
        "tls/server.pem": server.certificate,
        "tls/server.key": server.key,
    }


def registry_file(registry: Registry) -> Files:
    """What a site's bus is to know of the whole estate."""
    return {"registry.json": msgspec.json.format(msgspec.json.encode(registry), indent=2)}


def _made(credentials: Mapping[str, Credentials], now: datetime, expires_at: datetime) -> Made:
    return Made(
        {_place_of(name): each for name, each in credentials.items()},
        tuple(
            Issued(name=name, public=each.key.public, issued_at=now, expires_at=expires_at)
            for name, each in credentials.items()
        ),
    )


def _place_of(name: str) -> str:
    folder = "keys" if name in {"callout", "system"} else "creds"
    return f"{folder}/{name}.creds"


def _line(text: str) -> bytes:
    return f"{text}\n".encode()


def _environment(values: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


_SITE_README: Final = """\
Site {site} of the estate {estate}. All of this folder is secret; copy it over a line you trust.

1. On the site's server:  install -d -m 700 {folder} {store}
2. In this folder, copy what is here:  rsync -rpt --chmod=D700,F600 ./ SERVER:{folder}/
3. Start the bus:  nats-server --config {folder}/nats.conf
4. Start the services ({services}) with the variables of {folder}/environment, and with
   IMAGEINVOKER_DATABASE and IMAGEINVOKER_HISTORY, which every site has its own of.
5. Tell the hub of the new site; without a hub, this bus of all others:
   imageinvoker site register registry.json
6. See that all is well:  imageinvoker doctor
7. To boot images belong tls/ca.pem, and a credential of `imageinvoker pki boot issue IMAGE`.
Whoever types 5 and 6 shows creds/operator.creds: at the server the variables of `environment` say
so, elsewhere  --server {server} --credentials creds/operator.creds --ca tls/ca.pem

After `imageinvoker pki` or `imageinvoker site` has made something new here: copy it again, then
   nats-server --signal reload
Nothing is interrupted by that: services read their new credentials by themselves.

With the units of deploy/systemd, steps 3 and 4 are theirs, the bus reads anew what is copied by
   systemctl reload imageinvoker-nats
and services when they start again, one by one:  systemctl restart imageinvoker-menu  ...
"""
_HUB_README: Final = """\
Server {server} of the hub of the estate {estate}. All of this folder is secret.

1. On the server:  install -d -m 700 {folder} {store}
2. In this folder, copy what is here, over a line you trust:
   rsync -rpt --chmod=D700,F600 ./ SERVER:{folder}/
3. Start the bus:  nats-server --config {folder}/nats.conf
4. Sites come in at port {leaf}, the other servers of the hub at {route}, operators at {port}.
5. Start the estate's monitor with the variables of {folder}/environment, and with
   IMAGEINVOKER_HISTORY:  imageinvoker monitor --estate
6. Tell the hub of the sites, after each `site add`, `change` and `remove`:
   imageinvoker site register registry.json
7. See what machines of a site are doing:  imageinvoker live --site NAME
Operators take creds/operator.creds and tls/ca.pem. At the server the variables of `environment` say
so, elsewhere  --server {url} --credentials operator.creds --ca ca.pem

After `imageinvoker pki` or `imageinvoker site` has made something new here: copy it again, then
   nats-server --signal reload
With the units of deploy/systemd it is  systemctl reload imageinvoker-nats
"""
