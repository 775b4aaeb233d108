r"""``menu.bat`` and ``menu.sh``: what an automation environment calls. Pure but for the templates.

They lie where environments of deployment servers have always looked for them, in ``startup`` at
the root of an image, and end with the one line to which an operator may add ``/t 0`` or ``-t 0``.
"""

import shlex
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from boot.errors import WrongInputError

CA: Final = "ca.pem"
CREDENTIAL: Final = "boot.credential"
_BYTES: Final = ("utf-8", "surrogateescape")
_SETTINGS: Final = "[settings]"
_BAT_CALL: Final = "-m cli client %*"
_SH_CALL: Final = 'imageinvoker client "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the client of an image is told: where the server is, and how it comes in there.

    ``ca`` and ``credential`` say whether these files lie beside the client.
    """

    server: str
    site: str | None = None
    ca: bool = False
    credential: bool = False

    def variables(self, folder: str) -> dict[str, str]:
        """The client's environment; ``folder`` ends with the system's separator."""
        told = {
            "IMAGEINVOKER_SERVER": self.server,
            "IMAGEINVOKER_SITE": self.site or "",
            "IMAGEINVOKER_CA": f"{folder}{CA}" if self.ca else "",
            "IMAGEINVOKER_BOOT_CREDENTIAL": f"{folder}{CREDENTIAL}" if self.credential else "",
        }
        return {name: value for name, value in told.items() if value}


def menu_bat(told: Told, before: str = "") -> bytes:
    r"""``X:\startup\menu.bat``; keeps what an operator has added to the last line of ``before``.

    Raises:
        WrongInputError: a value cannot stand in a batch file.
    """
    variables = told.variables("%SystemDrive%\\ImageInvoker\\")
    lines = [f'set "{name}={_in_batch(value)}"' for name, value in variables.items()]
    text = _filled("menu.bat", "rem ", lines) + added(before, _BAT_CALL)
    return "".join(f"{line}\r\n" for line in text.split("\n")).encode(*_BYTES)


def menu_sh(told: Told, before: str = "") -> bytes:
    """``/startup/menu.sh``; keeps what an operator has added to the last line of ``before``."""
    variables = told.variables("/ImageInvoker/")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return f"{_filled('menu.sh', '# ', lines)}{added(before, _SH_CALL)}\n".encode(*_BYTES)


def script_text(content: bytes) -> str:
    """A script that an operator may have changed, in whatever encoding; no byte is lost."""
    return content.decode(*_BYTES)


def added(script: str, call: str = _BAT_CALL) -> str:
    """What an operator has added to the call in a script; nothing where there is no call."""
    # Python would break lines at more than a line feed.
    for line in reversed(script.split("\n")):
        _, found, rest = line.partition(call)
        if found:
            return rest.rstrip(" \t\r")
    return ""


def server_in(script: str) -> str | None:
    """The server that a ``menu.bat`` tells the client of."""
    mark = 'set "IMAGEINVOKER_SERVER='
    for line in script.splitlines():
        if line.startswith(mark):
            return line[len(mark) :].rstrip('"').replace("%%", "%")
    return None


def _filled(name: str, comment: str, lines: list[str]) -> str:
    template = files("boot").joinpath("scripts", name).read_text("utf-8")
    settings = "".join(f"{line}\n" for line in lines)
    return template.replace(f"{comment}{_SETTINGS}\n", settings).rstrip("\n")


def _in_batch(value: str) -> str:
    """The value within quotes; those of ours that begin with a variable keep it."""
    if '"' in value or not value.isprintable() or not value.isascii():
        raise WrongInputError(
            f"{value!r} cannot stand in a batch file.", "Use plain letters and no quotes."
        )
    if value.startswith("%SystemDrive%"):
        return value
    return value.replace("%", "%%")
