"""The monitor: turns events into history, metrics, a live view, progress and mail."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bus import subjects
from bus.events import EventLog
from engine.finding import find
from engine.protocol import Engine
from express.database import Database
from services.database import HISTORY, DatabaseMetrics
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


def program(address: str, history_dsn: str, mail: Credentials | None = None) -> Program:
    """The monitor of a deployment server, whose engine may stand before the address.

    It keeps history at ``history_dsn``, an ODBC connection string; a history in a SQLite file is
    made if it is not there. It signs in to the mail server as ``mail`` says.

    Raises:
        EngineError: there is no such engine.
    """
    found = find(address)

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "monitor")
        engine = found.open(site.name, measured.observer(found.name))
        kept = Database(history_dsn, create=True, observe=measured.observer(HISTORY))
        site.health.needs("the deployment server", engine.sign_of_life)
        site.health.needs("the history", kept.sign_of_life)
        service = site.service("monitor", "Keeps history, metrics and a live view")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.close)
            stack.push_async_callback(kept.close)
            for part in _parts(site, engine, kept, mail):
                stack.push_async_callback(part.stop)
                await part.start()
                for loop in part.loops:
                    site.health.needs(loop.name, loop.check)
            await service.start()
            yield
            await service.leave()

    return serving


def _parts(site: Site, engine: Engine, kept: Database, mail: Credentials | None) -> list[Part]:
    """What the monitor is made of, in the order in which it is started."""
    connection, name = site.connection, site.name
    history = History(kept, name)
    mails = MailMetrics(site.registry, name)
    live = LiveView(connection, name)
    progress = Progress(name, engine, EventLog(connection, name))
    mailer = Mailer(
        connection, name, lambda: site.options.current, mails, bucket=subjects.MAILED, known=mail
    )
    return [
        live,
        progress,
        mailer,
        Listening(connection, name, live, progress, mailer),
        Follower(connection, name, history, HistoryMetrics(site.registry).of(name)),
        Retention(connection, name, lambda: site.options.current, engine, history.forget),
    ]
