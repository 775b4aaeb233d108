"""An estate on disk: ``estate.json``, ``ca.pem``, ``keys/``, and what is to be copied to servers.

Every change is decided and made in memory first. Then keys are kept, then what is copied, then
``estate.json`` says that it is so: whoever is cut off before that has changed nothing, and does it
again.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from bus import subjects
from bus.boot_credential import BootCredential, valid_image
from bus.boot_signing import issue
from bus.nkeys import KeyPair
from bus.sites import SiteError, network
from estate import certificates, content, files
from estate.accounts import EstateKeys, SiteKeys
from estate.certificates import Pair
from estate.content import HUB_CREDENTIALS, SITE_CREDENTIALS, Files
from estate.errors import (
    BadAddressError,
    BadNameError,
    EstateError,
    NameTakenError,
    NoEstateError,
    OtherEstateError,
    SubnetError,
    UnknownError,
)
from estate.keyring import Keyring
from estate.nats_conf import Place
from estate.permissions import HUB
from estate.records import (
    VERSION,
    BootImage,
    Estate,
    Hub,
    HubServer,
    Site,
    estate_decoder,
    live,
    registry_of,
    revoked,
)

CREDENTIALS_LAST: Final = timedelta(days=400)
BOOT_DAYS: Final = 365

_RECORD: Final = "estate.json"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z"
)
_HUB_SIZES: Final = (0, 1, 3)
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A site as an operator wants it."""

    name: str
    addresses: tuple[str, ...]
    subnets: tuple[str, ...] = ()
    place: Place = Place()


