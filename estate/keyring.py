"""The keys of an estate on disk: ``keys/``, all that is secret for good and must be backed up."""

from collections.abc import Mapping
from pathlib import Path

from bus.nkeys import KeyPair, KeyTextError, Kind
from estate import files
from estate.accounts import HUB_ROLES, SITE_ROLES, EstateKeys, SiteKeys
from estate.certificates import Authority
from estate.errors import BrokenError


class Keyring:
    """The folder ``keys`` of an estate.

    Every method raises BrokenError if a file cannot be read or written, or holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep_estate(self, keys: EstateKeys) -> None:
        """Keeps the keys of a new estate."""
        own = {
            "operator": keys.operator,
            "system": keys.system,
            "hub": keys.hub,
            "boot": keys.boot,
        }
        for name, key in (own | _of_roles(keys.roles)).items():
            files.write(self._seed(name), _text(key))
        files.write(self._folder / "operator.jwt", _line(keys.believed))

    def estate(self) -> EstateKeys:
        """The keys of the estate."""
        return EstateKeys(
            operator=self._key("operator", "operator"),
            believed=self._text("operator.jwt"),
            system=self._key("system", "account"),
            hub=self._key("hub", "account"),
            boot=self._key("boot", "user"),
            roles={name: self._key(_role(name), "account") for name in HUB_ROLES},
        )

    def keep_authority(self, authority: Authority) -> None:
        """Keeps the X.509 authority of the estate; one file, so that its parts always fit."""
        files.write(self._authority, authority.text)

    def authority(self) -> Authority:
        """The X.509 authority of the estate."""
        try:
            return Authority.read(files.read(self._authority))
        except ValueError as error:
            if isinstance(error, BrokenError):
                raise
            raise BrokenError(
                f"{self._authority} holds no authority; take it from a backup."
            ) from None

    def keep_site(self, site: str, keys: SiteKeys) -> None:
        """Keeps the keys of a new site; what was left there half made is replaced."""
        own = {
            "system": keys.system,
            "account": keys.account,
            "auth": keys.auth,
            "callout": keys.callout,
        }
        texts = {f"{name}.seed": _text(key) for name, key in (own | _of_roles(keys.roles)).items()}
        texts |= {"operator.jwt": _line(keys.believed), "sentinel.jwt": _line(keys.sentinel)}
        files.put_folder(self._folder / "sites" / site, texts)

    def keep_callout(self, site: str, key: KeyPair) -> None:
        """Keeps a new key of who decides about a site's boot clients."""
        files.write(self._seed(f"sites/{site}/callout"), _text(key))

    def forget_site(self, site: str) -> None:
        """Removes the keys of a site, if they are there."""
        files.remove_folder(self._folder / "sites" / site)

    def site(self, site: str) -> SiteKeys:
        """The keys of a site."""
        at = f"sites/{site}"
        return SiteKeys(
            believed=self._text(f"{at}/operator.jwt"),
            sentinel=self._text(f"{at}/sentinel.jwt"),
            system=self._key(f"{at}/system", "account"),
            account=self._key(f"{at}/account", "account"),
            auth=self._key(f"{at}/auth", "account"),
            callout=self._key(f"{at}/callout", "user"),
            roles={name: self._key(f"{at}/{_role(name)}", "account") for name in SITE_ROLES},
        )

    @property
    def _authority(self) -> Path:
        return self._folder / "authority.pem"

    def _seed(self, name: str) -> Path:
        return self._folder / f"{name}.seed"

    def _text(self, name: str) -> str:
        return files.read(self._folder / name).decode("ascii", "replace").strip()

    def _key(self, name: str, kind: Kind) -> KeyPair:
        file = self._seed(name)
        try:
            key = KeyPair.from_seed(self._text(f"{name}.seed"))
        except KeyTextError:
            key = None
        if key is None or key.kind != kind:
            raise BrokenError(f"{file} holds no seed of such a key; take it from a backup.")
        return key


def _text(key: KeyPair) -> bytes:
    return _line(key.seed)


def _line(text: str) -> bytes:
    return f"{text}\n".encode("ascii")


def _role(name: str) -> str:
    return f"role-{name}"


def _of_roles(keys: Mapping[str, KeyPair]) -> dict[str, KeyPair]:
    return {_role(name): key for name, key in keys.items()}
