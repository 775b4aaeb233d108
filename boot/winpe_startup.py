"""The call of the portal among what a Windows PE starts with. Pure functions on its two files.

``winpeshl.ini`` says what is started; where there is none, ``startnet.cmd`` is (Microsoft,
"Winpeshl.ini reference", "Wpeinit and Startnet.cmd").
"""

import re
from dataclasses import dataclass
from typing import Final

from boot.errors import WrongInputError

WINPESHL: Final = "/Windows/System32/winpeshl.ini"
STARTNET: Final = "/Windows/System32/startnet.cmd"

CALL: Final = r"call %SystemDrive%\startup\menu.bat"
"""The line of ``startnet.cmd``."""
LAUNCH: Final = r"%SystemRoot%\System32\cmd.exe, /c %SystemDrive%\startup\menu.bat"
"""The line of ``winpeshl.ini``."""
_NETWORK: Final = r"%SystemRoot%\System32\wpeinit.exe"
_OURS: Final = re.compile(
    r"^\s*(?:call\s|%.*cmd\.exe\s*,).*\\startup\\menu\.bat\"?(.*)$", re.IGNORECASE
)
_SECTION: Final = re.compile(r"^\s*\[\s*(\w+)\s*\]\s*$")


class StartUnclearError(WrongInputError):
    """Nobody can say where the call belongs."""


@dataclass(frozen=True, slots=True)
class Start:
    """The file that was changed, and what stands in it now."""

    path: str
    content: bytes


def has_call(winpeshl: bytes | None, startnet: bytes | None) -> bool:
    """Whether what is started calls the portal."""
    if winpeshl is not None:
        if any(_OURS.match(line) for line in _lines(_text(winpeshl)[0])):
            return True
        if "startnet.cmd" not in _text(winpeshl)[0].lower():
            return False
    return any(_OURS.match(line) for line in _lines(_text(startnet or b"")[0]))


def with_call(winpeshl: bytes | None, startnet: bytes | None) -> Start:
    """The file that starts things, with one call of the portal in it; all else stays as it is.

    A call that is there already stays where it is, with what an operator has added to it.

    Raises:
        StartUnclearError: one program alone is started, and only that one.
    """
    if winpeshl is not None:
        text, encoding = _text(winpeshl)
        if "startnet.cmd" not in text.lower():
            return Start(WINPESHL, _in_winpeshl(text).encode(encoding))
    text, encoding = _text(startnet if startnet is not None else b"wpeinit\r\n")
    return Start(STARTNET, _in_startnet(text).encode(encoding))


def _in_startnet(text: str) -> str:
    lines, is_there = _with_one(_lines(text), CALL)
    if not is_there:
        lines.append(CALL)
    return _joined(lines)


def _in_winpeshl(text: str) -> str:
    lines, is_there = _with_one(_lines(text), LAUNCH)
    if is_there:
        return _joined(lines)
    sections = {
        match[1].lower(): number
        for number, line in enumerate(lines)
        if (match := _SECTION.match(line))
    }
    if "launchapps" not in sections:
        raise StartUnclearError(
            "The image's winpeshl.ini starts a single program ([LaunchApp]), and nobody can say "
            "when something beside it would start.",
            r"Have that program run `cmd /c %SystemDrive%\startup\menu.bat`, and give --no-start.",
        )
    first = sections["launchapps"] + 1
    later = [number for number in sections.values() if number >= first]
    end = min(later, default=len(lines))
    network = [number for number in range(first, end) if "wpeinit" in lines[number].lower()]
    if network:
        lines.insert(network[-1] + 1, LAUNCH)
    else:
        # What comes next may bring the network up for itself, but the portal needs it before.
        lines[first:first] = [_NETWORK, LAUNCH]
    return _joined(lines)


def _with_one(lines: list[str], call: str) -> tuple[list[str], bool]:
    """The lines with the first call of ours made anew, and any other of them left out."""
    kept: list[str] = []
    is_there = False
    for line in lines:
        match = _OURS.match(line)
        if match is None:
            kept.append(line)
        elif not is_there:
            kept.append(call + match[1].rstrip())
            is_there = True
    return kept, is_there


def _text(content: bytes) -> tuple[str, str]:
    """The text, and the encoding to write it in again; no byte is lost on the way."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace"), "utf-16"
    return content.decode("latin-1"), "latin-1"


def _lines(text: str) -> list[str]:
    """The lines as a command interpreter sees them; Python would break at more than a line feed."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)
