"""`imageinvoker pki`: keys and certificates of an estate, and the credentials of boot images."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter
from msgspec import Struct

from bus.connection import Connection
from bus.messages import Time
from bus.revocations import RevocationStore
from cli.estate_folder import AsJson, Folder, complaints, opened, place_of, several
from cli.fail import DONE, WrongUseError
from cli.running import talk
from cli.target import Target, find
from estate import certificates, files, images
from estate.folder import EstateFolder
from estate.nats_conf import INSTALLED, STORED, Place
from estate.permissions import HUB
from estate.wishes import hub_servers

app = App(
    name="pki",
    help="Begin an estate; see, renew and revoke its certificates and credentials.",
)
boot = App(name="boot", help="Credentials of boot images: what lets their machines on the bus.")
app.command(boot)
authority = App(name="authority", help="The authority that all certificates of the estate are of.")
app.command(authority)

_STANDARD: Final = "-"


class Dated(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that ends; ``fingerprint`` is a certificate's SHA-256, or a user's public key."""

    place: str
    what: str
    ends: Time
    fingerprint: str
    revoked_at: Time | None = None


class Shown(Struct, frozen=True, kw_only=True):
    """An estate as it is shown."""

    name: str
    folder: str
    operator: str
    boot_key: str
    hub: tuple[str, ...]
    sites: tuple[str, ...]
    certificates: tuple[Dated, ...]
    credentials: tuple[Dated, ...]


@app.command
def init(
    name: str,
    *,
    hub: Annotated[
        tuple[str, ...], Parameter(negative="", show_default=False, consume_multiple=True)
    ] = (),
    install: str = INSTALLED,
    store: str = STORED,
    folder: Folder = None,
    json: AsJson = False,
) -> int:
    """Begin an estate: its keys, its authority, and what is to be copied to the hub.

    Said a second time, it changes nothing. Keep the folder where no service runs, and back it up:
    what is in `keys` cannot be made again.

    Examples:

        imageinvoker pki init example

        imageinvoker pki init example --folder /media/safe/estate --hub hub.example

        imageinvoker pki init example --hub hub1.example hub2.example hub3.example

    Parameters
    ----------
    name
        1 to 32 of a-z, 0-9 and -.
    hub
        The names or addresses of the hub's servers, one or three; without a hub each site is alone.
    install
        The folder on the hub's servers that all is copied to.
    store
        The folder on the hub's servers where the bus keeps events.
    json
        For programs: what `pki show --json` tells.
    """
    where = place_of(folder)
    with complaints():
        place = Place(folder=install.rstrip("/") or "/", store=store)
        estate, begun = EstateFolder.begin(where, name, hub_servers(several(hub), place))
        shown = _shown(estate)
    state = "has begun" if begun else "is there already; nothing was changed"
    text = f"The estate {name} {state}: {where}\nBack it up, and keep it secret.\n"
    _tell(text, shown, as_json=json)
    return DONE


@app.command
def show(*, folder: Folder = None, json: AsJson = False) -> int:
    """Show what there is: fingerprints, and when each certificate and credential ends.

    Example: imageinvoker pki show

    Parameters
    ----------
    json
        For programs: an object of the estate, its certificates and its credentials.
    """
    with opened(folder) as estate:
        shown = _shown(estate)
    _tell(_text(shown), shown, as_json=json)
    return DONE


@app.command
def renew(*site: str, folder: Folder = None, json: AsJson = False) -> int:
    """Make new certificates and credentials, to be copied to the servers; the old ones stay good.

    Nothing is interrupted: a server takes its new certificate when it is told to reload, services
    take their new credentials by themselves, and what was there is good until it ends.

    Examples:

        imageinvoker pki renew

        imageinvoker pki renew campus hub

    Parameters
    ----------
    site
        Only these sites; `hub` is the hub.
    json
        For programs: a list of the folders to copy.
    """
    with opened(folder) as estate:
        renewed = estate.renew(site)
        places = _folders(estate, *renewed)
    _tell(_to_copy("renewed", places), places, as_json=json)
    return DONE


