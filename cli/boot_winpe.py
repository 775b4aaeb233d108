"""`imageinvoker boot winpe` and `boot scripts`: the client in environments that exist already."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from boot.errors import ImageError, OutputError, WrongInputError
from cli.fail import DONE, CommandError
from cli.fail import WrongUseError as WrongUse


def winpe(
    *,
    python: Path,
    server: Annotated[str, Parameter(env_var="IMAGEINVOKER_SERVER")],
    site: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SITE")] = None,
    wim: Path | None = None,
    index: int | None = None,
    out: Path | None = None,
    in_place: Annotated[bool, Parameter(negative="")] = False,
    ca: Path | None = None,
    boot_credential: Path | None = None,
    wheels: Path | None = None,
    start: bool = True,
) -> int:
    r"""Put the client into a Windows PE image, with all it needs and the call that starts it.

    Needs wimlib (Debian: wimtools), neither root nor a mount. The image is copied and changed, or
    replaced where it is with --in-place; a client that is in it already is replaced.

    Without --wim the files are laid out in a folder (--out) for a tool that makes images itself.

    Examples:

        imageinvoker boot winpe --wim boot.wim --python python-3.11-embed-amd64 --server
        tls://deploy.example:4222 --site london --ca ca.pem --boot-credential winpe.credential

        imageinvoker boot winpe --python python-3.11-embed-amd64 --server nats://deploy:4222
        --out 'Bootwiz/Include/WinPE4/SHARED'

    Parameters
    ----------
    python
        The folder with Python's Windows embeddable package (64-bit), unpacked.
    server
        The bus that the client goes to; several addresses with commas. Else IMAGEINVOKER_SERVER.
    site
        The site whose menu it shows; else the bus tells it. Else IMAGEINVOKER_SITE.
    wim
        The image of a 64-bit Windows PE.
    index
        Which of the images in that file; else the one that boots.
    out
        Where to put it; else beside the image, as NAME-imageinvoker.wim.
    in_place
        Replace the image itself.
    ca
        A PEM file with the authority of the server's certificates.
    boot_credential
        The file with the credential of this boot image.
    wheels
        A folder with the packages for Windows; else they are fetched from the package index.
    start
        Have Windows PE call the portal when it starts.
    """
    from boot.winpe import Contents, into_folder, into_wim  # noqa: PLC0415 (the list must be quick)

    server, site = _told(server, site, boot_credential)
    contents = Contents(
        python=python, server=server, site=site, ca=ca, credential=boot_credential, wheels=wheels
    )
    try:
        if wim is None:
            if out is None:
                raise WrongUse("Which image? Give --wim FILE, or --out FOLDER for the files alone.")
            made = into_folder(out, contents)
        else:
            place = _place(wim, out, in_place)
            made = into_wim(wim, place, contents, index, start)
    except WrongInputError as error:
        raise WrongUse(str(error)) from error
    except ImageError as error:
        raise CommandError(str(error)) from error
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
    server: Annotated[str, Parameter(env_var="IMAGEINVOKER_SERVER")],
    site: Annotated[str | None, Parameter(env_var="IMAGEINVOKER_SITE")] = None,
    ca: Path | None = None,
    boot_credential: Path | None = None,
) -> int:
    """Write startup/menu.sh and startup/menu.bat, which automation environments call at boot.

    Into --out go `startup` with both, and `ImageInvoker` with the files that they name. What an
    operator has added to the last line of either (-t 0, /t 0) stays. The client itself is not
    among them: `pip install 'imageinvoker[client]'` in a Linux image, `imageinvoker boot winpe` for
    Windows PE.

    Example: imageinvoker boot scripts --out image/root --server tls://deploy.example:4222 --ca
    ca.pem --boot-credential linux.credential

    Parameters
    ----------
    out
        The root of the image, or of what is put into it.
    server
        The bus that the client goes to; several addresses with commas. Else IMAGEINVOKER_SERVER.
    site
        The site whose menu it shows; else the bus tells it. Else IMAGEINVOKER_SITE.
    ca
        A PEM file with the authority of the server's certificates.
    boot_credential
        The file with the credential of this boot image.
    """
    from boot.winpe import write_scripts  # noqa: PLC0415 (as above)

    server, site = _told(server, site, boot_credential)
    try:
        written = write_scripts(out, server, site, ca, boot_credential)
    except WrongInputError as error:
        raise WrongUse(str(error)) from error
    except OutputError as error:
        raise CommandError(str(error)) from error
    sys.stdout.write("".join(f"{file}\n" for file in written))
    return DONE


def _told(server: str, site: str | None, credential: Path | None) -> tuple[str, str | None]:
    """What the client would make of it, found out now and not at the first boot."""
    from client.settings import WrongUseError, resolve, shown  # noqa: PLC0415 (as above)

    if shown(server) != server:
        raise WrongUse(
            "--server: a user or password does not belong in an address that everybody with the "
            "image can read; give --boot-credential."
        )
    try:
        settings = resolve(server=server, site=site, boot_credential=credential, environment={})
    except WrongUseError as error:
        raise WrongUse(str(error)) from error
    return settings.server or server, settings.site


def _place(wim: Path, out: Path | None, in_place: bool) -> Path:
    if in_place:
        if out is not None:
            raise WrongUse("--in-place and --out say two things; give one of them.")
        return wim
    return out or wim.with_name(f"{wim.stem}-imageinvoker.wim")
