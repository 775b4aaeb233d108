"""`imageinvoker boot`: what a technician starts a PC with."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter

from cli.boot_medium import BootCredential, Ca, Server, Site, making, told
from cli.boot_winpe import scripts, winpe
from cli.fail import DONE

app = App(name="boot", help="Make boot images, and put the client into those that exist.")
app.command(winpe)
app.command(scripts)

_OUT: Final = Path("imageinvoker-boot")


@app.command
def linux(
    *,
    server: Server,
    site: Site = None,
    ca: Ca = None,
    boot_credential: BootCredential = None,
    password_file: Path | None = None,
    then: str = "local",
    out: Path = _OUT,
    iso: Annotated[bool, Parameter(negative="")] = False,
    ipxe: Annotated[bool, Parameter(negative="")] = False,
    firmware: Annotated[
        tuple[str, ...], Parameter(negative="", show_default=False, consume_multiple=True)
    ] = (),
    append: str | None = None,
    packages: Path | None = None,
    offline: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    r"""Make a Linux boot image: a kernel and an initramfs, of Debian's packages.

    A PC that starts it brings its network up by DHCP, shows the portal on its
    screen and its serial line, and goes on with what --then says. Needs Debian
    with apt, 1.5 GB for a while, and no root. The same packages, client and
    files make the same image, byte for byte.

    Exit status: 0 made, 1 it could not be made, 2 wrong use; nothing half made
    is left.

    Examples:

        imageinvoker boot linux --server tls://deploy.example:4222 \
            --ca ca.pem --boot-credential linux.credential \
            --ipxe --out /srv/tftp/imageinvoker

        imageinvoker boot linux --server tls://deploy.example:4222 \
            --site london --iso --then agent:./agent \
            --firmware firmware-bnx2 firmware-realtek

    Parameters
    ----------
    server
        The bus: tls://HOST:PORT, or nats://HOST:PORT where it is not secured; several separated by
        commas.
    site
        The site whose menu is shown; else the bus is asked at which site a machine is.
    ca
        A PEM file with the authority of the server's certificate, else those that Debian trusts.
    boot_credential
        The file with what lets this image in where not everybody may come.
    password_file
        A file with the password for PCs that deploy without a question (imageinvoker.item= and
        imageinvoker.username= on their command line); it is a secret, and so is the image then.
    then
        What comes after the portal: local (this computer's disk), reboot, poweroff, shell,
        agent:FOLDER (its program `start` is run) or script:FILE.
    out
        The folder for kernel, initramfs and all else; an image that is there is replaced.
    iso
        Make a disc too, for a USB stick as well; it starts PCs with a BIOS and with UEFI.
    ipxe
        Write scripts for iPXE too, and iPXE itself, so that the folder can be served as it is.
    firmware
        Debian packages with firmware, of which is taken what the drivers in the image ask for.
    append
        The kernel's command line on the disc and in the scripts, else its consoles alone
        (console=ttyS0,115200 console=tty0).
    packages
        Where Debian's packages are kept, so that none is fetched twice; else in the user's cache
        (~/.cache/imageinvoker/packages).
    offline
        Take the packages that are kept, and fetch none.
    quick
        Pack in seconds instead of a minute or two; the initramfs gets a quarter larger.
    json
        For programs: an object that says what the image is made of.
    """
    # Only here: the commands must list quickly.
    from boot.linux_image import Order, make  # noqa: PLC0415
    from boot.wishes import CONSOLES, Wishes, parsed_then  # noqa: PLC0415

    server, site = told(server, site, boot_credential)
    with making():
        after, brought = parsed_then(then)
        wishes = Wishes(
            server=server,
            site=site,
            ca=ca,
            credential=boot_credential,
            password=password_file,
            then=after,
            brought=brought,
            firmware=firmware,
            append=CONSOLES if append is None else append,
        )
        order = Order(
            wishes=wishes,
            out=out,
            packages=packages or _cache(),
            offline=offline,
            with_iso=iso,
            with_ipxe=ipxe,
            quick=quick,
        )
        made = make(order, _say)
    if json:
        sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
        return DONE
    for file in sorted(out.iterdir()):
        sys.stdout.write(f"{file.stat().st_size / 1e6:8.1f} MB  {file}\n")
    return DONE


def _cache() -> Path:
    """Where packages are kept by default (XDG Base Directory)."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "imageinvoker" / "packages"


def _say(step: str) -> None:
    sys.stderr.write(f"{step}\n")
    sys.stderr.flush()
