"""Log lines in files: one a day for each service, by ISO date in UTC; old ones are removed.

Several processes of a service may write the same file: a line is one write to its end.
"""

import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

_MODE: Final = 0o640
_DATED: Final = re.compile(r"(?P<service>.+)-(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})\.log")


class LogFolderError(ValueError):
    """Logs cannot be kept where they should be; the text says why."""


def utc_now() -> datetime:
    """What the clock says, in UTC."""
    return datetime.now(UTC)


class LogFiles:
    """The log files of one service, ``<service>-<YYYY-MM-DD>.log``, in a folder."""

    def __init__(
        self, folder: Path, service: str, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        """Makes the folder where it is lacking, and begins today's file.

        Raises:
            LogFolderError: nothing can be written there.
        """
        self._folder = folder
        self._service = service
        self._now = now
        self._day: date | None = None
        self._file: int | None = None
        self._keep_days: int | None = None
        self._one_at_a_time = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._switch(now().date())
        except OSError as error:
            raise LogFolderError(f"logs cannot be kept in {folder}: {error.strerror}") from error

    def keep(self, days: int) -> None:
        """From now on files older than so many days are removed, now and at each midnight."""
        if days != self._keep_days:
            self._keep_days = days
            self._remove_old(self._now().date())

    def write(self, line: str) -> bool:
        """Writes a line to the file of its day; False when it is not there in full."""
        data = f"{line}\n".encode(errors="backslashreplace")
        with self._one_at_a_time:
            try:
                today = self._now().date()
                if today != self._day or self._file is None:
                    self._switch(today)
                    self._remove_old(today)
                return self._file is not None and os.write(self._file, data) == len(data)
            except OSError:
                # The next line tries again: a disk may be full for a while.
                return False

    def close(self) -> None:
        """Writes no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _switch(self, day: date) -> None:
        self.close()
        path = self._folder / f"{self._service}-{day.isoformat()}.log"
        # O_APPEND: the system finds the end and writes there in one step, whoever else writes.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, _MODE)
        self._day = day

    def _remove_old(self, today: date) -> None:
        if self._keep_days is None:
            return
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return
        for name in expired(names, self._service, today, self._keep_days):
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError:
                continue


def expired(names: list[str], service: str, today: date, keep_days: int) -> list[str]:
    """Which of these are log files of the service from more than so many days before today."""
    oldest = today - timedelta(days=keep_days)
    return [
        name
        for name in names
        if (dated := _DATED.fullmatch(name))
        and dated["service"] == service
        and (day := _day(dated["day"]))
        and day < oldest
    ]


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
