"""How menus are kept ready: one reading for all who ask, and an honest word on their age."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from bus.access import ALL_RIGHTS, Rights
from bus.menus import STALE_HEADER
from bus.messages import Menu, decoder
from bus.options import Options
from bus.service import Answer
from engine.menu_rows import MenuRows, Wanted
from engine.tree import Job
from express.connection import DatabaseUnavailable
from services.menu import keeper
from services.menu.edition import Edition, Rules
from services.menu.keeper import MenuKeeper
from services.menu.lookout import FRESH, Seen
from services.menu.tally import Tally
from tests.site import eventually, refused

_menu = decoder(Menu)


NOBODY = Rights()


def over(*job_ids: int) -> Rights:
    """The rights to these jobs alone."""
    return Rights(jobs=frozenset((id_, True) for id_ in job_ids))


class Tree:
    """A job tree with the clock, the options and the trouble that a test wants.

    Its jobs are called by their ids but for the first, which has the title, and all are tagged.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.options = Options()
        self.ruled: frozenset[int] = frozenset()
        self.title = "First"
        self.jobs = 1
        self.looks = 0
        self.reads: list[tuple[str, frozenset[int]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.gone = False
        self.tally = Tally()
        self.keeper = MenuKeeper(
            self._look, lambda: self.options, lambda: self.ruled, self.tally, lambda: self.now
        )

    async def _look(self, wanted: Wanted, last: Seen | None) -> Seen:
        self.looks += 1
        at, fingerprint = self.now, f"{self.title} {self.jobs}"
        jobs = [Job(1, None, f"{self.title} (MI)", "")]
        jobs += [Job(id_, None, f"{id_} (MI)", "") for id_ in range(2, self.jobs + 1)]
        await self.open.wait()
        if self.gone:
            raise DatabaseUnavailable("it is switched off")
        if last and (last.fingerprint, last.wanted) == (fingerprint, wanted):
            rows = last.rows
        else:
            self.reads.append((wanted.tag, wanted.ruled))
            rows = MenuRows(jobs, [], {})
        return Seen(rows, wanted, fingerprint, at, at + FRESH)

    async def menu(self, rights: Rights) -> tuple[list[str], bool]:
        """The titles in a menu, and whether it may be out of date."""
        menu = _menu.decode(await self.bytes(rights))
        return [entry.title for entry in menu.entries], menu.stale

    async def bytes(self, rights: Rights) -> bytes:
        """The menu on the wire."""
        answer = self.keeper.ready(rights) or await self.keeper.show(rights)
        assert isinstance(answer, bytes)
        return answer

    async def show(self) -> tuple[str, bool]:
        """The only title in the menu of all rights, and whether it may be out of date."""
        (title,), stale = await self.menu(ALL_RIGHTS)
        return title, stale


@pytest.fixture
async def tree() -> AsyncIterator[Tree]:
    found = Tree()
    yield found
    await found.keeper.close()


async def _turns() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_however_many_ask_first_the_tree_is_looked_at_once(tree: Tree) -> None:
    tree.open.clear()
    asking = [asyncio.create_task(tree.show()) for _ in range(200)]
    await _turns()
    tree.open.set()

    assert set(await asyncio.gather(*asking)) == {("First", False)}
    assert len(tree.reads) == 1


async def test_a_young_menu_is_shown_without_a_look_at_the_tree(tree: Tree) -> None:
    await tree.show()
    tree.now += FRESH - 0.01

    await asyncio.gather(*(tree.show() for _ in range(50)))

    assert tree.looks == 1


async def test_a_tree_that_has_not_changed_is_not_read_again(tree: Tree) -> None:
    before = await tree.bytes(ALL_RIGHTS)
    for _ in range(5):
        tree.now += keeper.LATEST
        assert await tree.bytes(ALL_RIGHTS) is before

    assert tree.looks == 6
    assert len(tree.reads) == 1
    assert tree.tally.builds == 1


async def test_nothing_is_looked_at_while_nobody_asks(tree: Tree) -> None:
    await tree.show()
    tree.now += 3600
    await _turns()

    assert tree.looks == 1


async def test_what_must_be_waited_for_is_not_ready(tree: Tree) -> None:
    assert tree.keeper.ready() is None
    shown = await tree.keeper.show()
    assert tree.keeper.ready() is shown
    assert tree.keeper.ready(over(1)) is None
    tree.now += keeper.LATEST
    assert tree.keeper.ready() is None
    assert tree.looks == 1
    await tree.keeper.show()
    tree.options = msgspec.structs.replace(tree.options, menu_type="folders")
    assert tree.keeper.ready() is None


async def test_options_made_anew_that_say_the_same_change_nothing(tree: Tree) -> None:
    shown = await tree.keeper.show()
    tree.options, tree.ruled = Options(), frozenset([])

    assert tree.keeper.ready() is shown
    assert tree.looks == 1


async def test_a_tree_under_another_root_folder_is_not_read_again(tree: Tree) -> None:
    await tree.show()
    tree.options = msgspec.structs.replace(tree.options, root_folder="Nowhere")

    assert await tree.menu(ALL_RIGHTS) == ([], False)
    assert len(tree.reads) == 1


async def test_rows_that_lack_what_a_new_tag_wants_are_never_said_to_be_in_date(
    tree: Tree,
) -> None:
    await tree.show()
    tree.gone = True
    tree.options = msgspec.structs.replace(tree.options, tag="irst")

    assert [await tree.show() for _ in range(3)] == [("F (MI)", True)] * 3
    tree.options = Options()
    assert await tree.show() == ("First", True)
    tree.gone = False
    tree.now += keeper.LATEST
    assert await tree.show() == ("First", False)


async def test_an_ageing_menu_is_shown_at_once_and_looked_after_once_behind_the_answer(
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
    assert tree.looks == 2


async def test_a_change_shows_in_the_next_menu_asked_for_a_second_later(tree: Tree) -> None:
    await tree.show()
    tree.title = "Second"
    tree.now += keeper.LATEST

    assert await tree.show() == ("Second", False)
    assert len(tree.reads) == 2


async def test_a_look_that_began_before_the_change_does_not_hide_it(tree: Tree) -> None:
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
    assert tree.looks == 3


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

    assert tree.looks == 1


async def test_a_deployment_server_that_is_back_is_found_within_a_second(tree: Tree) -> None:
    await tree.show()
    tree.gone = True
    tree.now += keeper.LATEST
    await tree.show()
    tree.gone, tree.title = False, "Second"
    tree.now += keeper.LATEST

    assert await tree.show() == ("Second", False)


async def test_closing_ends_a_look_that_hangs(tree: Tree) -> None:
    tree.open.clear()
    asking = asyncio.create_task(tree.show())
    await _turns()
    asking.cancel()

    async with asyncio.timeout(1):
        await tree.keeper.close()


async def test_a_tag_that_makes_no_tree_is_not_tried_for_each_answer(tree: Tree) -> None:
    await tree.show()
    tree.options = msgspec.structs.replace(tree.options, tag="\u200f")
    for _ in range(50):
        assert await tree.show() == ("First", True)

    assert len(tree.reads) == 2


class TestRights:
    async def test_each_is_shown_what_they_may_deploy_from_one_reading(self, tree: Tree) -> None:
        tree.jobs = 20
        asking = [tree.menu(over(*range(1, number))) for number in range(1, 22)]
        shown = await asyncio.gather(*asking, tree.menu(NOBODY), tree.menu(ALL_RIGHTS))

        assert [len(titles) for titles, _ in shown] == [*range(21), 0, 20]
        assert len(tree.reads) == 1

    async def test_whoever_has_the_same_rights_gets_the_same_bytes(self, tree: Tree) -> None:
        await tree.show()
        tree.jobs = 3
        asking = [tree.bytes(over(1, 2)) for _ in range(100)]
        shown = await asyncio.gather(*asking)
        shown.append(await tree.bytes(over(2, 1)))

        assert len({id(each) for each in shown}) == 1

    async def test_menus_that_differ_have_different_versions(self, tree: Tree) -> None:
        tree.jobs = 3
        all_rights = [NOBODY, over(1), over(2), over(1, 2), over(1, 2, 3), ALL_RIGHTS]
        shown = [_menu.decode(await tree.bytes(rights)) for rights in all_rights]

        assert len({menu.version for menu in shown}) == 5
        assert shown[-2] == shown[-1]

    async def test_a_change_shows_a_second_later_whatever_rights_one_has(self, tree: Tree) -> None:
        all_rights = [over(1), over(1, 2), ALL_RIGHTS]
        for rights in all_rights:
            assert await tree.menu(rights) == (["First"], False)
        tree.title = "Second"
        tree.now += keeper.LATEST

        for rights in all_rights:
            assert await tree.menu(rights) == (["Second"], False)
        assert len(tree.reads) == 2

    async def test_after_a_reading_behind_an_answer_no_older_menu_is_shown(
        self, tree: Tree
    ) -> None:
        await tree.menu(over(1))
        await tree.menu(over(1, 2))
        tree.title = "Second"
        tree.now += FRESH + 0.1
        await tree.menu(over(1, 2))
        await eventually(lambda: tree.menu(over(1, 2)), lambda shown: shown[0] == ["Second"])

        assert await tree.menu(over(1)) == (["Second"], False)
        assert len(tree.reads) == 2

    async def test_menus_asked_for_last_are_ready_when_those_of_a_changed_tree_are_shown(
        self, tree: Tree
    ) -> None:
        for number in range(1, 5):
            await tree.menu(over(number))
        tree.title = "Second"
        tree.now += FRESH
        await tree.menu(over(4))
        await eventually(lambda: tree.menu(over(1)), lambda shown: shown[0] == ["Second"])

        assert all(tree.keeper.ready(over(number)) for number in range(1, 5))

    async def test_without_the_deployment_server_a_menu_that_nobody_had_is_built_from_the_last_tree(
        self, tree: Tree
    ) -> None:
        tree.jobs = 2
        await tree.menu(over(1))
        tree.gone = True
        tree.now += keeper.LATEST

        assert await tree.menu(over(2)) == (["2"], True)
        assert await tree.menu(over(1)) == (["First"], True)

    async def test_jobs_that_rules_name_from_now_on_are_read_for_the_next_menu(
        self, tree: Tree
    ) -> None:
        await tree.menu(over(1))
        tree.ruled = frozenset({5, 6})

        await tree.menu(over(1))

        assert tree.reads == [("(MI)", frozenset()), ("(MI)", frozenset({5, 6}))]

    async def test_whoever_gives_up_does_not_take_the_menu_from_others(self, tree: Tree) -> None:
        await tree.show()
        first, second = (asyncio.create_task(tree.menu(over(1))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()

        assert await second == (["First"], False)
        assert first.cancelled()

    async def test_closing_ends_menus_that_wait_to_be_built(self, tree: Tree) -> None:
        await tree.show()
        asking = [asyncio.create_task(tree.menu(over(number))) for number in range(50)]
        await _turns()

        async with asyncio.timeout(5):
            await tree.keeper.close()
            await asyncio.wait(asking)


class TestEdition:
    RULES = Rules(tag="(MI)", root_folder=None, menu_type="flat")

    def edition(self, largest: int) -> Edition:
        jobs = [Job(id_, None, f"{id_} (MI)", "") for id_ in range(100, 200)]
        return Edition(MenuRows(jobs, [], {}), self.RULES, largest)

    def test_menus_not_asked_for_longest_are_dropped_when_all_of_them_are_too_large(self) -> None:
        built = self.edition(0).build(over(100))
        edition = self.edition(3 * built.size)
        for id_ in (100, 101, 102):
            edition.keep(over(id_), edition.build(over(id_)))
        assert edition.kept(over(100))

        edition.keep(over(103), edition.build(over(103)))

        ready = [id_ for id_ in range(100, 104) if edition.kept(over(id_))]
        assert ready == [100, 102, 103]

    def test_one_menu_is_kept_however_large(self) -> None:
        edition = self.edition(10)
        for rights in (over(100), ALL_RIGHTS):
            edition.keep(rights, edition.build(rights))
        assert edition.kept(ALL_RIGHTS)
        assert edition.kept(over(100)) is None

    def test_parts_of_a_menu_that_is_out_of_date_are_the_same_bytes_and_say_so(self) -> None:
        jobs = [Job(id_, None, f"{id_ * 7919 % 10007} (MI)", "") for id_ in range(15_000)]
        built = Edition(MenuRows(jobs, [], {}), self.RULES).build(ALL_RIGHTS)
        fresh, stale = built.answer(1), built.answer(1, stale=True)

        assert isinstance(fresh, Answer)
        assert isinstance(stale, Answer)
        assert fresh.data is stale.data
        assert stale.headers == fresh.headers | {STALE_HEADER: "true"}

    def test_a_title_that_looks_like_the_field_is_left_alone_in_a_menu_that_is_out_of_date(
        self,
    ) -> None:
        title = 'x "stale":false y'
        rows = MenuRows([Job(1, None, f"{title} (MI)", "")], [], {})
        answer = Edition(rows, self.RULES).build(ALL_RIGHTS).answer(stale=True)

        assert isinstance(answer, bytes)
        menu = _menu.decode(answer)
        assert menu.stale
        assert menu.entries[0].title == title

    def test_a_menu_that_is_kept_again_counts_once(self) -> None:
        built = self.edition(0).build(over(100))
        edition = self.edition(2 * built.size)
        for id_ in (100, 101, 101, 101):
            edition.keep(over(id_), edition.build(over(id_)))
        assert edition.kept(over(100))
