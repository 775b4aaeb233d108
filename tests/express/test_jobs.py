"""What is asked of the deployment server about its jobs."""

import pytest

from bus.access import Rights
from engine.rights import Permissions
from engine.tree import Folder, Job, JobTree
from express.database import Database, Transaction
from express.jobs import (
    LARGEST_ID,
    read_jobs,
    read_jobs_in,
    read_menu_rows,
    read_whole_tree,
)

pytestmark = pytest.mark.express


async def test_what_a_menu_is_made_of_is_read(database: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.insert(
            "event",
            ("event_id", "folder_id", "name"),
            [(1, None, None), (2, 40, "Deploy (mi)"), (3, 13, "(MI)"), (4, 6, "Old (MI) job")],
        )
        rows = read_menu_rows(tx, "(MI)")
        assert Job(2000191, 5, "Wipe disk (MI)", "Wipe the disk before disposal") in rows.jobs
        assert Job(3, 13, "(MI)", "") in rows.jobs
        assert Job(4, 6, "Old (MI) job", "") in rows.jobs
        assert Folder(1, None, "Deploy") in rows.folders
        assert Folder(13, 12, "Finance Applications") in rows.folders
        assert len(rows.folders) == 16
        # A job without the tag, or without a name, fills its folder; the tagged ones do not.
        assert rows.filled[None] == 1
        assert rows.filled[12] == rows.filled[13] == 2
        assert 10 in rows.filled
        assert not rows.filled.keys() & {1, 2, 3}

    await database.transact(work)


@pytest.mark.parametrize("ruled", [(), (2,), (4, 5), (2, 3, 4, 5, 6, 7, 8)])
async def test_a_ruled_job_is_read_and_no_job_is_told_twice(
    database: Database, ruled: tuple[int, ...]
) -> None:
    added = [(2, 40, "Deploy (mi)"), (3, 40, "(MI)"), (4, 40, "Old (MI) job"), (5, 40, "a"),
             (6, 40, "b"), (7, None, None)]  # fmt: skip

    def work(tx: Transaction) -> None:
        before = read_menu_rows(tx, "(MI)")
        tx.insert("event", ("event_id", "folder_id", "name"), added)
        rows = read_menu_rows(tx, "(MI)", frozenset(ruled))
        everything = read_whole_tree(tx).jobs
        read = {job.id for job in rows.jobs}
        assert len(read) == len(rows.jobs)
        assert {3, 4, *ruled} - {8} <= read
        # Which of them are read depends on the server; each is read or counted, and none is both.
        counted = [folder_id for id_, folder_id, _ in added if id_ not in read]
        for place in (None, 40):
            expected = before.filled.get(place, 0) + counted.count(place)
            assert rows.filled.get(place, 0) == expected
        assert 0 not in rows.filled.values()
        assert sum(rows.filled.values()) + len(rows.jobs) == len(everything)

    await database.transact(work)


async def test_thousands_of_ruled_jobs_are_read_and_impossible_ids_are_not_asked_for(
    database: Database,
) -> None:
    ids = [*range(1, 2501), LARGEST_ID, LARGEST_ID + 1, -LARGEST_ID - 2, 10**18]

    def work(tx: Transaction) -> None:
        tx.insert("event", ("event_id", "folder_id", "name"), [(2400, 10, "x")])
        rows = read_menu_rows(tx, "(MI)", ids)
        assert Job(2400, 10, "x", "") in rows.jobs

    await database.transact(work)


@pytest.mark.parametrize("tag", ["100%", "a_b", "[x]", "!", "(MI)", "'", '"', "%%", "ß"])
async def test_a_tag_means_itself_whatever_it_is_made_of(database: Database, tag: str) -> None:
    names = [tag, f"x {tag}", f"{tag} y", "100", "axb", "x", "a", "plain", "]["]

    def work(tx: Transaction) -> None:
        tx.execute("DELETE FROM event_schedule")
        tx.execute("DELETE FROM event")
        tx.insert(
            "event",
            ("event_id", "folder_id", "name"),
            [(number, 10, name) for number, name in enumerate(names)],
        )
        rows = read_menu_rows(tx, tag)
        assert {job.name for job in rows.jobs} == {name for name in names if tag in name}
        assert rows.filled == {10: len(names) - len(rows.jobs)}

    await database.transact(work)


@pytest.mark.parametrize("more", [0, 999, 2500])
async def test_of_many_jobs_those_that_exist_are_read_once(database: Database, more: int) -> None:
    ids = [2000190, 2000101, 2000190, *range(1, more), LARGEST_ID + 1, -LARGEST_ID - 2, 10**18]
    found = await database.transact(lambda tx: read_jobs(tx, ids))
    assert sorted(job.id for job in found) == [2000101, 2000190]
    assert Job(2000190, 5, "Memory test (MI)", "") in found
    assert await database.transact(lambda tx: read_jobs(tx, [])) == []


@pytest.mark.parametrize(
    "rights",
    [
        Rights(),
        Rights(whole=True),
        Rights(whole=True, jobs=frozenset({(2000130, False)})),
        Rights(folders=frozenset({(12, True), (5, True), (13, False)})),
        Rights(jobs=frozenset((id_, True) for id_ in range(2000120, 2000140))),
    ],
)
async def test_what_is_read_is_enough_to_know_what_rights_permit(
    database: Database, rights: Rights
) -> None:
    ruled = {id_ for id_, _ in rights.jobs}
    rows = await database.transact(lambda tx: read_menu_rows(tx, "(MI)", ruled))
    everything = await database.transact(lambda tx: read_whole_tree(tx).jobs)
    some = JobTree(rows.jobs, rows.folders, "(MI)", None, rows.filled)
    whole = JobTree(everything, rows.folders, "(MI)", None)
    permitted = [
        {item.id for item in tree.items() if Permissions(tree, rights).permits_item(item)}
        for tree in (some, whole)
    ]
    assert permitted[0] == permitted[1]
    assert bool(permitted[0]) == (rights != Rights())


async def test_all_jobs_are_read(database: Database) -> None:
    found = await database.transact(lambda tx: read_whole_tree(tx).jobs)
    assert Job(2000190, 5, "Memory test (MI)", "") in found
    assert {2000130, 2000131, 2000132, 2000133} <= {job.id for job in found}


@pytest.mark.parametrize("more", [0, 999, 2500])
async def test_the_jobs_of_many_folders_are_read(database: Database, more: int) -> None:
    folders = [12, 13, 12, *range(1000, 1000 + more)]
    found = await database.transact(lambda tx: read_jobs_in(tx, folders))
    assert sorted(job.id for job in found) == [2000130, 2000131, 2000132, 2000133]
    assert await database.transact(lambda tx: read_jobs_in(tx, [])) == []
