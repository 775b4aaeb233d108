"""`imageinvoker boot winpe` and `boot scripts`: the client in environments that exist already."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.boot_medium import BootCredential, Ca, Server, Site, making, told
from cli.fail import DONE, WrongUseError


def winpe(
    *,
    python: Path,
    server: Server,
    site: Site = None,
    wim: Path | None = None,
    index: int | None = None,
    out: Path | None = None,
    in_place: Annotated[bool, Parameter(negative="")] = False,
    ca: Ca = None,
    boot_credential: BootCredential = None,
    wheels: Path | None = None,
    start: bool = True,
) -> int:
    r"""Put the client and the call that starts it into a Windows PE image.

    Needs wimlib (Debian: wimtools), neither root nor a mount. The image is
    copied and changed, or replaced where it is with --in-place; a client that
    is in it already is replaced.

    Without --wim the files are laid out in a folder (--out) for a tool that
    makes images itself.

    Exit status: 0 made, 1 it could not be made, 2 wrong use; the image is then
    as it was.

    Examples:

        imageinvoker boot winpe --wim boot.wim \
            --python python-3.11-embed-amd64 \
            --server tls://deploy.example:4222 --site london \
            --ca ca.pem --boot-credential winpe.credential

        imageinvoker boot winpe --python python-3.11-embed-amd64 \
            --server nats://deploy:4222 --out Bootwiz/Include/WinPE4/SHARED

    Parameters
    ----------
    python
        The folder with Python's Windows embeddable package (64-bit), unpacked.
    server
        The bus: tls://HOST:PORT, or nats://HOST:PORT where it is not secured; several separated by
        commas.
    site
        The site whose menu is shown; else the bus is asked at which site a machine is.
    wim
        The image of a 64-bit Windows PE.
    index
        Which of the images in that file, counted from 1; else the one that boots.
    out
        Where to put it; else beside the image, as NAME-imageinvoker.wim.
    in_place
        Replace the image itself.
    ca
        A PEM file with the authority of the server's certificate, else those that Windows trusts.
    boot_credential
        The file with what lets this image in where not everybody may come.
    wheels
        A folder with the packages for Windows; else they are fetched from the package index.
    start
        Have Windows PE call the portal when it starts.
    """
    from boot.winpe import Contents, into_folder, into_wim  # noqa: PLC0415 (the list must be quick)

    server, site = told(server, site, boot_credential)
    contents = Contents(
        python=python, server=server, site=site, ca=ca, credential=boot_credential, wheels=wheels
    )
    with making():
        if wim is not None:
            made = into_wim(wim, _place(wim, out, in_place), contents, index, start)
        elif out is not None:
            made = into_folder(out, contents)
        else:
            raise WrongUseError(
                "Which image? Give --wim FILE, or --out FOLDER for the files alone."
            )
    which = f", image {made.index}" if made.index else ""
    sys.stdout.write(
        f"{made.out}{which}: the client, Python {made.python} and {len(made.packages)} packages\n"
    )
    if made.starts_from:
        sys.stdout.write(f"started by {made.starts_from.lstrip('/').replace('/', chr(92))}\n")
    else:
        sys.stdout.write("to be started by: call %SystemDrive%\\startup\\menu.bat\n")
    if made.index:
        sys.stdout.write(f"look at it: imageinvoker doctor --image {made.out}\n")
    return DONE


def scripts(
    *,
    out: Path,
    server: Server,
    site: Site = None,
    ca: Ca = None,
    boot_credential: BootCredential = None,
) -> int:
    r"""Write startup/menu.sh and menu.bat, which automation environments call.

    Into --out go `startup` with both, and `ImageInvoker` with the files that
    they name. What an operator has added to the last line of either (-t 0,
    /t 0) stays. The client itself is not among them: it comes by
    pip install 'imageinvoker[client]' into a Linux image, and by
    imageinvoker boot winpe into a Windows PE.

    Exit status: 0 written, 1 they could not be written, 2 wrong use.

    Example:

        imageinvoker boot scripts --out image/root \
            --server tls://deploy.example:4222 \
            --ca ca.pem --boot-credential linux.credential

    Parameters
    ----------
    out
        The root of the image, or of what is put into it.
    server
        The bus: tls://HOST:PORT, or nats://HOST:PORT where it is not secured; several separated by
        commas.
    site
        The site whose menu is shown; else the bus is asked at which site a machine is.
    ca
        A PEM file with the authority of the server's certificate, else those that the image trusts.
    boot_credential
        The file with what lets this image in where not everybody may come.
    """
    from boot.winpe import write_scripts  # noqa: PLC0415 (as above)

    server, site = told(server, site, boot_credential)
    with making():
        written = write_scripts(out, server, site, ca, boot_credential)
    sys.stdout.write("".join(f"{file}\n" for file in written))
    return DONE


def _place(wim: Path, out: Path | None, in_place: bool) -> Path:
    if in_place:
        if out is not None:
            raise WrongUseError("--in-place and --out say two things; give one of them.")
        return wim
    return out or wim.with_name(f"{wim.stem}-imageinvoker.wim")
