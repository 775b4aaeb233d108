"""A request is delivered again while the one who has it hangs, and goes on later."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.estate import PASSWORD, SafeBus, estate
from tests.faults.machines import Visit
from tests.faults.reckoning import Before, reckon
from tests.site import LAPTOP, Express, eventually, new_machine

_WAIT_FOR_THE_LOCK: Final = (
    "SELECT COUNT(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO ii_lock%'"
)


async def waiting(express: Express) -> int:
    """How many transactions wait for the lock of a machine."""
    ((count,),) = express.sql(_WAIT_FOR_THE_LOCK)
    return int(count)


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_scheduler_that_hangs_over_a_request_which_another_then_has_too_doubles_nothing(
    bus: SafeBus, name: str, dsn: str, tmp_path: Path
) -> None:
    visit = Visit(new_machine(1), LAPTOP, None)
    async with estate(bus, name, dsn, tmp_path) as site:
        before = Before.of(site.express)
        first, second = site.of("scheduler")
        second.terminate()
        assert await second.status() == 0
        token = (await site.client.login(visit.machine, PASSWORD)).token
        visit.sent = True
        with ExitStack() as hanging:
            with site.express.busy(visit.machine):
                outcome = await site.client.schedule(
                    visit.machine, visit.item_id, request_id=visit.request_id, token=token
                )
                assert outcome.state == "accepted"
                await eventually(lambda: waiting(site.express), lambda count: count == 1)
                hanging.enter_context(first.frozen())
            # The lock is the hanging one's now; the other gets the request when the stream has
            # heard nothing of it for long enough, and waits for the lock.
            second.start()
            await second.serving(2)
            await eventually(lambda: waiting(site.express), lambda count: count == 1, 30)
        visit.outcome = await site.client.settled(visit.machine, visit.request_id, 30)
        assert visit.outcome.state == "scheduled"
        await site.settled()
        await site.leave()
        await reckon(site, before, [visit])
