"""What happens on a PC from the kernel on: straight into the image, on one card or two."""

from pathlib import Path

from bus.messages import Machine
from tests.buses import free_port
from tests.e2e.e2e_site import Site
from tests.e2e_boot.conftest import Start
from tests.site import STAFF_0117
from tests.virtual_pc import HOST, Card

LONG = 150
UNKNOWN = Machine(uuid="7d1c2b5e-31d4-4a7c-9b52-0d6e8a1f4c77", serial="5CG0000077")


def told(server: str, more: str) -> str:
    """The kernel's command line for a server by its address on this computer."""
    address = f"nats://{HOST}:{server.rpartition(':')[2]}"
    return f"imageinvoker.server={address} imageinvoker.then=reboot {more}"


def test_a_countdown_that_nobody_stops_lets_the_boot_go_on_and_writes_nothing(
    idle_site: Site, start: Start
) -> None:
    server = idle_site.start().nats_url
    more = "imageinvoker.timeout=12 imageinvoker.then=shell"
    pc = start(UNKNOWN, told(server, more))
    pc.wait_for("goes on starting in", LONG)
    pc.wait_for("~ #", LONG)
    pc.type("echo status=$IMAGEINVOKER_STATUS; imageinvoker --version; exit\r")
    assert pc.status(LONG) == 0, pc.text
    assert "status=0" in pc.text
    assert idle_site.rows("SELECT * FROM ii_request") == []


def test_over_the_card_that_is_alive_a_server_is_found_that_comes_up_late(
    idle_site: Site, start: Start
) -> None:
    """The PC has booted from the card that is dead; nobody presses a key."""
    port = free_port()
    dead = Card(mac="52:54:00:00:00:01", model="e1000", dead=True)
    alive = Card(mac="52:54:00:00:00:02")
    more = "imageinvoker.timeout=0 BOOTIF=01-52-54-00-00-00-01"
    pc = start(STAFF_0117, told(f":{port}", more), dead, alive)
    pc.wait_for("Nobody answers", LONG)
    idle_site.start(port=port)
    pc.wait_for("known as STAFF-0117", LONG)


def test_a_pc_without_a_link_says_so_and_goes_on_as_soon_as_it_is_plugged_in(
    idle_site: Site, start: Start, tmp_path: Path
) -> None:
    server = idle_site.start().nats_url
    # A clock that stands years before the image was made, too.
    pc = start(
        STAFF_0117,
        told(server, "imageinvoker.timeout=0"),
        monitor=tmp_path / "monitor",
        clock="2001-01-01T00:00:00",
    )
    pc.tell("set_link card0 off")
    pc.wait_for("no link", LONG)
    pc.tell("set_link card0 on")
    pc.wait_for("known as STAFF-0117", LONG)
