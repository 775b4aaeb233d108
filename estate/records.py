"""What an estate knows of itself: ``estate.json``, which holds no secret."""

from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from bus.messages import Time, decoder
from bus.sites import SiteEntry, make_entry
from estate.nats_conf import LEAF_PORT, ROUTE_PORT, Place, at

VERSION: Final = 1


class Issued(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Credentials of a user of the bus; ``public`` is its key."""

    name: str
    public: str
    issued_at: Time
    expires_at: Time
    revoked_at: Time | None = None


class Site(Struct, frozen=True, kw_only=True):
    """A site: how its bus is reached, which networks are its own, who has credentials of it."""

    name: str
    addresses: tuple[str, ...]
    subnets: tuple[str, ...]
    place: Place
    added_at: Time
    credentials: tuple[Issued, ...] = ()

    @property
    def entry(self) -> SiteEntry:
        """What the registry on the bus says of it."""
        servers = [f"tls://{at(each, self.place.port)}" for each in self.addresses]
        return make_entry(self.name, servers, self.subnets)


class Gone(Struct, frozen=True, kw_only=True):
    """A site that was removed; ``credentials`` are those of its line to the hub, all revoked."""

    name: str
    removed_at: Time
    credentials: tuple[Issued, ...] = ()


class HubServer(Struct, frozen=True, kw_only=True):
    """A server of the hub, the name or address it is reached at, and where it listens."""

    name: str
    address: str
    place: Place = Place()
    leaf_port: int = LEAF_PORT
    route_port: int = ROUTE_PORT


class Hub(Struct, frozen=True, kw_only=True):
    """The hub, which has no servers in an estate without one."""

    servers: tuple[HubServer, ...] = ()
    credentials: tuple[Issued, ...] = ()


class BootImage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A boot image that has a boot credential; the last one it was given counts."""

    image: str
    issued_at: Time
    expires_at: Time
    revoked_at: Time | None = None


class Estate(Struct, frozen=True, kw_only=True):
    """The whole estate; ``operator`` and ``boot`` are public keys."""

    version: int
    name: str
    created_at: Time
    operator: str
    boot: str
    hub: Hub = Hub()
    sites: tuple[Site, ...] = ()
    gone: tuple[Gone, ...] = ()
    images: tuple[BootImage, ...] = ()

    def site(self, name: str) -> Site | None:
        """The site of this name."""
        return next((each for each in self.sites if each.name == name), None)

    def with_site(self, site: Site) -> "Estate":
        """The estate with a site as it is now, in its place or by its name."""
        others = (each for each in self.sites if each.name != site.name)
        sites = sorted((*others, site), key=lambda each: each.name)
        return replace(self, sites=tuple(sites))

    def without_site(self, site: Site, now: datetime) -> "Estate":
        """The estate after a site is removed, whose line to the hub is let in no longer."""
        lines = tuple(each for each in site.credentials if each.name == "leaf")
        gone = Gone(
            name=site.name,
            removed_at=now,
            credentials=revoked(live(lines, now), "leaf", now),
        )
        sites = tuple(each for each in self.sites if each.name != site.name)
        return replace(self, sites=sites, gone=(*self.gone, gone))

    def with_image(self, image: BootImage) -> "Estate":
        """The estate with a boot image as it is now."""
        others = (each for each in self.images if each.image != image.image)
        images = sorted((*others, image), key=lambda each: each.image)
        return replace(self, images=tuple(images))

    @property
    def revoked_images(self) -> tuple[str, ...]:
        """The boot images that are revoked."""
        return tuple(each.image for each in self.images if each.revoked_at)


class Registry(Struct, frozen=True, kw_only=True):
    """What every site's bus is to know of the others: ``registry.json`` of each.

    ``removed`` are the sites that there are no longer.
    """

    estate: str
    sites: tuple[SiteEntry, ...]
    removed: tuple[str, ...]
    revoked_images: tuple[str, ...]


estate_decoder: Final = decoder(Estate)
registry_decoder: Final = decoder(Registry)


def registry_of(estate: Estate) -> Registry:
    """What every site is to know."""
    return Registry(
        estate=estate.name,
        sites=tuple(site.entry for site in estate.sites),
        removed=tuple(sorted({each.name for each in estate.gone if not estate.site(each.name)})),
        revoked_images=estate.revoked_images,
    )


def live(credentials: tuple[Issued, ...], now: datetime) -> tuple[Issued, ...]:
    """The credentials that have not expired: of the others nothing need be remembered."""
    return tuple(each for each in credentials if each.expires_at > now)


def revocations(credentials: tuple[Issued, ...]) -> dict[str, int]:
    """Users that are let in no longer, each with the second of that."""
    return {
        each.public: int(each.revoked_at.timestamp()) for each in credentials if each.revoked_at
    }


def revoked(credentials: tuple[Issued, ...], name: str, now: datetime) -> tuple[Issued, ...]:
    """The credentials after those of one name are revoked."""
    return tuple(
        replace(each, revoked_at=now) if each.name == name and not each.revoked_at else each
        for each in credentials
    )
