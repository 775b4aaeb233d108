"""A PC whose image holds a boot credential, at a site whose bus trusts nobody."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.messages import Machine
from estate.wishes import Wish
from tests.e2e_boot.conftest import Start
from tests.e2e_boot.images import Image, make
from tests.estate.servers import HERE, new_estate, place
from tests.estate.whole_site import WholeSite
from tests.virtual_pc import HOST, VirtualPc

LONG = 150
SITE = "campus"
UNKNOWN = Machine(uuid="7d1c2b5e-31d4-4a7c-9b52-0d6e8a1f4c77", serial="5CG0000077")
SCRIPT = """\
#!/bin/sh
echo "{name} after the portal: $IMAGEINVOKER_STATUS $IMAGEINVOKER_SERVER $IMAGEINVOKER_SITE"
read -r _
"""


@pytest.mark.parametrize("then", ["script", "agent"])
async def test_an_unattended_pc_with_a_wrong_clock_is_let_in_deploys_and_runs_what_comes_then(
    image: Image, start: Start, tmp_path: Path, then: str
) -> None:
    estate = new_estate(tmp_path / "estate")
    where = place(estate.site_folder(SITE), estate.folder / "store" / SITE)
    wish = Wish(name=SITE, addresses=(HERE, HOST), subnets=("127.0.0.0/8",), place=where)
    assert estate.add_site(wish)
    site = WholeSite(estate, SITE, tmp_path)
    server = f"tls://{HOST}:{site.server.port}"
    own = await asyncio.to_thread(_image, image, site, server, _brought(then, tmp_path), tmp_path)

    def boot() -> None:
        pc = start(
            UNKNOWN,
            'imageinvoker.item="Exam Mode" imageinvoker.name=LAB-01',
            kernel=own.kernel,
            initramfs=own.initramfs,
            clock="2001-01-01T00:00:00",
        )
        _see_it_through(pc, f"{then} after the portal: 0 {server} {SITE}")

    async with site.working("auth", "menu", "scheduler"):
        await asyncio.to_thread(boot)
    assert site.server.violations() == []
    with closing(sqlite3.connect(tmp_path / "express.db")) as database:
        rows = database.execute(
            "SELECT e.name FROM event_schedule s JOIN event e ON e.event_id = s.event_id"
            " JOIN computer c ON c.computer_id = s.computer_id"
            " WHERE c.name = 'LAB-01' ORDER BY s.schedule_id"
        ).fetchall()
    assert rows == [("1. Lay down exam image",), ("2. Close network",)]


def _brought(then: str, scratch: Path) -> str:
    """What `--then` is told: a script, or an agent that is a program and what it needs."""
    place = scratch / then
    if then == "script":
        place.write_text(SCRIPT.format(name=then))
    else:
        (place / "lib").mkdir(parents=True)
        (place / "lib" / "words").write_text(SCRIPT.format(name=then))
        (place / "start").write_text('#!/bin/sh\n. "${0%/*}/lib/words"\n')
    return f"{then}:{place}"


def _image(image: Image, site: WholeSite, server: str, then: str, scratch: Path) -> Image:
    own = Image(scratch / "image", image.packages, site.server.port)
    made = make(
        "--server", server, "--site", SITE, "--ca", str(site.server.ready / "tls" / "ca.pem"),
        "--boot-credential", str(site.image), "--then", then, "--quick",
        "--packages", str(own.packages), "--offline", "--out", str(own.folder),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return own


def _see_it_through(pc: VirtualPc, said: str) -> None:
    pc.wait_for(said, LONG)
    pc.type("\r")
    assert pc.status(LONG) == 0, pc.text
