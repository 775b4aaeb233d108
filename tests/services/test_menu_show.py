"""The menu as a machine is shown it."""

import asyncio
import time
from collections.abc import Iterable

import pytest

from bus.messages import Entry, FolderEntry, ItemEntry, Menu
from bus.sessions import Claims, Signer
from services.auth.program import program as auth
from services.menu import keeper
from services.menu.program import program as menu
from tests.databases import PostgresServer
from tests.site import (
    STAFF_0117,
    Asker,
    Express,
    asker,
    eventually,
    new_machine,
    problem_of,
    refused,
    running,
    stopped,
)

SAMPLE = [
    "Back up the disk to the server",
    "CAD Lab",
    "Exam Mode",
    "Finance Office",
    "Library catalogue kiosk",
    "Media Lab",
    "Memory test",
    "Student Desktop",
    "Take inventory",
    "Windows 11 for staff desktops",
    "Windows 11 for staff laptops",
    "Wipe the disk before disposal",
]
KEY = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"


def items(entries: Iterable[Entry]) -> list[ItemEntry]:
    """Every item, also those in folders."""
    found: list[ItemEntry] = []
    for entry in entries:
        found += [entry] if isinstance(entry, ItemEntry) else items(entry.entries)
    return found


def titles(shown: Menu) -> list[str]:
    return [entry.title for entry in shown.entries]


async def test_tagged_jobs_and_folders_are_the_items_each_once(site: Asker) -> None:
    shown = await site.show()

    assert (shown.type, shown.stale) == ("flat", False)
    assert titles(shown) == SAMPLE
    assert len({item.id for item in items(shown.entries)}) == len(SAMPLE)


async def test_a_change_is_in_the_next_menu_asked_for_a_second_later(
    site: Asker, express: Express
) -> None:
    await site.show()
    await site.show()
    express.sql("UPDATE event SET name = 'Restart (MI)' WHERE event_id = 2000194")
    express.sql("UPDATE event SET name = 'Memory test' WHERE event_id = 2000190")
    changed = time.monotonic()

    await asyncio.sleep(keeper.LATEST - (time.monotonic() - changed))
    shown = titles(await site.show())

    assert "Restart" in shown
    assert "Memory test" not in shown


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_menu_type_is_in_force_at_once(site: Asker) -> None:
    flat = await site.show()
    await site.set("menu_type", "folders")

    shown = await eventually(site.show, lambda found: found.type == "folders", 1)

    assert [(entry.title, type(entry)) for entry in shown.entries] == [
        ("Deploy", FolderEntry),
        ("Maintenance", FolderEntry),
    ]
    ids = [item.id for item in items(shown.entries)]
    assert sorted(ids) == sorted(item.id for item in items(flat.entries))
    assert shown.version != flat.version


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_root_folder_is_in_force_at_once(site: Asker) -> None:
    await site.show()
    await site.set("root_folder", "Deploy/Staff")

    shown = await eventually(site.show, lambda found: len(found.entries) < 12, 1)
    await site.set("root_folder", "Deploy/Nowhere")
    nothing = await eventually(site.show, lambda found: len(found.entries) != 3, 1)
    await site.set("root_folder", "none")
    everything = await eventually(site.show, lambda found: len(found.entries) != 0, 1)

    assert titles(shown) == [
        "Finance Office",
        "Windows 11 for staff desktops",
        "Windows 11 for staff laptops",
    ]
    assert nothing.entries == ()
    assert titles(everything) == SAMPLE


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_tag_is_in_force_at_once(site: Asker) -> None:
    await site.show()
    await site.set("tag", "Check")

    shown = await eventually(site.show, lambda found: len(found.entries) == 1, 1)

    assert [item.id for item in items(shown.entries)] == ["job:2000101"]


@pytest.mark.parametrize("kind", ["postgres"])
async def test_when_the_database_is_gone_the_last_menu_is_shown_until_it_is_back(
    site: Asker, express: Express, postgres: PostgresServer
) -> None:
    before = await site.show()
    with stopped(postgres):
        stale = await eventually(site.show, lambda found: found.stale, 3)
    express.sql("UPDATE event SET name = 'Restart (MI)' WHERE event_id = 2000194")
    fresh = await eventually(site.show, lambda found: not found.stale, 3)

    assert stale.entries == before.entries
    assert "Restart" in titles(fresh)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_without_a_menu_a_database_that_is_gone_is_a_problem_until_it_is_back(
    url: str, name: str, dsn: str, client: Asker, postgres: PostgresServer
) -> None:
    async with running(url, name, menu(dsn)):
        with stopped(postgres):
            with refused("deployment_server_unavailable"):
                await client.show()
            with refused("deployment_server_unavailable"):
                await client.welcome(STAFF_0117)

        await eventually(lambda: problem_of(client.show()), lambda code: not code, 3)
        assert titles(await client.show()) == SAMPLE
        assert (await client.welcome(STAFF_0117)).computer


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_database_that_hangs_does_not_hold_answers_longer_than_the_patience(
    url: str, name: str, dsn: str, client: Asker, postgres: PostgresServer
) -> None:
    async def timed(asked: Asker) -> tuple[float, Menu]:
        began = time.monotonic()
        shown = await asked.show()
        return time.monotonic() - began, shown

    async with running(url, name, menu(dsn)), running(url, f"{name[:30]}-2", menu(dsn)):
        await client.show()
        await asyncio.sleep(keeper.LATEST)
        async with asker(url, f"{name[:30]}-2") as newcomer:
            with postgres.frozen():
                began = time.monotonic()
                answers = await asyncio.gather(
                    *(timed(client) for _ in range(20)),
                    newcomer.show(),
                    return_exceptions=True,
                )
                took = time.monotonic() - began
            assert str(answers.pop()).startswith("deployment_server_unavailable")
            for answer in answers:
                assert isinstance(answer, tuple), answer
                assert answer[0] < keeper.PATIENCE + 0.5
                assert answer[1].stale
            assert took < keeper.PATIENCE + 0.5
            await eventually(client.show, lambda found: not found.stale, 5)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_protected_site_shows_its_menu_to_who_has_signed_in_there(
    url: str, name: str, site: Asker
) -> None:
    await site.protect("open sesame")
    async with running(url, name, auth):
        await eventually(lambda: problem_of(site.show()), lambda code: code == "login_required", 1)
        session = await site.login(STAFF_0117, "open sesame")

        assert titles(await site.show(token=session.token)) == SAMPLE
        with refused("login_required"):
            await site.show(new_machine(1), token=session.token)
        with refused("login_required"):
            await site.show(token="junk")
        with refused("login_required"):
            await site.show(token=session.token[:-4] + "AAAA")


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_session_that_has_ended_is_told_from_none(name: str, site: Asker) -> None:
    await site.protect("open sesame")
    signer = Signer(name)
    await signer.publish(site.connection)
    shared = Claims(username=None, protection="hash")
    token = signer.session(KEY, shared, lifetime=-60).token

    await eventually(lambda: problem_of(site.show(token=token)), bool, 1)
    with refused("session_expired"):
        await site.show(token=token)
