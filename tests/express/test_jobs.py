"""What is asked of the deployment server about its jobs."""

import pytest

from express.database import Database
from express.jobs import read_folders, read_job, read_jobs, read_jobs_in
from express.tree import Folder, Job

pytestmark = pytest.mark.express


async def test_jobs_and_folders_are_read_whole(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.insert("event", ("event_id", "folder_id", "name"), [(1, None, None)])
        jobs, folders = await read_jobs(tx), await read_folders(tx)
    assert Job(1, None, "", "") in jobs
    assert Job(2000191, 5, "Wipe disk (MI)", "Wipe the disk before disposal") in jobs
    assert Folder(1, None, "Deploy") in folders
    assert Folder(13, 12, "Finance Applications") in folders
    assert (len(jobs), len(folders)) == (43, 16)


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


async def test_a_large_job_tree_is_read_whole(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.insert(
            "event",
            ("event_id", "folder_id", "name", "description"),
            [(n, 10, f"{n}. Install application", None) for n in range(20_000)],
        )
        assert len(await read_jobs(tx)) == 20_042
