"""The menu service: greets machines and shows what can be deployed on them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic

from bus import contract
from bus.caller import Caller
from bus.events import EventLog
from bus.machines import identity
from bus.messages import Hello, ShowMenu, Welcome
from bus.names import name_rules, suggested_name
from bus.service import Answer
from engine.finding import find
from engine.protocol import Engine, Orders
from services.admission import Admission
from services.database import DatabaseMetrics
from services.menu.copies import Copies
from services.menu.keeper import MenuKeeper
from services.menu.lookout import Lookout
from services.menu.metrics import MenuMetrics
from services.menu.snapshots import Snapshots
from services.menu.tally import Tally
from services.menu.visits import Visits
from services.patience import PATIENCE, within
from services.running import Program, Site


def program(address: str) -> Program:
    """The menu service of a deployment server; its engine may stand before the address.

    Raises:
        EngineError: there is no such engine.
    """
    found = find(address)

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        measured = DatabaseMetrics(site.registry, site.name, "menu")
        engine = found.open(site.name, measured.observer(found.name))
        site.health.needs("the deployment server", engine.sign_of_life)
        events = EventLog(site.connection, site.name)
        admission = Admission(site.connection, site.name, site.options, events)
        tally = Tally()
        lookout = _lookout(site, engine, tally)
        menus = MenuKeeper(
            lookout.look, lambda: site.options.current, lambda: admission.ruled_jobs, tally
        )
        site.registry.register(MenuMetrics(tally, site.name))
        visits = Visits(events)
        portal = Portal(site, engine, admission, visits, menus)
        service = site.service("menu", "Greets machines and shows what can be deployed on them")
        service.serve(contract.WELCOME, portal.welcome)
        service.serve(contract.SHOW, portal.show, portal.show_at_once)
        try:
            await admission.start()
            await lookout.start()
            await service.start()
            yield
            await service.leave()
        finally:
            await visits.close()
            await menus.close()
            await lookout.close()
            await admission.stop()
            await engine.close()

    return serving


def _lookout(site: Site, engine: Engine, tally: Tally) -> Lookout:
    if not engine.shares_marks:
        return Lookout(engine, tally)
    copies = Copies(site.connection, site.name, monotonic)
    return Lookout(engine, tally, copies, Snapshots(site.connection, site.name))


class Portal:
    """What the menu service answers."""

    def __init__(
        self,
        site: Site,
        orders: Orders,
        admission: Admission,
        visits: Visits,
        menus: MenuKeeper,
    ) -> None:
        self._site = site
        self._orders = orders
        self._admission = admission
        self._visits = visits
        self._menus = menus

    async def welcome(self, asked: Hello, caller: Caller) -> Welcome:
        """What the portal needs before anybody signs in.

        Raises:
            Problem: ``ambiguous_machine``, ``bad_machine`` or ``deployment_server_unavailable``.
        """
        options = self._site.options.current
        known = identity(asked.machine, options.shared)
        async with within(PATIENCE):
            computer = await self._orders.find(known)
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

    def show_at_once(self, asked: ShowMenu, caller: Caller) -> Answer | bytes | None:
        """What `show` answers, where nothing must be asked, waited for or built; else None."""
        if not self._visits.is_shown(asked.visit):
            return None
        admitted = self._admission.at_hand(asked.token, caller.machine)
        return self._menus.ready(admitted.rights) if admitted else None

    async def show(self, asked: ShowMenu, caller: Caller) -> Answer | bytes:
        """The menu of what the technician may deploy, who has signed in where that is needed.

        Raises:
            Problem: ``login_required``, ``session_expired``, ``deployment_server_unavailable``, or
                ``bad_request`` for a part that there is not.
        """
        admitted = await self._admission.admit(asked.token, caller.machine)
        menu = await self._menus.show(admitted.rights, asked.part, asked.of)
        await self._visits.shown(asked.visit, caller.machine, admitted.name)
        return menu
