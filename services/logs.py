"""Log lines: JSON for programs, pretty on a terminal, with what is bound at entry on each.

Lines go to standard error or, when a folder is given, to dated files there (``log_files.py``); a
terminal shows them also then. What is bound with ``structlog.contextvars`` where something enters
(the site, the machine, the request) stands on every line that is logged on its way.
"""

import logging
import sys
from pathlib import Path
from typing import Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from services.log_files import LogFiles


class Detail:
    """Drops the lines of each step unless detailed logging is on; switched while running."""

    def __init__(self, files: LogFiles | None = None) -> None:
        self.on = False
        self._files = files

    def keep(self, days: int) -> None:
        """How many days of log files are kept; it means nothing where there are none."""
        if self._files:
            self._files.keep(days)

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Lets a line through or not."""
        if method == "debug" and not self.on:
            raise structlog.DropEvent
        return event


_SHARED: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# Tracebacks without the values of variables: these are tokens, passwords, connection strings.
_EXCEPTION: Final = structlog.processors.ExceptionRenderer(
    ExceptionDictTransformer(show_locals=False)
)
_JSON: Final = structlog.processors.JSONRenderer()


def configure(service: str = "imageinvoker", folder: Path | None = None) -> Detail:
    """Sets up the log, on standard error or in files of ``folder``.

    The answer switches detailed logging on and off, and knows for how long files are kept.

    Raises:
        LogFolderError: nothing can be written to the folder.
    """
    files = LogFiles(folder, service) if folder else None
    detail = Detail(files)
    terminal = sys.stderr.isatty()
    kept: tuple[Processor, ...] = (_Kept(files, shown=terminal),) if files else ()
    ending: tuple[Processor, ...]
    if terminal:
        ending = (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
    else:
        ending = (_EXCEPTION, _JSON)
    structlog.configure(
        processors=[detail, *_SHARED, *kept, *ending],
        # One write a line: lines of several processes and threads are not mixed up.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library; they have nothing to say below a warning.
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()])
    return detail


class _Kept:
    """Writes each line to the files; it goes on to standard error if it is shown or not kept."""

    def __init__(self, files: LogFiles, *, shown: bool) -> None:
        self._files = files
        self._shown = shown

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Keeps a line."""
        line = _JSON(logger, method, _EXCEPTION(logger, method, dict(event)))
        if self._files.write(str(line)) and not self._shown:
            raise structlog.DropEvent
        return event


class _FromLibraries(logging.Handler):
    """Makes what libraries log lines like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logs one of their lines."""
        try:
            log = structlog.get_logger(record.name).bind(library=record.name)
            say = log.error if record.levelno >= logging.ERROR else log.warning
            say(record.getMessage(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001 (what a library logs must not break who called it)
            self.handleError(record)
