"""Menus that are larger than a message, from the database to the client."""

import json
import zlib
from collections.abc import AsyncIterator

import msgspec
import pyodbc
import pytest
from nats.aio.msg import Msg

from bus import contract, subjects
from bus.connection import BusUnavailableError, Connection, connect
from bus.contract import SHOW
from bus.machines import machine_key
from bus.menus import PART, PART_HEADER, VERSION_HEADER, Division, ask_menu, packed
from bus.messages import ItemEntry, Menu, ShowMenu, encode
from bus.problems import CODE_HEADER
from client.journey import Journey
from services.menu.edition import WHOLE
from services.menu.program import program as menu
from tests.site import STAFF_0117, Asker, Express, eventually, running

KEY = machine_key(STAFF_0117)
on_sqlite = pytest.mark.parametrize("kind", ["sqlite"])


def fill(dsn: str, count: int, first: int = 1) -> None:
    """So many tagged jobs, each an item."""
    connection = pyodbc.connect(dsn, autocommit=False)
    rows = [
        (id_, 10, f"Lay down image {id_ * 7919 % 100_003} (MI)")
        for id_ in range(first, count + first)
    ]
    connection.cursor().executemany(
        "INSERT INTO event (event_id, folder_id, name) VALUES (?, ?, ?)", rows
    )
    connection.commit()
    connection.close()


