"""How a menu is kept ready: one reading for all who ask, and an honest word on its age."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from bus.messages import ItemEntry, Menu, decoder
from bus.options import Options
from express.connection import DatabaseUnavailable
from express.jobs import MenuRows
from express.tree import Job
from services.menu import keeper
from services.menu.keeper import MenuKeeper
from tests.site import refused

_menu = decoder(Menu)


class Tree:
    """A job tree of one job, with the clock, the options and the trouble that a test wants."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.options = Options()
        self.title = "First"
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()
        self.gone = False
        self.keeper = MenuKeeper(self._read, lambda: self.options, lambda: self.now)

    async def _read(self, tag: str) -> MenuRows:
        self.reads += 1
        title = self.title
        await self.open.wait()
        if self.gone:
            raise DatabaseUnavailable("it is switched off")
        return MenuRows([Job(1, None, f"{title} (MI)", "")], [], frozenset())

    async def show(self) -> tuple[str, bool]:
        """The title in the menu, and whether it may be out of date."""
        menu = _menu.decode(await self.keeper.show())
        (entry,) = menu.entries
        assert isinstance(entry, ItemEntry)
        return entry.title, menu.stale


@pytest.fixture
async def tree() -> AsyncIterator[Tree]:
    found = Tree()
    yield found
    await found.keeper.close()


async def _turns() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_however_many_ask_first_the_tree_is_read_once(tree: Tree) -> None:
    tree.open.clear()
    asking = [asyncio.create_task(tree.show()) for _ in range(200)]
    await _turns()
    tree.open.set()

    assert set(await asyncio.gather(*asking)) == {("First", False)}
    assert tree.reads == 1


async def test_a_young_menu_is_shown_without_a_reading(tree: Tree) -> None:
    await tree.show()
    tree.now += keeper.FRESH

    await asyncio.gather(*(tree.show() for _ in range(50)))

    assert tree.reads == 1


async def test_an_ageing_menu_is_shown_at_once_and_read_once_behind_the_answer(
    tree: Tree,
) -> None:
    await tree.show()
    tree.title = "Second"
    tree.now += keeper.LATEST - 0.01
    tree.open.clear()

    shown = [await tree.show() for _ in range(50)]
    await _turns()
    tree.open.set()

    assert set(shown) == {("First", False)}
    assert tree.reads == 2


async def test_a_change_shows_in_the_next_menu_asked_for_a_second_later(tree: Tree) -> None:
    await tree.show()
    tree.title = "Second"
    tree.now += keeper.LATEST

    assert await tree.show() == ("Second", False)
    assert tree.reads == 2


async def test_a_reading_that_began_before_the_change_does_not_hide_it(tree: Tree) -> None:
    await tree.show()
    tree.now += keeper.LATEST - 0.01
    tree.open.clear()
    await tree.show()
    await _turns()
    tree.title = "Second"
    tree.now += keeper.LATEST
    asking = asyncio.create_task(tree.show())
    await _turns()
    tree.open.set()

    assert await asking == ("Second", False)
    assert tree.reads == 3


async def test_a_changed_option_is_in_the_next_menu_however_young_the_last(tree: Tree) -> None:
    await tree.show()
    tree.options = msgspec.structs.replace(tree.options, tag="irst")

    assert await tree.show() == ("F (MI)", False)


async def test_without_the_deployment_server_the_last_menu_is_shown_as_stale(tree: Tree) -> None:
    await tree.show()
    tree.gone = True
    tree.now += keeper.LATEST

    assert await tree.show() == ("First", True)


async def test_without_the_deployment_server_options_still_change_the_last_menu(
    tree: Tree,
) -> None:
    await tree.show()
    tree.gone = True
    tree.now += keeper.LATEST
    tree.options = msgspec.structs.replace(tree.options, tag="irst")

    assert await tree.show() == ("F (MI)", True)


async def test_without_the_deployment_server_and_a_menu_there_is_a_problem(tree: Tree) -> None:
    tree.gone = True

    with refused("deployment_server_unavailable"):
        await tree.show()


async def test_a_deployment_server_that_has_just_failed_is_not_asked_for_each_answer(
    tree: Tree,
) -> None:
    tree.gone = True
    for _ in range(50):
        with refused("deployment_server_unavailable"):
            await tree.show()

    assert tree.reads == 1


async def test_a_deployment_server_that_is_back_is_found_within_a_second(tree: Tree) -> None:
    await tree.show()
    tree.gone = True
    tree.now += keeper.LATEST
    await tree.show()
    tree.gone, tree.title = False, "Second"
    tree.now += keeper.LATEST

    assert await tree.show() == ("Second", False)


async def test_closing_ends_a_reading_that_hangs(tree: Tree) -> None:
    tree.open.clear()
    asking = asyncio.create_task(tree.show())
    await _turns()
    asking.cancel()

    async with asyncio.timeout(1):
        await tree.keeper.close()