@app.command
def revoke(site: str, credential: str, *, folder: Folder = None, json: AsJson = False) -> int:
    """Revoke all credentials of one name, and make new ones in their place.

    They are refused from the moment on when the servers that are named have the new configuration
    and are told to reload; whoever is connected with them is thrown out then.

    Examples:

        imageinvoker pki revoke campus scheduler

        imageinvoker pki revoke campus leaf

    Parameters
    ----------
    site
        Whose; `hub` is the hub.
    credential
        Its name: menu, auth, scheduler, monitor, operator, leaf, callout or system.
    json
        For programs: a list of the folders to copy.
    """
    with opened(folder) as estate:
        estate.revoke(site, credential)
        affected = (site, HUB) if credential == "leaf" else (site,)
        places = _folders(estate, *affected)
    _tell(_to_copy("revoked, and made anew", places), places, as_json=json)
    return DONE


@authority.command(name="renew")
def renew_authority(*, folder: Folder = None, json: AsJson = False) -> int:
    """Have a new authority sign all certificates; the old one is believed until it is dropped.

    Nothing is interrupted: whoever knows the old one alone believes what the new one has signed,
    since each server shows that the old one stands for the new one.

    Example: imageinvoker pki authority renew

    Parameters
    ----------
    json
        For programs: a list of the folders to copy.
    """
    with opened(folder) as estate:
        estate.renew_authority()
        return _all_to_copy(estate, "there is a new authority, and the old one is believed", json)


@authority.command(name="drop")
def drop_authority(*, folder: Folder = None, json: AsJson = False) -> int:
    """Drop the old authority, after every server and boot image has the ca.pem of the new one.

    What knows the old one alone reaches no bus from then on.

    Example: imageinvoker pki authority drop

    Parameters
    ----------
    json
        For programs: a list of the folders to copy.
    """
    with opened(folder) as estate:
        estate.drop_authority()
        return _all_to_copy(estate, "the old authority is dropped", json)


@boot.command
def issue(
    image: str,
    *,
    out: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    days: int = images.LASTS,
    folder: Folder = None,
) -> int:
    """Issue the credential of a boot image; it is a secret, and belongs into that image alone.

    Examples:

        imageinvoker pki boot issue winpe-2026 --out boot-credential

        imageinvoker pki boot issue usb-17 --days 30 --out -

    Parameters
    ----------
    image
        The image's id: 1 to 64 of a-z, 0-9, _ and -. By it, it can be revoked.
    out
        The file to write it to, for nobody else to read; - for standard output.
    days
        How long it is good.
    """
    if out.exists() and not out.is_file() and str(out) != _STANDARD:
        raise WrongUseError(f"{out} is there already, and no file; name another (--out FILE).")
    with opened(folder) as estate:
        token = estate.issue_boot(image, days)
        if str(out) == _STANDARD:
            sys.stdout.write(f"{token}\n")
            return DONE
        files.write(out.absolute(), f"{token}\n".encode())
    sys.stdout.write(f"the credential of {image} is in {out}, good for {days} days\n")
    return DONE


@boot.command(name="list")
def list_(*, folder: Folder = None, json: AsJson = False) -> int:
    """List the boot images that have credentials, and those that are revoked.

    Example: imageinvoker pki boot list

    Parameters
    ----------
    json
        For programs: a list of images.
    """
    with opened(folder) as estate:
        known = estate.record.images
    lines = [
        f"{each.image}  "
        + (
            f"revoked {each.revoked_at:%Y-%m-%d}"
            if each.revoked_at
            else f"ends {each.expires_at:%Y-%m-%d}"
        )
        + "\n"
        for each in known
    ]
    text = "".join(lines) or "no image has a credential: imageinvoker pki boot issue IMAGE\n"
    _tell(text, known, as_json=json)
    return DONE