class EstateFolder:
    """An estate that is there.

    Every method raises an EstateError where it cannot do what it is asked for.
    """

    def __init__(self, folder: Path, record: Estate) -> None:
        self.folder: Final = folder
        self.record = record
        self._keyring = Keyring(folder / "keys")

    @classmethod
    def open(cls, folder: Path) -> "EstateFolder":
        """The estate in a folder.

        Raises:
            NoEstateError: there is none.
            OtherEstateError: what is there is not one that this version knows.
        """
        file = folder / _RECORD
        if not file.is_file():
            raise NoEstateError(
                f"There is no estate in {folder}. Name its folder (--folder DIR or "
                "IMAGEINVOKER_ESTATE), or begin one: imageinvoker pki init NAME"
            )
        try:
            record = estate_decoder.decode(files.read(file))
        except ValueError:
            record = None
        if record is None or record.version != VERSION:
            raise OtherEstateError(
                f"{file} is no estate that this version knows. Take it from a backup, or a newer "
                "version of ImageInvoker."
            )
        return cls(folder, record)

    @classmethod
    def begin(
        cls, folder: Path, name: str, hub: Sequence[HubServer] = ()
    ) -> tuple["EstateFolder", bool]:
        """A new estate; or the one that is there, if it is the same, and False.

        Raises:
            BadNameError, BadAddressError: the name is none, or so many servers are no hub.
            OtherEstateError: there is another estate, or something else, in the folder.
        """
        if not _NAME.match(name):
            raise BadNameError(f"{name!r} is no name of an estate: 1 to 32 of a-z, 0-9 and -")
        if len(hub) not in _HUB_SIZES:
            raise BadAddressError(
                "A hub has one server or three: with two, the loss of either would stop it."
            )
        for server in hub:
            _require_place(server.place)
        if (folder / _RECORD).exists():
            return cls._same(folder, name, tuple(hub)), False
        if folder.exists() and any(folder.iterdir()):
            raise OtherEstateError(
                f"{folder} holds something that is no estate; take an empty folder: --folder DIR"
            )
        keys, authority = EstateKeys.generate(name), certificates.new_authority(name)
        record = Estate(
            version=VERSION,
            name=name,
            created_at=datetime.now(UTC),
            operator=keys.operator.public,
            boot=keys.boot.public,
            hub=Hub(servers=tuple(hub)),
        )
        with files.begun(folder) as draft:
            new = cls(draft, record)
            new._keyring.keep_estate(keys, authority.key)
            files.write(draft / "ca.pem", authority.certificate)
            new._make_hub(keys, authority, HUB_CREDENTIALS)
        return cls.open(folder), True

    @classmethod
    def _same(cls, folder: Path, name: str, hub: tuple[HubServer, ...]) -> "EstateFolder":
        there = cls.open(folder)
        if there.record.name != name:
            raise OtherEstateError(
                f"{folder} holds the estate {there.record.name!r}; take another folder for "
                f"{name!r}: --folder DIR"
            )
        if there.record.hub.servers != hub:
            known = ", ".join(each.address for each in there.record.hub.servers) or "none"
            raise NameTakenError(
                f"The estate {name!r} is in {folder} already, with another hub: {known}. Say that "
                "one, or take another folder: --folder DIR"
            )
        return there

    def add_site(self, wish: Wish, *, nested: bool = False) -> bool:
        """Adds a site and makes what is copied there; False if it is there already, as wished.

        ``nested`` allows it a subnet within another site's, or around one.

        Raises:
            BadNameError, BadAddressError, SubnetError: something of it is none.
            NameTakenError: there is another site of this name.
        """
        site = self._checked(wish, nested=nested)
        there = self.record.site(site.name)
        if there:
            same = (there.addresses, there.subnets, there.place)
            if same == (site.addresses, site.subnets, site.place):
                return False
            raise NameTakenError(
                f"There is a site {site.name!r} already, with other addresses or subnets. Take "
                f"another name; see what there is: imageinvoker site show {site.name}"
            )
        keys, authority = self._keyring.estate(), self._authority()
        own = SiteKeys.generate(self.record.name, keys.operator)
        now = datetime.now(UTC)
        made = content.site_credentials(
            site.name, keys, own, SITE_CREDENTIALS, now, now + CREDENTIALS_LAST
        )
        site = replace(site, credentials=made.issued)
        record = self.record.with_site(site)
        self._keyring.keep_site(site.name, own)
        files.put_folder(
            self.site_folder(site.name),
            {
                **made.files,
                **content.site_configuration(record, site, keys, own),
                **content.site_constants(record, site, own),
                **content.tls(
                    authority.certificate,
                    certificates.new_server(authority, _with_this_machine(site.addresses)),
                ),
            },
        )
        self._keep(record)
        return True

    def renew(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """Makes new certificates and credentials for sites, `HUB` among them; all if none is named.

        Those that there were stay good until they end.

        Raises:
            UnknownError: there is no such site.
        """
        wanted = tuple(names) or tuple(self.places())
        for name in wanted:
            self._require(name)
        keys, authority = self._keyring.estate(), self._authority()
        for name in wanted:
            if name == HUB:
                self._make_hub(keys, authority, HUB_CREDENTIALS)
                continue
            site = self._require_site(name)
            pair = certificates.new_server(authority, _with_this_machine(site.addresses))
            self._reissue(site, SITE_CREDENTIALS, keys, content.tls(authority.certificate, pair))
        return wanted

    def revoke(self, place: str, credential: str) -> None:
        """Revokes all credentials of one name, of a site or of the hub, and makes new ones.

        Servers take it in when they are given their new configuration.

        Raises:
            UnknownError: there are none.
        """
        self._require(place)
        known = HUB_CREDENTIALS if place == HUB else SITE_CREDENTIALS
        if credential not in known:
            raise UnknownError(
                f"There are no credentials {credential!r} of {place!r}: {', '.join(known)}"
            )
        keys, now = self._keyring.estate(), datetime.now(UTC)
        if place == HUB:
            gone = revoked(self.record.hub.credentials, credential, now)
            self.record = replace(self.record, hub=replace(self.record.hub, credentials=gone))
            self._make_hub(keys, None, (credential,))
            return
        site = self._require_site(place)
        site = replace(site, credentials=revoked(site.credentials, credential, now))
        if credential == "callout":
            own = replace(self._keyring.site(place), callout=KeyPair.generate("user"))
            self._keyring.keep_site(place, own)
        self._reissue(site, (credential,), keys, {})
        if credential == "leaf":
            self._make_hub(keys, None)

    def issue_boot(self, image: str, days: int = BOOT_DAYS) -> str:
        """A boot credential of an image, good for some days.

        Raises:
            UnknownError: this is no id of an image, or it is revoked.
        """
        _require_image(image)
        if not 1 <= days <= 3650:
            raise EstateError(f"{days} days is not from 1 to 3650.")
        known = next((each for each in self.record.images if each.image == image), None)
        if known and known.revoked_at:
            raise UnknownError(
                f"The image {image!r} is revoked, and so would be every credential of it. Give "
                "the new image another name."
            )
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = now + timedelta(days=days)
        token = issue(
            self._keyring.estate().boot,
            BootCredential(
                estate=self.record.name,
                image=image,
                issued=int(now.timestamp()),
                expires=int(expires_at.timestamp()),
            ),
        )
        self._keep(
            self.record.with_image(BootImage(image=image, issued_at=now, expires_at=expires_at))
        )
        return token

    def revoke_boot(self, image: str) -> bool:
        """Notes that an image is revoked; False if it was already.

        Raises:
            UnknownError: this is no id of an image.
        """
        _require_image(image)
        now = datetime.now(UTC)
        known = next((each for each in self.record.images if each.image == image), None)
        if known and known.revoked_at:
            return False
        # One that this folder knows nothing of may have been issued from another copy of it.
        known = known or BootImage(image=image, issued_at=now, expires_at=now)
        self._keep(self.record.with_image(replace(known, revoked_at=now)))
        return True

    def places(self) -> dict[str, list[Path]]:
        """The folders that are copied to servers: of each site by its name, and of the hub."""
        sites = {site.name: [self.site_folder(site.name)] for site in self.record.sites}
        hub = [self.folder / "hub" / each.name for each in self.record.hub.servers]
        return sites | ({HUB: hub} if hub else {})

    def site_folder(self, site: str) -> Path:
        """What is copied to a site."""
        return self.folder / "sites" / site

    def _checked(self, wish: Wish, *, nested: bool) -> Site:
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
        for other in self.record.sites:
            if other.name != site.name:
                _require_apart(site, other, nested=nested)
        return site

    def _reissue(self, site: Site, names: Sequence[str], keys: EstateKeys, more: Files) -> None:
        own, now = self._keyring.site(site.name), datetime.now(UTC)
        made = content.site_credentials(
            site.name, keys, own, tuple(names), now, now + CREDENTIALS_LAST
        )
        site = replace(site, credentials=(*live(site.credentials, now), *made.issued))
        record = self.record.with_site(site)
        # Kept first: of what may have been given out, all can be revoked.
        self._keep(record)
        configuration = content.site_configuration(record, site, keys, own)
        constants = content.site_constants(record, site, own)
        _write_all(
            self.site_folder(site.name), {**more, **made.files, **constants, **configuration}
        )

    def _make_hub(
        self, keys: EstateKeys, authority: Pair | None, names: tuple[str, ...] = ()
    ) -> None:
        """Writes what is copied to the hub: with new credentials of these names, and with new
        certificates if there is an ``authority``.
        """
        now, record = datetime.now(UTC), self.record
        made = content.hub_credentials(keys, names, now, now + CREDENTIALS_LAST)
        if record.hub.servers:
            known = (*live(record.hub.credentials, now), *made.issued)
            record = replace(record, hub=replace(record.hub, credentials=known))
        self._keep(record)
        for server in record.hub.servers:
            shown: Files = {}
            if authority:
                pair = certificates.new_server(
                    authority, _with_this_machine((server.address,)), reaches_others=True
                )
                shown = content.tls(authority.certificate, pair)
            told = content.hub_configuration(record, server, keys)
            constants = content.hub_constants(record, server)
            _write_all(
                self.folder / "hub" / server.name, {**shown, **made.files, **constants, **told}
            )

    def _keep(self, record: Estate) -> None:
        """Says in ``estate.json`` what there is from now on, and tells every site's folder."""
        text = msgspec.json.format(msgspec.json.encode(record), indent=2)
        files.write(self.folder / _RECORD, text)
        self.record = record
        registry = content.registry_file(registry_of(record))
        for folder in (each for folders in self.places().values() for each in folders):
            _write_all(folder, registry)

    def _authority(self) -> Pair:
        return Pair(files.read(self.folder / "ca.pem"), self._keyring.authority())

    def _require(self, place: str) -> None:
        if place not in self.places():
            known = ", ".join(self.places()) or "there is none yet"
            raise UnknownError(f"There is no site {place!r}: {known}")

    def _require_site(self, name: str) -> Site:
        site = self.record.site(name)
        if site is None:
            raise UnknownError(f"There is no site {name!r}")
        return site


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
    if not 0 < place.port < 65536:
        raise BadAddressError(f"{place.port} is no port: 1 to 65535")
    for path in (place.folder, place.store):
        if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
            raise BadAddressError(
                f"{path!r} is no folder on a server: say all of its path, as in /etc/imageinvoker"
            )


def _require_image(image: str) -> None:
    if not valid_image(image):
        raise UnknownError(f"{image!r} is no name of an image: 1 to 64 of a-z, 0-9, _ and -")


def _with_this_machine(known: tuple[str, ...]) -> tuple[str, ...]:
    """Where a server is reached, also by what runs beside it."""
    return tuple(dict.fromkeys((*known, *_THIS_MACHINE)))


def _write_all(folder: Path, contents: Files) -> None:
    for name, text in contents.items():
        files.write(folder / name, text)
