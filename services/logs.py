"""Log lines: JSON for programs, pretty on a terminal, with what is bound at entry on each."""

import logging
import sys
from typing import Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger


class Detail:
    """Drops the lines of each step unless detailed logging is on; switched while running."""

    def __init__(self) -> None:
        self.on = False

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


def configure() -> Detail:
    """Sets up the log on standard error; the answer switches detailed logging on and off."""
    detail = Detail()
    ending: tuple[Processor, ...]
    # Tracebacks without the values of variables: these are tokens, passwords, connection strings.
    if sys.stderr.isatty():
        ending = (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
    else:
        ending = (
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        )
    structlog.configure(
        processors=[detail, *_SHARED, *ending],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library; they have nothing to say below a warning.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    return detail
