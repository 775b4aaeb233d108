"""A watch that was read anew leaves nothing behind on the bus."""

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.option_store import OptionStore
from tests.site import eventually


async def test_the_bus_soon_forgets_a_watch_that_nobody_listens_to(connection: Connection) -> None:
    stream = connection.jetstream()
    await prepare(stream)

    async def consumers() -> int:
        info = await stream.stream_info(f"KV_{subjects.OPTIONS}")
        return info.state.consumer_count

    before = await consumers()
    store = await OptionStore.open(connection, "forgetful")
    for _ in range(5):
        await store.read()
    await eventually(consumers, lambda count: count <= before, 15)
