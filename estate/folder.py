"""An estate on disk: ``estate.json``, ``ca.pem``, ``keys/``, and what is to be copied to servers.

Every change is decided and made in memory first. Then keys are kept, then what is copied, then
``estate.json`` says that it is so: whoever is cut off before that has changed nothing, and does it
again.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from bus.nkeys import KeyPair
from estate import certificates, content, files, images
from estate.accounts import EstateKeys, SiteKeys
from estate.certificates import Authority
from estate.content import HUB_CREDENTIALS, SITE_CREDENTIALS, Files
from estate.errors import (
    EstateError,
    NameTakenError,
    NoEstateError,
    OtherEstateError,
    UnknownError,
)
from estate.keyring import Keyring
from estate.permissions import HUB
from estate.records import (
    VERSION,
    Estate,
    Hub,
    HubServer,
    Site,
    estate_decoder,
    live,
    registry_of,
    revoked,
)
from estate.wishes import Wish, checked_site, require_estate

CREDENTIALS_LAST: Final = timedelta(days=400)

_RECORD: Final = "estate.json"
_AUTHORITY: Final = "ca.pem"
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


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
        require_estate(name, hub)
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
            new._keyring.keep_estate(keys)
            new._keep_authority(authority)
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
        site = checked_site(wish, self.record.sites, nested=nested)
        there = self.record.site(site.name)
        if there:
            same = (there.addresses, there.subnets, there.place)
            if same == (site.addresses, site.subnets, site.place):
                return False
            raise NameTakenError(
                f"There is a site {site.name!r} already, with other addresses or subnets. Take "
                f"another name, or change it: imageinvoker site change {site.name}; see what there "
                f"is: imageinvoker site show {site.name}"
            )
        keys, authority = self._keyring.estate(), self._keyring.authority()
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
                **_site_certificate(authority, site),
            },
        )
        self._keep(record)
        return True

    def change_site(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        subnets: Sequence[str] | None = None,
        nested: bool = False,
    ) -> bool:
        """Gives a site other addresses, other subnets, or both; False if it has them already.

        With other addresses its server gets another certificate. All else stays as it is.

        Raises:
            BadAddressError, SubnetError, UnknownError: something of it is none.
        """
        there = self.site(name)
        wish = Wish(
            name=name,
            addresses=there.addresses if addresses is None else tuple(addresses),
            subnets=there.subnets if subnets is None else tuple(subnets),
            place=there.place,
        )
        # What was allowed to be within another site's stays allowed.
        nested = nested or subnets is None
        wished = checked_site(wish, self.record.sites, nested=nested)
        if (there.addresses, there.subnets) == (wished.addresses, wished.subnets):
            return False
        site = replace(there, addresses=wished.addresses, subnets=wished.subnets)
        record = self.record.with_site(site)
        if site.addresses != there.addresses:
            own, authority = self._keyring.site(name), self._keyring.authority()
            _write_all(
                self.site_folder(name),
                {
                    **_site_certificate(authority, site),
                    **content.site_constants(record, site, own),
                },
            )
        self._keep(record)
        return True

    def remove_site(self, name: str) -> bool:
        """Removes a site, its keys and what is copied there, and revokes its line to the hub.

        Its name may be given to another. False if it was removed already.

        Raises:
            UnknownError: there is no such site, and there was none.
        """
        site = self.record.site(name)
        if site is None and all(each.name != name for each in self.record.gone):
            self.site(name)
        if site:
            self.record = self.record.without_site(site, datetime.now(UTC))
        # Of a removal that was cut off, the rest is done, too.
        self._make_hub(self._keyring.estate(), None)
        self._keyring.forget_site(name)
        files.remove_folder(self.site_folder(name))
        return site is not None

    def renew(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """Makes new certificates and credentials for sites, `HUB` among them; all if none is named.

        Those that there were stay good until they end.

        Raises:
            UnknownError: there is no such site.
        """
        wanted = tuple(names) or tuple(self.places())
        for name in wanted:
            self._require(name)
        keys, authority = self._keyring.estate(), self._keyring.authority()
        self._keep_authority(authority)
        for name in wanted:
            if name == HUB:
                self._make_hub(keys, authority, HUB_CREDENTIALS)
                continue
            site = self.site(name)
            self._reissue(site, SITE_CREDENTIALS, keys, _site_certificate(authority, site))
        return wanted

    def renew_authority(self) -> None:
        """Has another authority sign certificates; the one before it is believed until it is
        dropped.

        Raises:
            EstateError: there still is one before.
        """
        old = self._keyring.authority()
        if old.before:
            raise EstateError(
                "There are two authorities already. If every server has its new certificate, and "
                "every boot image in use the new ca.pem, drop the old one: imageinvoker pki "
                "authority drop. If that was cut off, make its certificates: imageinvoker pki renew"
            )
        new = certificates.next_authority(self.record.name, old)
        self._keep_authority(new)
        self._certify(new)

    def drop_authority(self) -> None:
        """Believes the present authority alone.

        Raises:
            EstateError: there is no other.
        """
        authority = self._keyring.authority()
        if not authority.before:
            raise EstateError(
                "There is one authority only; for another one: imageinvoker pki authority renew"
            )
        alone = replace(authority, bridge=b"", before=b"")
        # Kept last: whoever is cut off before that does it again.
        self._certify(alone)
        self._keep_authority(alone)

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
        site = self.site(place)
        site = replace(site, credentials=revoked(site.credentials, credential, now))
        if credential == "callout":
            self._keyring.keep_callout(place, KeyPair.generate("user"))
        self._reissue(site, (credential,), keys, {})
        if credential == "leaf":
            self._make_hub(keys, None)

    def issue_boot(self, image: str, days: int = images.LASTS) -> str:
        """A boot credential of an image, good for some days.

        Raises:
            UnknownError: this is no id of an image, or it is revoked.
        """
        key = self._keyring.estate().boot
        record, token = images.issued(self.record, image, key, days, datetime.now(UTC))
        self._keep(record)
        return token

    def revoke_boot(self, image: str) -> bool:
        """Notes that an image is revoked; False if it was already.

        Raises:
            UnknownError: this is no id of an image.
        """
        record = images.without(self.record, image, datetime.now(UTC))
        if record == self.record:
            return False
        self._keep(record)
        return True

    def authorities(self) -> tuple[bytes, ...]:
        """Certificates (PEM) of who signs, and of the authority before, if it is believed."""
        known = self._keyring.authority()
        return (known.certificate, known.before) if known.before else (known.certificate,)

    def places(self) -> dict[str, list[Path]]:
        """The folders that are copied to servers: of each site by its name, and of the hub."""
        sites = {site.name: [self.site_folder(site.name)] for site in self.record.sites}
        hub = [self.folder / HUB / each.name for each in self.record.hub.servers]
        return sites | ({HUB: hub} if hub else {})

    def site(self, name: str) -> Site:
        """The site of this name.

        Raises:
            UnknownError: there is none.
        """
        site = self.record.site(name)
        if site is None:
            known = ", ".join(each.name for each in self.record.sites) or "there is none yet"
            raise UnknownError(f"There is no site {name!r}: {known}")
        return site

    def site_folder(self, site: str) -> Path:
        """What is copied to a site."""
        return self.folder / "sites" / site

    def _keep_authority(self, authority: Authority) -> None:
        self._keyring.keep_authority(authority)
        files.write(self.folder / _AUTHORITY, authority.believed)

    def _certify(self, authority: Authority) -> None:
        """Makes certificates for all servers anew, and nothing else."""
        for site in self.record.sites:
            _write_all(self.site_folder(site.name), _site_certificate(authority, site))
        for server in self.record.hub.servers:
            _write_all(self.folder / HUB / server.name, _hub_certificate(authority, server))

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
        self, keys: EstateKeys, authority: Authority | None, names: tuple[str, ...] = ()
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
            shown = _hub_certificate(authority, server) if authority else {}
            told = content.hub_configuration(record, server, keys)
            constants = content.hub_constants(record, server)
            _write_all(
                self.folder / HUB / server.name, {**shown, **made.files, **constants, **told}
            )

    def _keep(self, record: Estate) -> None:
        """Says in ``estate.json`` what there is from now on, and tells every site's folder."""
        text = msgspec.json.format(msgspec.json.encode(record), indent=2)
        files.write(self.folder / _RECORD, text)
        self.record = record
        registry = content.registry_file(registry_of(record))
        for folder in (each for folders in self.places().values() for each in folders):
            _write_all(folder, registry)

    def _require(self, place: str) -> None:
        if place not in self.places():
            known = ", ".join(self.places()) or "there is none yet"
            raise UnknownError(f"There is no site {place!r}: {known}")


def _site_certificate(authority: Authority, site: Site) -> Files:
    made = certificates.new_server(authority, _with_this_machine(site.addresses))
    return content.tls(authority.believed, made)


def _hub_certificate(authority: Authority, server: HubServer) -> Files:
    made = certificates.new_server(
        authority, _with_this_machine((server.address,)), reaches_others=True
    )
    return content.tls(authority.believed, made)


def _with_this_machine(known: tuple[str, ...]) -> tuple[str, ...]:
    """Where a server is reached, also by what runs beside it."""
    return tuple(dict.fromkeys((*known, *_THIS_MACHINE)))


def _write_all(folder: Path, contents: Files) -> None:
    for name, text in contents.items():
        files.write(folder / name, text)
