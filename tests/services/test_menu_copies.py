"""Copies of the menu service look after one job tree together, and none shows an older one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from nats.aio.msg import Msg

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection, connect
from bus.messages import Menu, decoder
from bus.options import Options
from engine.menu_rows import MenuRows, Wanted
from express.engine import ExpressEngine
from services.menu.copies import Copies, Sight
from services.menu.keeper import LATEST, MenuKeeper
from services.menu.lookout import FRESH, Lookout, Seen
from services.menu.snapshots import PART, Snapshots
from services.menu.tally import Tally
from tests.buses import BusServer
from tests.site import Express, eventually

WANTED = Wanted("(MI)")
RENAMED = "UPDATE event SET name = 'Memory task (MI)' WHERE event_id = 2000190"
on_postgres = pytest.mark.parametrize("kind", ["postgres"])
_menu = decoder(Menu)


class Copy:
    """A copy of the menu service without its endpoints."""

    def __init__(self, connection: Connection, name: str, dsn: str) -> None:
        self.engine = ExpressEngine(dsn, name)
        self.tally = Tally()
        self.copies = Copies(connection, name, time.monotonic)
        self.snapshots = Snapshots(connection, name)
        self.shares = self.engine.shares_marks
        shared = (self.copies, self.snapshots) if self.shares else (None, None)
        self.lookout = Lookout(self.engine, self.tally, *shared)
        self.keeper = MenuKeeper(self.lookout.look, Options, frozenset[int], self.tally)
        self.connection = connection

    async def titles(self) -> list[str]:
        """The titles in the menu, which must not be said to be out of date."""
        answer = self.keeper.ready() or await self.keeper.show()
        assert isinstance(answer, bytes)
        menu = _menu.decode(answer)
        assert not menu.stale
        return [entry.title for entry in menu.entries]

    async def look(self, last: Seen | None = None) -> Seen:
        return await self.lookout.look(WANTED, last)

    async def end(self) -> None:
        await self.keeper.close()
        await self.lookout.close()
        await self.engine.close()


@asynccontextmanager
async def copies_of(url: str, name: str, dsn: str, count: int) -> AsyncIterator[list[Copy]]:
    """Copies that know of one another."""
    async with AsyncExitStack() as stack:
        found: list[Copy] = []
        for number in range(count):
            connection = await connect(url, f"copy-{number}")
            stack.push_async_callback(connection.close)
            await prepare(connection.jetstream())
            copy = Copy(connection, name, dsn)
            stack.push_async_callback(copy.end)
            await copy.lookout.start()
            await connection.flush()
            found.append(copy)
        for copy in found:
            await copy.copies.ask(0)
        await eventually(lambda: _all_know(found), bool)
        yield found


async def _all_know(found: list[Copy]) -> bool:
    return len(found) == 1 or all(copy.copies.there or not copy.shares for copy in found)


async def _asked_for(copies: list[Copy], seconds: float) -> None:
    """Somebody asks each copy all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.gather(*(copy.titles() for copy in copies))
        await asyncio.sleep(0.01)


@on_postgres
async def test_four_copies_ask_the_database_hardly_more_often_than_one(
    url: str, name: str, dsn: str
) -> None:
    seconds = 4.0
    async with copies_of(url, name, dsn, 4) as copies:
        await asyncio.gather(*(copy.titles() for copy in copies))
        before = sum(copy.tally.checks for copy in copies)
        await _asked_for(copies, seconds)
        checks = sum(copy.tally.checks for copy in copies) - before

        alone = seconds / FRESH
        assert checks <= 2 * alone
        assert sum(copy.tally.readings for copy in copies) <= 4


async def test_a_copy_asks_the_database_once_in_half_a_second_however_many_ask_it(
    url: str, name: str, dsn: str
) -> None:
    seconds = 2.0
    async with copies_of(url, name, dsn, 1) as (copy,):
        await _asked_for([copy] * 100, seconds)

        assert copy.tally.checks <= seconds / FRESH + 1
        assert copy.tally.readings == copy.tally.builds == 1


