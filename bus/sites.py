"""The sites of the estate: where the bus of each is, and which networks are its own.

A machine is at the site whose subnets hold its network address; where several do, at the one with
the smallest.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bus import subjects
from bus.buckets import watch
from bus.connection import Connection
from bus.messages import decoder, encode

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TIMEOUT: Final = 5.0
_SCHEMES: Final = frozenset({"nats", "tls", "ws", "wss"})


class SiteError(ValueError):
    """A site that cannot be in the registry; the text names the cause and the cure."""


class SiteEntry(Struct, frozen=True, kw_only=True):
    """A site of the estate: addresses of its bus (``tls://HOST:PORT``), and subnets (CIDR)."""

    name: str
    servers: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()


_entry = decoder(SiteEntry)


def make_entry(name: str, servers: Iterable[str], subnets: Iterable[str]) -> SiteEntry:
    """A site as an operator named it, its subnets in their one normal form.

    Raises:
        SiteError: the name, an address or a subnet is none.
    """
    if not subjects.valid_site(name):
        raise SiteError(
            f"{name!r} is no name of a site: 1 to 32 of a-z, 0-9 and -, but not {subjects.ESTATE!r}"
        )
    return SiteEntry(
        name=name,
        servers=tuple(dict.fromkeys(map(_server, servers))),
        subnets=tuple(dict.fromkeys(str(network(each)) for each in subnets)),
    )


def network(text: str) -> Network:
    """A subnet: ``10.1.0.0/16``, ``2001:db8:1::/48``.

    Raises:
        SiteError: it is none, or has an address of a host in it.
    """
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise SiteError(f"{text!r} is no subnet: say 10.1.0.0/16 or 2001:db8:1::/48") from None
    raise SiteError(f"{text!r} is an address in the subnet {meant}: say {meant}")


def shared_subnets(one: SiteEntry, others: Iterable[SiteEntry]) -> list[tuple[str, str]]:
    """The subnets that a site has in common with others: each, and the name of the other."""
    own = set(one.subnets)
    return [
        (subnet, other.name)
        for other in others
        if other.name != one.name
        for subnet in other.subnets
        if subnet in own
    ]


class SiteMap:
    """Tells the site of a network address."""

    def __init__(self, entries: Iterable[SiteEntry]) -> None:
        """Of the entries, a subnet that cannot be read is passed over."""
        self._sites: dict[Network, SiteEntry | None] = {}
        for entry in entries:
            for subnet in entry.subnets:
                with contextlib.suppress(SiteError):
                    found = network(subnet)
                    # Of two sites with the same subnet neither is right, and none is guessed.
                    self._sites[found] = None if found in self._sites else entry
        self._lengths = {
            version: sorted(
                {each.prefixlen for each in self._sites if each.version == version}, reverse=True
            )
            for version in (4, 6)
        }

    def site_of(self, address: str) -> SiteEntry | None:
        """The site with the smallest subnet that holds the address; None if none does."""
        try:
            host = _address(address)
        except ValueError:
            return None
        for length in self._lengths[host.version]:
            around = ipaddress.ip_network((host, length), strict=False)
            if around in self._sites:
                return self._sites[around]
        return None


class SiteStore:
    """Reads and writes the registry of sites in its bucket.

    Every method raises nats.errors.Error or TimeoutError when the bus does not answer.
    """

    def __init__(self, stream: JetStreamContext, bucket: KeyValue) -> None:
        self._stream = stream
        self._bucket = bucket

    @classmethod
    async def open(cls, connection: Connection) -> "SiteStore":
        """The registry of the bus.

        Raises:
            nats.errors.Error: the bus keeps none.
        """
        stream = connection.jetstream()
        return cls(stream, await stream.key_value(subjects.SITES))

    async def read(self) -> list[SiteEntry]:
        """Every site, by name; what cannot be read is passed over."""
        states = watch(self._stream, subjects.SITES, subjects.ESTATE)
        async with asyncio.timeout(_TIMEOUT), contextlib.aclosing(states):
            return entries(await anext(states))

    async def write(self, entry: SiteEntry) -> None:
        """Keeps a site; it replaces what was known of it.

        Raises:
            SiteError: another site has one of its subnets.
        """
        for subnet, other in shared_subnets(entry, await self.read()):
            raise SiteError(
                f"the subnet {subnet} is one of site {other!r} already: "
                f"take it from there first, or give a smaller one"
            )
        async with asyncio.timeout(_TIMEOUT):
            await self._bucket.put(_key(entry.name), encode(entry))

    async def remove(self, name: str) -> bool:
        """Forgets a site; whether it was known."""
        async with asyncio.timeout(_TIMEOUT):
            try:
                await self._bucket.get(_key(name))
            except nats.js.errors.KeyNotFoundError:
                return False
            await self._bucket.delete(_key(name))
        return True


def entries(values: Mapping[str, bytes]) -> list[SiteEntry]:
    """The sites in what the bucket holds, by name; what cannot be read is passed over."""
    found: list[SiteEntry] = []
    for name, value in sorted(values.items()):
        with contextlib.suppress(ValueError, RecursionError):
            entry = _entry.decode(value)
            if entry.name == name:
                found.append(entry)
    return found


def _key(name: str) -> str:
    return subjects.site_key(subjects.ESTATE, name)


def _server(text: str) -> str:
    try:
        parts = urlsplit(text.strip())
        sound = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in text or "," in text or not text.isprintable():
        raise SiteError("an address of a site's bus is tls://HOST:PORT, without a secret in it")
    return text.strip()


def _address(text: str) -> Address:
    # A link-local address may name the link, and a socket for both kinds shows IPv4 as IPv6.
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
