"""What is asked of the deployment server about its jobs."""

import pytest

from express.database import Database
from express.jobs import read_job, read_jobs_in, read_menu_rows
from express.tree import Folder, Job

pytestmark = pytest.mark.express


async def test_what_a_menu_is_made_of_is_read(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.insert(
            "event",
            ("event_id", "folder_id", "name"),
            [(1, None, None), (2, 40, "Deploy (mi)"), (3, 13, "(MI)"), (4, 6, "Old (MI) job")],
        )
        rows = await read_menu_rows(tx, "(MI)")
    assert Job(2000191, 5, "Wipe disk (MI)", "Wipe the disk before disposal") in rows.jobs
    assert Job(3, 13, "(MI)", "") in rows.jobs
    assert Job(4, 6, "Old (MI) job", "") in rows.jobs
    assert Folder(1, None, "Deploy") in rows.folders
    assert Folder(13, 12, "Finance Applications") in rows.folders
    assert len(rows.folders) == 16
    # A job without the tag, or without a name, fills its folder; the tagged ones do not.
    assert {None, 10, 12, 13} <= rows.filled
    assert not rows.filled & {1, 2, 3}
    untagged = [job for job in rows.jobs if "(MI)" not in job.name]
    assert 40 in rows.filled | {job.folder_id for job in untagged}


@pytest.mark.parametrize("tag", ["100%", "a_b", "[x]", "!", "(MI)", "'", '"', "%%", "ß"])
async def test_a_tag_means_itself_whatever_it_is_made_of(database: Database, tag: str) -> None:
    names = [tag, f"x {tag}", f"{tag} y", "100", "axb", "x", "a", "plain", "]["]
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM event_schedule")
        await tx.execute("DELETE FROM event")
        await tx.insert(
            "event",
            ("event_id", "folder_id", "name"),
            [(number, 10, name) for number, name in enumerate(names)],
        )
        rows = await read_menu_rows(tx, tag)
    assert {job.name for job in rows.jobs} == {name for name in names if tag in name}
    assert rows.filled == {10}


async def test_one_job_is_read_or_known_to_be_gone(database: Database) -> None:
    async with database.transaction() as tx:
        assert await read_job(tx, 2000190) == Job(2000190, 5, "Memory test (MI)", "")
        assert await read_job(tx, 1) is None


@pytest.mark.parametrize("more", [0, 999, 2500])
async def test_the_jobs_of_many_folders_are_read(database: Database, more: int) -> None:
    async with database.transaction() as tx:
        found = await read_jobs_in(tx, [12, 13, 12, *range(1000, 1000 + more)])
        assert await read_jobs_in(tx, []) == []
    assert sorted(job.id for job in found) == [2000130, 2000131, 2000132, 2000133]