@on_postgres
async def test_rows_that_one_copy_has_read_are_not_read_by_another(
    url: str, name: str, dsn: str
) -> None:
    async with copies_of(url, name, dsn, 2) as (first, second):
        read = await first.look()
        found = await second.look()

        assert found.rows == read.rows
        assert found.rows.jobs[0].name
        assert (first.tally.readings, second.tally.readings) == (1, 0)
        assert (second.tally.shared, second.tally.checks) == (1, 0)


@on_postgres
async def test_a_change_that_one_copy_has_found_reaches_another_without_the_database(
    url: str, name: str, dsn: str, express: Express
) -> None:
    async with copies_of(url, name, dsn, 2) as (first, second):
        seen = await second.look(await first.look())
        express.sql(RENAMED)
        await eventually(lambda: first.look(seen), lambda found: found.rows != seen.rows)
        changed = await second.look(seen)

        assert any(job.name == "Memory task (MI)" for job in changed.rows.jobs)
        assert second.tally.readings == second.tally.checks == 0


async def test_whichever_copy_is_asked_a_change_shows_a_second_later(
    url: str, name: str, dsn: str, express: Express
) -> None:
    async with copies_of(url, name, dsn, 3) as copies:
        for number in range(4):
            await asyncio.gather(*(copy.titles() for copy in copies))
            await asyncio.sleep(0.13 * number)
            express.sql(f"UPDATE event SET name = 'Test {number} (MI)' WHERE event_id = 2000190")
            changed = time.monotonic()
            await _asked_for(copies, LATEST - (time.monotonic() - changed))
            for copy in copies:
                assert f"Test {number}" in await copy.titles()


@on_postgres
async def test_without_a_snapshot_in_the_bucket_the_database_is_read(
    url: str, name: str, dsn: str
) -> None:
    async with copies_of(url, name, dsn, 2) as (first, second):
        await first.look()
        await eventually(lambda: _shared(second, first), bool)
        bucket = await first.connection.jetstream().key_value(subjects.MENUS)
        await bucket.put(subjects.site_key(name, "1"), b"something else")
        found = await second.look()

        assert len(found.rows.jobs) > 5
        assert (second.tally.readings, second.tally.shared) == (1, 0)


async def _shared(copy: Copy, by: Copy) -> bool:
    seen = await by.look()
    return seen.fingerprint is not None and bool(
        await copy.snapshots.fetch(seen.fingerprint, WANTED)
    )


@on_postgres
async def test_rows_that_were_read_for_other_rules_are_not_taken(
    url: str, name: str, dsn: str
) -> None:
    async with copies_of(url, name, dsn, 1) as (copy,):
        seen = await copy.look()
        assert seen.fingerprint
        await eventually(lambda: _shared(copy, copy), bool)

        for other in (Wanted("Check"), Wanted("(MI)", frozenset({1}))):
            assert await copy.snapshots.fetch(seen.fingerprint, other) is None
        assert await copy.snapshots.fetch("another", WANTED) is None


async def shared(copy: Copy, fingerprint: str, rows: MenuRows) -> None:
    """Puts rows where other copies find them: again, since a slow bus is given up."""
    for _ in range(10):
        await copy.snapshots.put(fingerprint, WANTED, rows)
        if (found := await copy.snapshots.fetch(fingerprint, WANTED)) is not None:
            assert found == rows
            return
    raise AssertionError("they were never there")


async def test_large_snapshots_travel_in_parts_and_the_last_takes_the_place_of_the_others(
    url: str, name: str, dsn: str
) -> None:
    async with copies_of(url, name, dsn, 1) as (copy,):
        rows = (await copy.look()).rows
        # What cannot be packed.
        noise = [(number * 7919) ** 40 for number in range(1, 20_000)]
        rows.jobs.extend(rows.jobs[0]._replace(id=id_, name=hex(noise[id_])) for id_ in range(9999))
        await shared(copy, "large", rows)
        bucket = await copy.connection.jetstream().key_value(subjects.MENUS)
        part = (await bucket.get(subjects.site_key(name, "1"))).value
        assert len(part or b"") == PART

        rows.jobs.clear()
        await shared(copy, "small", rows)
        assert await copy.snapshots.fetch("large", WANTED) is None


