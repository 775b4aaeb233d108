"""How much memory the services take at a large site: 100,000 jobs and 100,000 computers.

What the kernel counts as resident, shared libraries included, in megabytes of 1,000,000 bytes, as
each service tells of its own. Each is a process, on PostgreSQL. They are asked when they have been
at work: 1,000 known machines went through the portal as boot clients do, with a flat menu, and
1,000 others with folders; 200 of each had a folder of twenty jobs scheduled. The figure is that of
the largest service; it is no ratio.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import uuid4

import msgspec
import uvloop
from argon2 import PasswordHasher

from bench.estate import add_computers, known_machine, spread
from bench.harness import MeasureError, Reach, Say, one_figure
from bench.processes import MEGABYTE, taken_by_service
from bench.served import served
from bench.site import Site, protect
from bench.trees import insert, large_tree
from bus.connection import connect
from bus.messages import Menu, MenuType
from bus.option_store import OptionStore
from bus.options import PASSWORD, parse
from client.items import every_item
from client.journey import Journey
from engine.tree import Folder, Job

_COMPUTERS: Final = 100_000
_KINDS: Final[tuple[MenuType, ...]] = ("flat", "folders")
_MACHINES: Final = 1_000
_DEPLOYING: Final = 200
_ITEM: Final = "folder:1020"
"""A room: twenty jobs."""
_AT_ONCE: Final = 16
_LOOK: Final = 0.1
_WORKS_WITHIN: Final = 300.0
_SHARED: Final = "Regalbrett-7741"


def _make(say: Say) -> float:
    jobs, folders = large_tree()
    with served(prepare=partial(_fill, jobs, folders), sample=False) as (site, _):
        say(f"{len(jobs):,} jobs in {len(folders):,} folders, {_COMPUTERS:,} computers")
        before = _resident(site)
        uvloop.run(_work(site, say))
        after = _resident(site)
    for service, size in after.items():
        say(f"{service:10} {before[service]:6.1f} MB at first, {size:6.1f} MB at work")
    return max(after.values())


def _fill(jobs: Sequence[Job], folders: Sequence[Folder], dsn: str) -> None:
    insert(dsn, jobs, folders)
    asyncio.run(add_computers(dsn, _COMPUTERS))


def _resident(site: Site) -> dict[str, float]:
    """The megabytes of each service."""
    return {
        service: taken_by_service(address).resident / MEGABYTE
        for service, address in site.metrics.items()
    }


async def _work(site: Site, say: Say) -> None:
    async with asyncio.timeout(_WORKS_WITHIN):
        connection = await connect(site.url, "bench")
        try:
            store = await OptionStore.open(connection, site.name)
            await store.write(PASSWORD, PasswordHasher().hash(_SHARED).encode())
            await protect(connection, site, "hash")
            for kind in _KINDS:
                await store.write("menu_type", parse("menu_type", kind))
                await _visit_all(site, kind, say)
        finally:
            await connection.close()


async def _visit_all(site: Site, kind: MenuType, say: Say) -> None:
    """Lets all machines come; some of them deploy a folder of jobs."""
    first, *others = spread(_COMPUTERS, _MACHINES, _KINDS.index(kind))
    menu = await _visit(site, first)
    while menu.type != kind:
        await asyncio.sleep(_LOOK)
        menu = await _visit(site, first)
    waiting = iter([*((each, _ITEM) for each in others[:_DEPLOYING]),
                    *((each, None) for each in others[_DEPLOYING:])])  # fmt: skip

    async def go() -> None:
        for number, item in waiting:
            await _visit(site, number, item)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(go())
    items = sum(1 for _ in every_item(menu.entries))
    say(f"menu {kind}: {items:,} items, shown to {_MACHINES:,} machines; "
        f"{_DEPLOYING} of them deploy {_ITEM}")  # fmt: skip


async def _visit(site: Site, number: int, item: str | None = None) -> Menu:
    """One machine goes through the portal as a boot client does; the menu that it was shown.

    Raises:
        MeasureError: it is not known, or its item was not scheduled.
    """
    journey = Journey(site.url, site.name, known_machine(number), lambda _notice: None)
    try:
        welcome = await journey.welcome()
        token = (await journey.login(_SHARED)).token
        menu = await journey.show(token)
        if item:
            wish = msgspec.structs.replace(journey.wish(str(uuid4()), item, None), token=token)
            outcome = await journey.schedule(wish, lambda: None)
            if outcome.state != "scheduled":
                raise MeasureError(f"computer {number} has nothing scheduled: {outcome}")
    finally:
        await journey.close()
    if welcome.computer is None:
        raise MeasureError(f"computer {number} is not known")
    return menu


RUN: Final = one_figure(
    name="service_memory_mb",
    about="resident memory of the largest service at 100,000 jobs and 100,000 computers, in MB",
    reach=Reach("<=", 150),
    make=_make,
)
