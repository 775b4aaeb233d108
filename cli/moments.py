"""Moments as people type them: `2h` ago, a day, or a day and a time. Pure."""

import re
from datetime import datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """What is meant by `90s`, `15m`, `2h`, `3d`, `1w` (ago), `2026-11-01` or `2026-11-01T08:00`.

    A day begins at midnight; what names no offset from UTC is this computer's local time.

    Raises:
        ValueError: it is none of these; the text says so.
    """
    ago = _AGO.match(text.strip().lower())
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no moment: say 2h, 3d, 2026-11-01 or 2026-11-01T08:00"
        ) from None
