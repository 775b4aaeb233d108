"""The menu service: greets machines and shows what can be deployed on them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from bus import contract
from bus.caller import Caller
from bus.events import EventLog
from bus.machines import identity
from bus.messages import Hello, ShowMenu, Welcome
from bus.names import name_rules, suggested_name
from express import computers
from express.database import Database
from express.jobs import MenuRows, read_menu_rows
from express.layout_cache import LayoutCache
from services.admission import Admission
from services.database import DatabaseMetrics, sign_of_life
from services.menu.keeper import MenuKeeper
from services.menu.metrics import MenuMetrics
from services.menu.visits import Visits
from services.patience import PATIENCE, within
from services.running import Program, Site


def program(dsn: str) -> Program:
    """The menu service of the deployment server behind ``dsn``, an ODBC connection string."""

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "menu")
        database = Database(dsn, observe=measured.observer("express"))
        site.health.needs("the database", lambda: sign_of_life(database))
        events = EventLog(site.connection, site.name)
        admission = Admission(site.connection, site.name, site.options, events)
        portal = Portal(site, database, admission, Visits(events))
        service = site.service("menu", "Greets machines and shows what can be deployed on them")
        service.serve(contract.WELCOME, portal.welcome)
        service.serve(contract.SHOW, portal.show)
        try:
            await admission.start()
            await service.start()
            yield
            await service.leave()
        finally:
            await portal.close()
            await admission.stop()
            await database.close()

    return serving


class Portal:
    """What the menu service answers."""

    def __init__(
        self, site: Site, database: Database, admission: Admission, visits: Visits
    ) -> None:
        self._site = site
        self._database = database
        self._layouts = LayoutCache()
        self._admission = admission
        self._visits = visits
        self._menus = MenuKeeper(
            self._read, lambda: site.options.current, lambda: admission.ruled_jobs
        )
        site.registry.register(MenuMetrics(self._menus.tally, site.name))

    async def close(self) -> None:
        """Ends what runs behind the answers."""
        await self._menus.close()

    async def welcome(self, asked: Hello, caller: Caller) -> Welcome:
        """What the portal needs before anybody signs in.

        Raises:
            Problem: ``ambiguous_machine``, ``bad_machine`` or ``deployment_server_unavailable``.
        """
        options = self._site.options.current
        known = identity(asked.machine, options.shared)
        async with within(PATIENCE):
            computer = await self._database.transact(
                lambda tx: computers.find(tx, self._layouts.layout(tx), known)
            )
        await self._visits.opened(asked, caller.machine, computer)
        return Welcome(
            site=self._site.name,
            protection=options.protection,
            timeout=options.timeout,
            idle_timeout=options.idle_timeout,
            menu_type=options.menu_type,
            computer=computer,
            may_rename=options.may_rename,
            suggested_name=suggested_name(
                options.naming, known, self._site.name, options.name_max_length
            ),
            name_rules=name_rules(options.name_max_length),
            text=options.text,
            server_time=datetime.now(UTC),
        )

    async def show(self, asked: ShowMenu, caller: Caller) -> bytes:
        """The menu of what the technician may deploy, who has signed in where that is needed.

        Raises:
            Problem: ``login_required``, ``session_expired`` or ``deployment_server_unavailable``.
        """
        admitted = await self._admission.admit(asked.token, caller.machine)
        menu = await self._menus.show(admitted.rights)
        await self._visits.shown(asked.visit, caller.machine, admitted.name)
        return menu

    async def _read(self, tag: str, ruled: frozenset[int]) -> MenuRows:
        return await self._database.transact(lambda tx: read_menu_rows(tx, tag, ruled))