async def asked(client: Asker, **fields: object) -> Msg:
    """The answer on the wire to a question for a menu."""
    question = msgspec.structs.replace(ShowMenu(machine=STAFF_0117), **fields)
    subject = subjects.endpoint(client.site, "menu", "show", KEY)
    return await client.connection.request(subject, encode(question), timeout=30)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_menu_of_100000_items_reaches_the_boot_client_whole(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    fill(dsn, 100_000)
    async with running(url, name, menu(dsn)):
        journey = Journey(url, name, STAFF_0117, lambda _notice: None)
        # Built for longer than a second, where it is busy, the first one may be out of date.
        shown = await eventually(lambda: journey.show(None), lambda found: not found.stale, 60)
        await journey.close()
        first = await asked(client, part=1)

        assert len({entry.id for entry in shown.entries if isinstance(entry, ItemEntry)}) > 100_000
        assert first.headers
        number, count = map(int, first.headers[PART_HEADER].split("/"))
        assert number == 1
        assert count > 1
        version = first.headers[VERSION_HEADER]
        others = [await asked(client, part=each, of=version) for each in range(2, count + 1)]
        data = zlib.decompress(b"".join(each.data for each in (first, *others)))
        assert SHOW.answered_decoder.decode(data) == shown
        assert all(len(each.data) <= PART for each in (first, *others))


@on_sqlite
async def test_a_client_that_knows_of_no_parts_is_told_that_the_menu_is_too_large(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    fill(dsn, 20_000)
    async with running(url, name, menu(dsn)):
        answer = await asked(client)

        assert answer.headers
        assert answer.headers[CODE_HEADER] == "400"
        assert "too large" in json.loads(answer.data)["message"]
        assert len((await client.show()).entries) > 20_000


@on_sqlite
async def test_a_menu_that_one_message_carries_comes_whole_to_who_knows_of_no_parts(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    fill(dsn, 10_000)
    async with running(url, name, menu(dsn)):
        whole = await asked(client)
        part = await asked(client, part=1)

        assert PART < len(whole.data) <= WHOLE
        assert not whole.headers
        assert part.headers
        assert part.headers[PART_HEADER] == "1/1"
        assert zlib.decompress(part.data) == whole.data


@on_sqlite
async def test_a_small_menu_comes_whole_whatever_part_is_asked_for(
    url: str, name: str, dsn: str, client: Asker
) -> None:
    async with running(url, name, menu(dsn)):
        plain = await asked(client)
        for fields in ({"part": 1}, {"part": 3, "of": "gone"}, {"part": 1, "of": "gone"}):
            answer = await asked(client, **fields)
            assert answer.data == plain.data
            assert not answer.headers


@on_sqlite
async def test_a_part_of_a_version_that_is_gone_is_the_beginning_of_the_new_one(
    url: str, name: str, dsn: str, client: Asker, express: Express
) -> None:
    fill(dsn, 20_000)
    async with running(url, name, menu(dsn)):
        before = await asked(client, part=1)
        express.sql("UPDATE event SET name = 'Changed (MI)' WHERE event_id = 1")
        assert before.headers
        gone = before.headers[VERSION_HEADER]
        after = await eventually(
            lambda: asked(client, part=2, of=gone),
            lambda found: (found.headers or {}).get(VERSION_HEADER, gone) != gone,
        )
        beyond = await asked(client, part=1000, of=(after.headers or {})[VERSION_HEADER])

        assert after.headers
        assert after.headers[PART_HEADER].startswith("1/")
        assert beyond.headers
        assert beyond.headers[CODE_HEADER] == "400"


class TestAsking:
    """The client's side, against somebody who answers what a test wants."""

    MENU = Menu(
        version="1",
        type="flat",
        stale=False,
        entries=tuple(ItemEntry(id=f"job:{number}", title=f"{number}") for number in range(900)),
    )

    @pytest.fixture
    async def connection(self, url: str) -> AsyncIterator[Connection]:
        connection = await connect(url, "parts")
        yield connection
        await connection.close()

    async def ask(
        self, connection: Connection, name: str, answers: list[tuple[bytes, dict[str, str] | None]]
    ) -> tuple[Menu, list[tuple[int, str | None]]]:
        """The menu that is put together from these answers, and what was asked for."""
        questions: list[tuple[int, str | None]] = []

        async def heard(message: Msg) -> None:
            question = contract.SHOW.asked_decoder.decode(message.data)
            questions.append((question.part, question.of))
            data, headers = answers[min(len(questions), len(answers)) - 1]
            await connection.publish(message.reply, data, headers=headers)

        await connection.subscribe(subjects.endpoint(name, "menu", "show"), cb=heard)
        await connection.flush()
        menu = await ask_menu(connection, name, KEY, ShowMenu(machine=STAFF_0117))
        return menu, questions

    def parts(
        self, version: str, count: int, *, stale: bool = False, menu: Menu = MENU
    ) -> list[tuple[bytes, dict[str, str] | None]]:
        data = packed(encode(menu))
        step = -(-len(data) // count)
        return [
            (
                data[step * number : step * (number + 1)],
                Division(number + 1, count, version, stale=stale).headers(),
            )
            for number in range(count)
        ]

    @pytest.mark.parametrize("count", [1, 2, 7])
    async def test_parts_are_put_together(
        self, connection: Connection, name: str, count: int
    ) -> None:
        shown, questions = await self.ask(connection, name, self.parts("v", count))

        assert shown == self.MENU
        assert questions == [(1, None), *((number, "v") for number in range(2, count + 1))]

    async def test_a_menu_whose_parts_are_out_of_date_says_so(
        self, connection: Connection, name: str
    ) -> None:
        answers = [*self.parts("v", 3)[:2], self.parts("v", 3, stale=True)[2]]
        shown, _ = await self.ask(connection, name, answers)

        assert shown == msgspec.structs.replace(self.MENU, stale=True)

    async def test_another_version_is_begun_again(self, connection: Connection, name: str) -> None:
        other = msgspec.structs.replace(self.MENU, version="2")
        answers = [*self.parts("v", 3)[:2], *self.parts("w", 3, menu=other)]
        shown, questions = await self.ask(connection, name, answers)

        assert shown == other
        assert questions == [(1, None), (2, "v"), (3, "v"), (2, "w"), (3, "w")]

    async def test_a_menu_that_has_become_small_is_taken_whole(
        self, connection: Connection, name: str
    ) -> None:
        small = msgspec.structs.replace(self.MENU, entries=())
        answers = [*self.parts("v", 3)[:2], (encode(small), None)]

        assert (await self.ask(connection, name, answers))[0] == small

    @pytest.mark.parametrize(
        "headers",
        [
            {PART_HEADER: "2/3", VERSION_HEADER: "v"},
            {PART_HEADER: "0/3", VERSION_HEADER: "v"},
            {PART_HEADER: "4/3", VERSION_HEADER: "v"},
            {PART_HEADER: "1", VERSION_HEADER: "v"},
            {PART_HEADER: "1/1"},
            {PART_HEADER: "1/1", VERSION_HEADER: "v"},
        ],
    )
    async def test_nonsense_is_no_answer(
        self, connection: Connection, name: str, headers: dict[str, str]
    ) -> None:
        with pytest.raises(BusUnavailableError):
            await self.ask(connection, name, [(b"junk", headers)])

    async def test_parts_of_two_menus_are_never_one(
        self, connection: Connection, name: str
    ) -> None:
        other = msgspec.structs.replace(self.MENU, version="2")
        answers = [self.parts("v", 2)[0], self.parts("v", 2, menu=other)[1]]
        with pytest.raises(BusUnavailableError):
            await self.ask(connection, name, answers)

    async def test_a_menu_that_changes_with_every_part_is_given_up(
        self, connection: Connection, name: str
    ) -> None:
        answers = [self.parts(f"v{number}", 2)[0] for number in range(30)]
        with pytest.raises(BusUnavailableError, match="faster"):
            await self.ask(connection, name, answers)
