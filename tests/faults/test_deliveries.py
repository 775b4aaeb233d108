"""A request is delivered again, since whoever had it hung, or could not tell what became of it."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from nats.js.api import DiscardPolicy

from bus import subjects
from bus.events import event_decoder
from services.scheduler.program import program as scheduler
from tests.faults.estate import PASSWORD, SafeBus, estate
from tests.faults.machines import Visit
from tests.faults.reckoning import Before, reckon
from tests.site import LAPTOP, Asker, Express, asker, eventually, new_machine, running

_WAIT_FOR_THE_LOCK: Final = (
    "SELECT COUNT(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND query LIKE '%pg_advisory_xact_lock%'"
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


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_request_that_is_done_stays_in_the_stream_until_all_of_it_has_been_told(
    bus: SafeBus, name: str, dsn: str, express: Express
) -> None:
    async with asker(bus.url, name) as client, running(bus.url, name, scheduler(dsn)):
        jetstream = client.connection.jetstream()
        config = (await jetstream.stream_info(subjects.EVENTS)).config
        # There is room for the event that the request is accepted, and for no other one.
        await jetstream.update_stream(config.evolve(max_msgs=1, discard=DiscardPolicy.NEW))
        outcome = await client.schedule(new_machine(1), LAPTOP)
        assert outcome.state == "scheduled"
        rows = express.tables()
        assert len(await client.waiting()) == 1
        assert await told(client) == {"request_accepted": 1}

        await jetstream.update_stream(config)
        await eventually(client.waiting, lambda found: not found)
        kinds = {"request_accepted": 1, "computer_created": 1, "jobs_scheduled": 1}
        assert await told(client) == kinds
        assert express.tables() == rows


async def told(client: Asker) -> Counter[str]:
    """How many events of each kind there are."""
    found = await client.kept(subjects.EVENTS, subjects.event(client.site))
    return Counter(event_decoder.decode(data).kind for data in found)
