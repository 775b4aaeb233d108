"""`imageinvoker site`: the sites of an estate, and what is to be copied to each."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from msgspec import Struct

from bus.connection import Connection
from bus.messages import Time
from bus.revocations import RevocationStore
from bus.sites import SiteError, SiteStore
from cli.estate_folder import AsJson, Folder, opened, several
from cli.fail import DONE, CommandError, WrongUseError
from cli.running import talk
from cli.target import Target, find
from estate import files
from estate.errors import BrokenError, UnknownError
from estate.folder import EstateFolder, Wish
from estate.nats_conf import INSTALLED, STORED, Place
from estate.records import Site, registry_decoder

app = App(
    name="site",
    help="Add sites to an estate, and see those that there are; `imageinvoker pki` begins one.",
)


class Shown(Struct, frozen=True, kw_only=True):
    """A site as it is shown."""

    name: str
    servers: tuple[str, ...]
    subnets: tuple[str, ...]
    added_at: Time
    folder: str


@app.command
def add(
    name: str,
    *,
    address: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)],
    subnet: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    nested: Annotated[bool, Parameter(negative="")] = False,
    server_port: int = 4222,
    install: str = INSTALLED,
    store: str = STORED,
    out: Path | None = None,
    folder: Folder = None,
    json: AsJson = False,
) -> int:
    """Add a site, and make all that is to be copied to its server: README there says how.

    Said a second time for the same site, it changes nothing.

    Examples:

        imageinvoker site add campus --address bus.campus.example --subnet 10.1.0.0/16

        imageinvoker site add lab --address 192.0.2.10,bus.lab.example --out /media/stick/lab

    Parameters
    ----------
    name
        1 to 32 of a-z, 0-9 and -.
    address
        A name or an address at which the site's bus is reached; with commas between, or said once
        for each. They stand in its certificate.
    subnet
        A network whose machines are at this site (10.1.0.0/16); said once for each.
    nested
        A subnet may lie within another site's, or around one: the smaller one counts.
    server_port
        Where the site's bus listens.
    install
        The folder on the site's server that all is copied to.
    store
        The folder on the site's server where its bus keeps requests and events.
    out
        A folder, not there yet, for a copy of what belongs on the site's server.
    json
        For programs: an object of the site.
    """
    if out and out.exists():
        raise WrongUseError(f"{out} is there already; name a folder that is not (--out DIR).")
    wish = Wish(
        name=name,
        addresses=several(address),
        subnets=several(subnet),
        place=Place(folder=install.rstrip("/") or "/", store=store, port=server_port),
    )
    with opened(folder) as estate:
        added = estate.add_site(wish, nested=nested)
        shown = _shown(estate, _site(estate, name))
        if out:
            _copy(estate.site_folder(name), out)
    ready = out.absolute() if out else shown.folder
    state = "is added" if added else "is there already; nothing was changed"
    _tell(f"{name} {state}. Copy it as README says: {ready}\n", shown, as_json=json)
    return DONE


@app.command(name="list")
def list_(*, folder: Folder = None, json: AsJson = False) -> int:
    """List the sites of the estate.

    Example: imageinvoker site list

    Parameters
    ----------
    json
        For programs: a list of sites.
    """
    with opened(folder) as estate:
        sites = [_shown(estate, site) for site in estate.record.sites]
        lines = [
            f"{site.name}  {', '.join(site.servers)}  {', '.join(site.subnets)}".rstrip() + "\n"
            for site in sites
        ]
        none = f"{estate.record.name} has no sites: imageinvoker site add NAME --address HOST\n"
    _tell("".join(lines) or none, sites, as_json=json)
    return DONE


@app.command
def show(name: str, *, folder: Folder = None, json: AsJson = False) -> int:
    """Show a site: where its bus is, which networks are its own, what is to be copied there.

    Example: imageinvoker site show campus

    Parameters
    ----------
    name
        The site.
    json
        For programs: an object of the site.
    """
    with opened(folder) as estate:
        shown = _shown(estate, _site(estate, name))
    lines = {
        "site": shown.name,
        "bus": ", ".join(shown.servers),
        "subnets": ", ".join(shown.subnets) or "none",
        "added": f"{shown.added_at:%Y-%m-%d}",
        "to copy": shown.folder,
    }
    _tell("".join(f"{key:<8} {value}\n" for key, value in lines.items()), shown, as_json=json)
    return DONE


@app.command
def register(file: Path, *, target: Target | None = None, json: AsJson = False) -> int:
    """Tell a bus of all sites of the estate, and of the boot images that are revoked.

    At an estate with a hub this is done there, and every site has it from the hub; else at each
    site. Said again, it brings what is new.

    Example: imageinvoker site register /etc/imageinvoker/registry.json

    Parameters
    ----------
    file
        The registry.json of a site's folder, as `site add` has made it.
    json
        For programs: an object of the names of sites and images.
    """
    try:
        registry = registry_decoder.decode(files.read(file))
    except (BrokenError, ValueError) as error:
        why = str(error) if isinstance(error, BrokenError) else f"{file} holds no registry."
        raise WrongUseError(f"{why} Copy it again from the estate's folder.") from error

    async def write(connection: Connection) -> None:
        sites, images = await SiteStore.open(connection), await RevocationStore.open(connection)
        for entry in registry.sites:
            await sites.write(entry)
        for image in registry.revoked_images:
            await images.revoke(image, datetime.now(UTC))

    try:
        talk(find(target), write)
    except SiteError as error:
        raise CommandError(f"The bus knows something else: {error}") from error
    told = {"sites": [each.name for each in registry.sites], "revoked": registry.revoked_images}
    known = f"{len(registry.sites)} sites and {len(registry.revoked_images)} revoked images"
    _tell(f"the bus knows {known}\n", told, as_json=json)
    return DONE


def _site(estate: EstateFolder, name: str) -> Site:
    site = estate.record.site(name)
    if site is None:
        known = ", ".join(each.name for each in estate.record.sites) or "there is none yet"
        raise UnknownError(f"There is no site {name!r}: {known}")
    return site


def _shown(estate: EstateFolder, site: Site) -> Shown:
    return Shown(
        name=site.name,
        servers=site.entry.servers,
        subnets=site.subnets,
        added_at=site.added_at,
        folder=str(estate.site_folder(site.name)),
    )


def _copy(ready: Path, out: Path) -> None:
    draft = out.with_name(f".{out.name}.new")
    try:
        if draft.exists():
            shutil.rmtree(draft)
        shutil.copytree(ready, draft)
        draft.rename(out)
    except OSError as error:
        raise CommandError(f"{out} cannot be written: {error.strerror}") from error


def _tell(text: str, values: object, *, as_json: bool) -> None:
    sys.stdout.write(msgspec.json.encode(values).decode() + "\n" if as_json else text)
