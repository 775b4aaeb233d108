"""`imageinvoker site`: the sites of an estate, and what is to be copied to each."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from msgspec import Struct
from msgspec.structs import replace

from bus.connection import Connection
from bus.messages import Time
from bus.revocations import RevocationStore
from bus.sites import SiteError, SiteStore
from cli.estate_folder import AsJson, Folder, opened, several
from cli.fail import DONE, CommandError, WrongUseError
from cli.running import talk
from cli.target import Target, find
from estate import files
from estate.errors import BrokenError
from estate.folder import EstateFolder
from estate.nats_conf import CLIENT_PORT, HEALTH_PORT, INSTALLED, STORED, Place
from estate.permissions import HUB
from estate.records import Site, registry_decoder
from estate.wishes import Wish

app = App(
    name="site",
    help="Add, see, change and remove the sites of an estate; `imageinvoker pki` begins one.",
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
    server_port: int = CLIENT_PORT,
    health_port: int = HEALTH_PORT,
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
    health_port
        Where its health and figures are shown, on 127.0.0.1 only.
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
        place=Place(
            folder=install.rstrip("/") or "/",
            store=store,
            port=server_port,
            watch=f"127.0.0.1:{health_port}",
        ),
    )
    with opened(folder) as estate:
        added = estate.add_site(wish, nested=nested)
        shown = _shown(estate, estate.site(name))
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
        shown = _shown(estate, estate.site(name))
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
def change(
    name: str,
    *,
    address: Annotated[tuple[str, ...] | None, Parameter(negative="")] = None,
    subnet: Annotated[tuple[str, ...] | None, Parameter(negative="")] = None,
    nested: Annotated[bool, Parameter(negative="")] = False,
    folder: Folder = None,
    json: AsJson = False,
) -> int:
    """Give a site other addresses or subnets: those that are said, in place of those that it had.

    With other addresses, its server gets another certificate. All else stays as it is.

    Examples:

        imageinvoker site change campus --address bus.campus.example,192.0.2.11

        imageinvoker site change campus --subnet 10.1.0.0/16,10.7.0.0/16

        imageinvoker site change campus --subnet ''

    Parameters
    ----------
    name
        The site.
    address
        All names and addresses at which its bus is reached.
    subnet
        All networks whose machines are at this site; '' for none.
    nested
        A subnet may lie within another site's, or around one: the smaller one counts.
    json
        For programs: an object of the site.
    """
    if address is None and subnet is None:
        raise WrongUseError("What is to be changed? --address HOST, --subnet NETWORK")
    with opened(folder) as estate:
        before = estate.site(name)
        changed = estate.change_site(
            name,
            addresses=None if address is None else several(address),
            subnets=None if subnet is None else several(subnet),
            nested=nested,
        )
        site = estate.site(name)
        shown = _shown(estate, site)
        has_hub = bool(estate.record.hub.servers)
    todo: list[str] = []
    if site.addresses != before.addresses:
        todo.append(f"copy {shown.folder} to its server, and have it reload (README there)")
    if changed:
        todo.append(_register_at(has_hub))
    state = "is changed" if changed else "is so already; nothing was changed"
    _tell(_sentences(f"{name} {state}", todo), shown, as_json=json)
    return DONE


@app.command
def remove(
    name: str,
    *,
    yes: Annotated[bool, Parameter(negative="")] = False,
    folder: Folder = None,
    json: AsJson = False,
) -> int:
    """Remove a site: its keys, what is to be copied there, and its line to the hub.

    What runs at the site goes on there, alone, until it is ended. The name may be given to another.

    Examples:

        imageinvoker site remove campus

        imageinvoker site remove campus --yes

    Parameters
    ----------
    name
        The site.
    yes
        Do not ask.
    json
        For programs: an object of the name, and of the folders of the hub to copy.
    """
    if not yes:
        # Not within what follows: meanwhile, other commands need not wait.
        with opened(folder) as estate:
            asked = estate.record.name if estate.record.site(name) else None
        if asked:
            _ask(name, asked)
    with opened(folder) as estate:
        removed = estate.remove_site(name)
        hub = [str(each) for each in estate.places().get(HUB, ())]
    todo = [
        *(f"copy {each} to the server of the hub, and have it reload (README there)"
            for each in hub),
        _register_at(bool(hub)),
        "at the site, end the services and the bus, and delete what was copied there",
    ]  # fmt: skip
    state = "is removed, and so are its keys" if removed else "was removed already"
    told = {"name": name, "removed": removed, "hub": hub}
    _tell(_sentences(f"{name} {state}", todo), told, as_json=json)
    return DONE


@app.command
def register(file: Path, *, target: Target | None = None, json: AsJson = False) -> int:
    """Tell a bus of all sites of the estate, and of the boot images that are revoked.

    At an estate with a hub this is done there, and every site has it from the hub; else at each
    site. Said again, it brings what is new, and forgets sites that were removed.

    Examples:

        imageinvoker site register /etc/imageinvoker/registry.json

        imageinvoker site register registry.json --server tls://hub.example:4222 --ca ca.pem \
--credentials operator.creds

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
        for name in registry.removed:
            await sites.remove(name)
        # What one site gives up another may have got: first everybody gives up.
        wanted = {each.name: each for each in registry.sites}
        for known in await sites.read():
            new = wanted.get(known.name, known)
            kept = tuple(each for each in known.subnets if each in new.subnets)
            if kept != known.subnets:
                await sites.write(replace(known, subnets=kept))
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


def _ask(name: str, estate: str) -> None:
    if not sys.stdin.isatty():
        raise WrongUseError(f"Nobody can be asked here whether {name} is to go: say --yes.")
    sys.stderr.write(
        f"Remove the site {name} of the estate {estate}? Its keys cannot be made "
        "again. Type its name: "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise WrongUseError("This is not its name; nothing was changed.")


def _register_at(has_hub: bool) -> str:
    where = "the hub" if has_hub else "each site"
    return f"tell {where}: imageinvoker site register registry.json"


def _sentences(state: str, todo: Sequence[str]) -> str:
    return f"{state}\n" + "".join(f"  {each}\n" for each in todo)


def _shown(estate: EstateFolder, site: Site) -> Shown:
    return Shown(
        name=site.name,
        servers=site.entry.servers,
        subnets=site.subnets,
        added_at=site.added_at,
        folder=str(estate.site_folder(site.name)),
    )


def _copy(ready: Path, out: Path) -> None:
    # Not as it stands there: a stick may know neither modes nor owners.
    copied = (each for each in ready.rglob("*") if each.is_file())
    files.put_folder(
        out.absolute(), {str(each.relative_to(ready)): files.read(each) for each in copied}
    )


def _tell(text: str, values: object, *, as_json: bool) -> None:
    sys.stdout.write(msgspec.json.encode(values).decode() + "\n" if as_json else text)
