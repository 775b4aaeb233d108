"""Boot clients at a server with the configuration that was made for it."""

import asyncio
from pathlib import Path

from bus import subjects
from bus.connection import connect
from bus.door import BootLogin, Door, RefusedError
from bus.machines import machine_key
from tests.estate.servers import add_site, new_estate, site_server
from tests.site import STAFF_0117


async def test_who_waits_for_the_auth_service_in_vain_is_told_of_it(tmp_path: Path) -> None:
    estate = new_estate(tmp_path / "estate")
    add_site(estate, "campus")
    image = tmp_path / "boot-credential"
    image.write_text(estate.issue_boot("winpe"))
    server = site_server(estate, "campus")
    key = machine_key(STAFF_0117)
    told: asyncio.Queue[Exception] = asyncio.Queue()
    server.start()
    try:
        coming = asyncio.create_task(
            connect(
                server.url,
                key,
                inbox=subjects.inbox(key),
                report=told.put,
                door=Door(ca=server.ready / "tls" / "ca.pem", boot=BootLogin(key, image)),
            )
        )
        error = await asyncio.wait_for(told.get(), 10)
        coming.cancel()
        await asyncio.wait({coming})
    finally:
        server.stop()
    assert isinstance(error, RefusedError)
    assert error.refusal == "slow"