@boot.command(name="revoke")
def revoke_image(
    image: str,
    *,
    target: Target | None = None,
    folder: Folder = None,
    json: AsJson = False,
) -> int:
    """Revoke a boot image: its machines come on the bus no more.

    With --server (or IMAGEINVOKER_SERVER) the bus there, the hub's or a site's, knows it at once.
    Every site that is added or renewed from now on is given it in its registry.json.

    Examples:

        imageinvoker pki boot revoke usb-17 --server tls://hub.example:4222

        imageinvoker pki boot revoke usb-17

    Parameters
    ----------
    image
        The image.
    json
        For programs: an object of its name and where it is revoked.
    """
    # Asked first: an address that makes no sense must not leave half of it done.
    address = find(target) if target and target.server else None
    with opened(folder) as estate:
        noted = estate.revoke_boot(image)
    if address:
        talk(address, lambda connection: _revoke(connection, image))
    where = f"and the bus at {address.server} knows" if address else "in the estate's folder"
    state = "is revoked" if noted else "was revoked already"
    told = {"image": image, "noted": noted, "server": address.server if address else None}
    _tell(f"{image} {state}, {where}\n", told, as_json=json)
    return DONE


async def _revoke(connection: Connection, image: str) -> None:
    await (await RevocationStore.open(connection)).revoke(image, datetime.now(UTC))


def _all_to_copy(estate: EstateFolder, state: str, as_json: bool) -> int:
    places = _folders(estate, *estate.places())
    _tell(_to_copy(state, places), places, as_json=as_json)
    return DONE


def _shown(estate: EstateFolder) -> Shown:
    record = estate.record
    known = estate.authorities()
    issued = {site.name: site.credentials for site in record.sites}
    if record.hub.servers:
        issued[HUB] = record.hub.credentials
    return Shown(
        name=record.name,
        folder=str(estate.folder),
        operator=record.operator,
        boot_key=record.boot,
        hub=tuple(each.address for each in record.hub.servers),
        sites=tuple(site.name for site in record.sites),
        certificates=(
            *(
                _certificate("estate", what, each)
                for what, each in zip(("authority", "old authority"), known, strict=False)
            ),
            *(
                _certificate(place, folder.name, files.read(folder / "tls" / "server.pem"))
                for place, folders in estate.places().items()
                for folder in folders
            ),
        ),
        credentials=tuple(
            Dated(
                place=place,
                what=each.name,
                ends=each.expires_at,
                fingerprint=each.public,
                revoked_at=each.revoked_at,
            )
            for place, known in issued.items()
            for each in known
        ),
    )


def _certificate(place: str, what: str, certificate: bytes) -> Dated:
    return Dated(
        place=place,
        what=what,
        ends=certificates.ends(certificate),
        fingerprint=certificates.fingerprint(certificate),
    )


def _text(shown: Shown) -> str:
    head = {
        "estate": shown.name,
        "folder": shown.folder,
        "hub": ", ".join(shown.hub) or "none",
        "sites": ", ".join(shown.sites) or "none",
        "operator key": shown.operator,
        "boot key": shown.boot_key,
    }
    rows = [
        (each.place, each.what, _state(each), each.fingerprint)
        for each in (*shown.certificates, *shown.credentials)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return (
        "".join(f"{key:<12}  {value}\n" for key, value in head.items())
        + "\n"
        + "".join(f"{line}\n" for line in lines)
    )


def _state(dated: Dated) -> str:
    if dated.revoked_at:
        return f"revoked {dated.revoked_at:%Y-%m-%d}"
    word = "ends" if dated.ends > datetime.now(UTC) else "ENDED"
    return f"{word} {dated.ends:%Y-%m-%d}"


def _folders(estate: EstateFolder, *places: str) -> list[str]:
    return [str(each) for name in places for each in estate.places().get(name, ())]


def _to_copy(done: str, places: list[str]) -> str:
    lines = "".join(f"  {each}\n" for each in places)
    return f"{done}; copy to the servers and have them reload (README there):\n{lines}"


def _tell(text: str, values: object, *, as_json: bool) -> None:
    sys.stdout.write(msgspec.json.encode(values).decode() + "\n" if as_json else text)
