"""What an operator may ask of an estate: names, addresses, subnets and folders. Pure."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from bus import subjects
from bus.sites import SiteError, network
from estate.errors import BadAddressError, BadNameError, SubnetError
from estate.nats_conf import Place
from estate.permissions import HUB
from estate.records import HubServer, Site

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z"
)
_HUB_SIZES: Final = (0, 1, 3)


class Wish(Struct, frozen=True, kw_only=True):
    """A site as an operator wants it."""

    name: str
    addresses: tuple[str, ...]
    subnets: tuple[str, ...] = ()
    place: Place = Place()


def checked_site(wish: Wish, known: Iterable[Site], *, nested: bool) -> Site:
    """The site that is wished for, among those that are known.

    ``nested`` allows it a subnet within another site's, or around one.

    Raises:
        BadNameError, BadAddressError, SubnetError: something of it is none.
    """
    site = Site(
        name=wish.name,
        addresses=addresses(wish.addresses),
        subnets=_subnets(wish.subnets),
        place=wish.place,
        added_at=datetime.now(UTC),
    )
    if wish.name == HUB or not subjects.valid_site(wish.name):
        raise BadNameError(
            f"{wish.name!r} is no name of a site: 1 to 32 of a-z, 0-9 and -, but neither "
            f"{subjects.ESTATE!r} nor {HUB!r}"
        )
    if not site.addresses:
        raise BadAddressError("At which address is the site's bus reached? --address HOST")
    _require_place(wish.place)
    for other in known:
        if other.name != site.name:
            _require_apart(site, other, nested=nested)
    return site


def require_estate(name: str, hub: Sequence[HubServer]) -> None:
    """Whether there can be an estate of this name, with this hub.

    Raises:
        BadNameError, BadAddressError: the name is none, or so many servers are no hub.
    """
    if not _NAME.match(name):
        raise BadNameError(f"{name!r} is no name of an estate: 1 to 32 of a-z, 0-9 and -")
    if len(hub) not in _HUB_SIZES:
        raise BadAddressError(
            "A hub has one server or three: with two, the loss of either would stop it."
        )
    for server in hub:
        _require_place(server.place)


def hub_servers(texts: Iterable[str], place: Place = Place()) -> tuple[HubServer, ...]:
    """The servers of a hub by the names or addresses they are reached at.

    Raises:
        BadAddressError: one is none.
    """
    return tuple(
        HubServer(name=f"{HUB}-{number}", address=host, place=place)
        for number, host in enumerate(addresses(texts), 1)
    )


def addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Names and addresses of servers, each once, in lower case.

    Raises:
        BadAddressError: one is none.
    """
    found: dict[str, None] = {}
    for text in texts:
        host = text.strip().lower().strip("[]")
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            # A name of digits and dots is an address that was mistyped.
            if not _HOST.match(host) or host.replace(".", "").isdigit():
                raise BadAddressError(
                    f"{text!r} is no address of a server: a name such as bus.campus.example, or "
                    "192.0.2.10, without a port"
                ) from None
        found[host] = None
    return tuple(found)


def _subnets(texts: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(network(each)) for each in texts))
    except SiteError as error:
        raise SubnetError(str(error)) from None


def _require_apart(site: Site, other: Site, *, nested: bool) -> None:
    for own in map(network, site.subnets):
        for theirs in map(network, other.subnets):
            if own.version != theirs.version or not own.overlaps(theirs):
                continue
            if own == theirs:
                raise SubnetError(
                    f"The subnet {own} is one of site {other.name!r} already; a machine there can "
                    "only be at one of them. Give another."
                )
            if not nested:
                raise SubnetError(
                    f"The subnet {own} overlaps {theirs} of site {other.name!r}. Give another, or "
                    "say --nested: then a machine is at the site with the smaller one."
                )


def _require_place(place: Place) -> None:
    for port in (place.port, int(place.watch.rpartition(":")[2])):
        if not 0 < port < 65536:
            raise BadAddressError(f"{port} is no port: 1 to 65535")
    for path in (place.folder, place.store):
        if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
            raise BadAddressError(
                f"{path!r} is no folder on a server: say all of its path, as in /etc/imageinvoker"
            )
