"""The monitor: turns events into history, metrics, a live view, progress and mail."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bus import subjects
from bus.events import EventLog
from express.database import Database
from services.database import DatabaseMetrics, sign_of_life
from services.monitor.credentials import Credentials
from services.monitor.follower import Follower
from services.monitor.history import History
from services.monitor.listening import Listening
from services.monitor.live import LiveView
from services.monitor.mail import Mailer
from services.monitor.metrics import HistoryMetrics, MailMetrics
from services.monitor.part import Part
from services.monitor.progress import Progress
from services.monitor.retention import Retention
from services.running import Program, Site


def program(dsn: str, history_dsn: str, mail: Credentials | None = None) -> Program:
    """The monitor of the deployment server behind ``dsn``, which keeps history at ``history_dsn``.

    Both are ODBC connection strings; a history in a SQLite file is made if it is not there. It
    signs in to the mail server as ``mail`` says.
    """

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "monitor")
        database = Database(dsn, observe=measured.observer("express"))
        kept = Database(history_dsn, create=True, observe=measured.observer("history"))
        site.health.needs("the database", lambda: sign_of_life(database))
        site.health.needs("the history", lambda: sign_of_life(kept))
        service = site.service("monitor", "Keeps history, metrics and a live view")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(kept.close)
            for part in _parts(site, database, kept, mail):
                stack.push_async_callback(part.stop)
                await part.start()
                for loop in part.loops:
                    site.health.needs(loop.name, loop.check)
            await service.start()
            yield
            await service.leave()

    return serving


def _parts(site: Site, database: Database, kept: Database, mail: Credentials | None) -> list[Part]:
    """What the monitor is made of, in the order in which it is started."""
    connection, name = site.connection, site.name
    history = History(kept, name)
    mails = MailMetrics(site.registry, name)
    live = LiveView(connection, name)
    progress = Progress(name, database, EventLog(connection, name))
    mailer = Mailer(
        connection, name, lambda: site.options.current, mails, bucket=subjects.MAILED, known=mail
    )
    return [
        live,
        progress,
        mailer,
        Listening(connection, name, live, progress, mailer),
        Follower(connection, name, history, HistoryMetrics(site.registry, name)),
        Retention(connection, name, lambda: site.options.current, database, history.forget),
    ]
