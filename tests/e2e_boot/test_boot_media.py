"""PCs that start as in the field: from the network and from a disc, with a BIOS and with UEFI."""

import shutil
from pathlib import Path

from bus.messages import Machine
from tests.e2e.e2e_site import Site
from tests.e2e_boot.conftest import Start
from tests.e2e_boot.images import Image
from tests.site import STAFF_0117
from tests.virtual_pc import VARIABLES, Card

ENTER = "\r"
PASSWORD = "Kaffeetasse-2206"
LONG = 150


def test_an_unknown_pc_boots_from_the_network_and_its_technician_signs_in_picks_and_names_it(
    idle_site: Site, image: Image, start: Start
) -> None:
    """BIOS, the iPXE of its card, the script and folder as they were made."""
    idle_site.start(port=image.port)
    for command, typed in (
        (("account", "add", "alice", "--group", "Techs"), f"{PASSWORD}\n"),
        (("access", "allow", "group:techs", "all"), ""),
        (("options", "set", "protection", "server"), ""),
    ):
        assert idle_site.run(*command, typed=typed).returncode == 0
    card = Card(boots=True, more=f",tftp={image.folder},bootfile=boot.ipxe")
    machine = Machine(uuid="6f0c2b5e-31d4-4a7c-9b52-0d6e8a1f4cff", serial="NETBOOT01")
    pc = start(machine, "", card, kernel=None)
    pc.wait_for("iPXE", LONG)
    pc.wait_for("not known to the deployment server", LONG)
    pc.wait_for("waits for your choice")
    pc.type("i")
    pc.wait_for("User name", LONG)
    pc.type(f"alice{ENTER}{PASSWORD}{ENTER}")
    pc.wait_for("What is to be deployed", LONG)
    pc.type(f"exam{ENTER}")
    pc.wait_for("NOT KNOWN", LONG)
    pc.wait_for("NETBOOT01")
    pc.type(f"{chr(0x7F) * 9}7LAB-PC01{ENTER}")
    pc.wait_for("Scheduled for the new computer 7LAB-PC01", LONG)
    pc.type(ENTER)
    # Its own disk is to be next, which a BIOS cannot be told; to start again ends a virtual PC.
    pc.wait_for("cannot be told to start from its disk", LONG)
    pc.type(ENTER)
    assert pc.status(LONG) == 0
    assert idle_site.pending("7LAB-PC01") == ["1. Lay down exam image", "2. Close network"]
    assert idle_site.rows(
        "SELECT serial_num FROM hardware h JOIN computer c ON c.computer_id = h.computer_id"
        " WHERE c.name = '7LAB-PC01'"
    ) == [("NETBOOT01",)]


def test_a_known_pc_with_uefi_starts_from_the_disc_and_then_from_its_own_disk(
    idle_site: Site, image: Image, start: Start, tmp_path: Path
) -> None:
    idle_site.start(port=image.port)
    variables = Path(shutil.copy(VARIABLES, tmp_path / "uefi"))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    pc = start(STAFF_0117, "", kernel=None, disc=image.disc, disk=disk, firmware=variables)
    pc.wait_for("known as STAFF-0117", LONG)
    pc.type("i")
    pc.wait_for("What is to be deployed", LONG)
    pc.type(f"memory{ENTER}")
    pc.wait_for("known as STAFF-0117", LONG)
    pc.type(ENTER)
    pc.wait_for("Scheduled for STAFF-0117", LONG)
    pc.type(ENTER)
    assert pc.status(LONG) == 0
    assert len(idle_site.pending("STAFF-0117")) == 1
    assert "BootNext".encode("utf-16-le") in variables.read_bytes()