async def test_without_the_bus_each_copy_looks_for_itself(
    bus_of_its_own: BusServer, name: str, dsn: str
) -> None:
    async with copies_of(bus_of_its_own.url, name, dsn, 2) as (first, second):
        seen = await first.look()
        bus_of_its_own.stop()
        async with asyncio.timeout(10):
            found = await second.look(await first.look(seen))

        assert found.rows == seen.rows
        assert first.tally.checks + second.tally.checks >= 2


@pytest.fixture
def bus_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusServer]:
    server = BusServer(tmp_path_factory.mktemp("own"))
    server.start()
    yield server
    server.stop()


@on_postgres
async def test_a_database_that_does_not_tell_of_changes_is_read_each_time(
    url: str, name: str, dsn: str, express: Express
) -> None:
    express.sql("ALTER TABLE event RENAME TO real_event")
    express.sql("CREATE VIEW event AS SELECT * FROM real_event")
    async with copies_of(url, name, dsn, 1) as (copy,):
        first = await copy.look()
        express.sql(RENAMED)
        second = await copy.look(first)

        assert first.fingerprint is None
        assert first.rows != second.rows
        assert (copy.tally.checks, copy.tally.readings) == (1, 2)


class TestWhatOthersSay:
    """Somebody at the other end who says what a test wants."""

    @pytest.fixture
    async def connection(self, url: str) -> AsyncIterator[Connection]:
        connection = await connect(url, "other")
        yield connection
        await connection.close()

    @pytest.fixture
    async def asker(self, url: str, name: str) -> AsyncIterator[Copies]:
        connection = await connect(url, "asker")
        found = Copies(connection, name, time.monotonic)
        await found.start(_nothing)
        await connection.flush()
        yield found
        await found.stop()
        await connection.close()

    async def test_what_was_seen_is_as_old_as_told_from_the_question_on(
        self, connection: Connection, asker: Copies, name: str
    ) -> None:
        async def answer(message: Msg) -> None:
            await asyncio.sleep(0.3)
            await message.respond(b'{"fingerprint": "f", "age": 0.25}')

        await self.meet(connection, asker, name, answer)
        began = time.monotonic()
        seen = await asker.ask(5)

        assert seen is not None
        assert began - 0.25 <= seen.at <= time.monotonic() - 0.3 - 0.25
        assert seen.fingerprint == "f"

    @pytest.mark.parametrize(
        "answer", [b"", b"{}", b'{"fingerprint": 1, "age": 0}', b'{"fingerprint": "f"}']
    )
    async def test_nonsense_is_no_news(
        self, connection: Connection, asker: Copies, name: str, answer: bytes
    ) -> None:
        await self.meet(connection, asker, name, lambda message: message.respond(answer))
        assert await asker.ask(5) is None

    async def test_nobody_is_waited_for_by_a_copy_that_knows_of_no_other(
        self, asker: Copies
    ) -> None:
        async with asyncio.timeout(5):
            assert await asker.ask(3600) is None

    async def test_what_is_no_longer_young_is_not_told(
        self, url: str, name: str, connection: Connection
    ) -> None:
        told: list[Sight] = [Sight("old", time.monotonic() - FRESH)]

        async def last() -> Sight:
            return told[-1]

        own = await connect(url, "copy")
        copy = Copies(own, name, time.monotonic)
        await copy.start(last)
        await own.flush()
        subject = subjects.menu_checked(name)
        inbox = connection.new_inbox()
        heard = await connection.subscribe(inbox)
        await connection.publish(subject, b"other", reply=inbox)
        await connection.flush()
        told.append(Sight("young", time.monotonic()))
        await connection.publish(subject, b"other", reply=inbox)
        message = await heard.next_msg(5)
        await copy.stop()
        await own.close()

        assert b"young" in message.data

    @staticmethod
    async def meet(
        connection: Connection,
        asker: Copies,
        name: str,
        answer: Callable[[Msg], Awaitable[object]],
    ) -> None:
        async def heard(message: Msg) -> None:
            if message.reply:
                await answer(message)

        subject = subjects.menu_checked(name)
        await connection.subscribe(subject, cb=heard)
        await connection.publish(subject, b"other")
        await connection.flush()

        async def known() -> bool:
            return asker.there

        await eventually(known, bool)


async def _nothing() -> None:
    return None
