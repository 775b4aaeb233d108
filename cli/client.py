"""`imageinvoker client`: the boot client."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cli.embedded import running_site
from cli.fail import WrongUseError


def client(
    *,
    server: str | None = None,
    site: str | None = None,
    timeout: Annotated[int | None, Parameter(name=("--timeout", "-t"))] = None,
    machine: Path | None = None,
    item: str | None = None,
    name: str | None = None,
    password_stdin: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    ca: Path | None = None,
    boot_credential: Path | None = None,
) -> int:
    """Open the portal on this machine; with --item deploy unattended.

    What is not given here is taken from the environment (IMAGEINVOKER_SERVER,
    IMAGEINVOKER_SITE, IMAGEINVOKER_CA, IMAGEINVOKER_BOOT_CREDENTIAL,
    IMAGEINVOKER_USERNAME, IMAGEINVOKER_PASSWORD), then from the kernel command
    line:

        imageinvoker.server=   imageinvoker.site=    imageinvoker.timeout=
        imageinvoker.ca=       imageinvoker.boot-credential=
        imageinvoker.item=     imageinvoker.name=    imageinvoker.machine=
        imageinvoker.username= imageinvoker.password-stdin
        imageinvoker.json      imageinvoker.clock=server

    clock=server sets this machine's clock by the server's. BOOTIF= is the card
    that was booted from. A value with spaces stands in double quotes. A
    password never stands there: everybody can read it.

    Exit status: 0 scheduled or passed by, 2 wrong use, 3 refused, 4 no server.

    Examples:

        imageinvoker client --server nats://deploy.example:4222 --site london -t 0

        imageinvoker client --item folder:17 --name LAB-01

    Parameters
    ----------
    server
        The bus: nats://HOST:PORT, or tls://HOST:PORT where it is secured; several separated by
        commas.
    site
        The site whose menu is shown; else the bus is asked at which site this machine is.
    timeout
        Seconds of countdown, 0 waits for ever; outranks the site's own. With --item: seconds to
        look for a server.
    machine
        A file that says which machine this is (JSON), instead of its firmware and network cards.
    item
        What to deploy: an id (job:2000112, folder:17) or a title.
    name
        The name of the computer, with --item.
    password_stdin
        Read the password from standard input, with --item.
    json
        Print the outcome as JSON, with --item.
    ca
        A PEM file with the authority of the server's certificate, else those that this system
        trusts.
    boot_credential
        The file with what lets this boot image in where not everybody may come.
    """
    from client.main import run  # noqa: PLC0415 (only here: the commands must list quickly)
    from client.settings import (  # noqa: PLC0415
        WrongUseError as SettingsError,
    )
    from client.settings import read_kernel_command_line, resolve  # noqa: PLC0415

    try:
        settings = resolve(
            server=server,
            site=site,
            timeout=timeout,
            machine=machine,
            item=item,
            name=name,
            password_stdin=password_stdin,
            json=json,
            ca=ca,
            boot_credential=boot_credential,
            environment=os.environ,
            kernel=read_kernel_command_line(),
        )
    except SettingsError as error:
        raise WrongUseError(str(error)) from error
    running = None if settings.server else running_site()
    if running:
        asked_for = site or os.environ.get("IMAGEINVOKER_SITE")
        settings = replace(settings, server=running.nats_url, site=asked_for or running.site)
    return run(settings)
