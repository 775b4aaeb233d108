"""A technician at a PC: the boot client in a real terminal, against a whole site."""

import os
import signal
import uuid

import pytest

from bus.messages import Machine
from tests.buses import free_port
from tests.e2e.e2e_site import OpenPortal, Site

ESCAPE = "\x1b"
ENTER = "\r"
BACKSPACE = "\x7f"
DOWN = "\x1b[B"


def new_machine(serial: str = "5CG1234XYZ") -> Machine:
    return Machine(uuid=str(uuid.uuid4()), serial=serial, macs=("00:1A:4B:16:01:59",))


def test_a_new_pc_is_named_and_gets_the_jobs_of_the_picked_item(
    site: Site, boot: OpenPortal
) -> None:
    before = site.rows("SELECT * FROM computer"), site.rows("SELECT * FROM event_schedule")
    pc = boot(new_machine(), "-t", "0")
    pc.wait_for("not known to the deployment server")
    pc.type("x ")
    pc.type("i")
    pc.wait_for("What is to be deployed")
    pc.type("exam")
    pc.wait_for("1 of 1")
    pc.type(ENTER)
    pc.wait_for("NOT KNOWN")
    pc.wait_for("5CG1234XYZ")
    pc.type(BACKSPACE * 10 + "7LAB-PC01" + ENTER)
    screen = pc.wait_for("Scheduled for the new computer 7LAB-PC01")
    assert "1. Lay down exam image" in screen
    assert "2. Close network" in screen
    pc.type(ENTER)
    assert pc.status() == 0
    assert site.pending("7LAB-PC01") == ["1. Lay down exam image", "2. Close network"]
    # Nothing was done to any other computer.
    assert [row for row in site.rows("SELECT * FROM computer") if "7LAB-PC01" not in row] == (
        before[0]
    )
    assert len(site.rows("SELECT * FROM event_schedule")) == len(before[1]) + 2


def test_a_pc_that_boots_again_is_known_and_a_new_pick_replaces_what_was_pending(
    site: Site, boot: OpenPortal
) -> None:
    machine = new_machine()
    assert site.run("client", "--machine", site.machine_file(machine), "--item", "Exam Mode",
                    "--name", "LAB-1").returncode == 0  # fmt: skip
    pc = boot(machine, "-t", "0")
    pc.wait_for("known as LAB-1")
    pc.type("i")
    pc.wait_for("What is to be deployed")
    pc.type("memory" + ENTER)
    pc.wait_for("This computer is known as LAB-1")
    pc.type(BACKSPACE + "2" + ENTER)
    screen = pc.wait_for("Scheduled for LAB-2 (was LAB-1)")
    assert "replaced: 2" in screen
    assert pc.status() == 0
    assert site.pending("LAB-1") == []
    assert len(site.pending("LAB-2")) == 1


def test_a_countdown_that_nobody_stops_lets_the_boot_go_on_and_writes_nothing(
    site: Site, boot: OpenPortal
) -> None:
    pc = boot(new_machine(), "/t", "2")
    pc.wait_for("goes on starting in")
    pc.type("abc" + ESCAPE + ENTER)
    assert pc.status() == 0
    assert site.rows("SELECT * FROM ii_request") == []


def test_a_password_is_asked_three_times_and_then_there_is_no_entry(
    site: Site, boot: OpenPortal
) -> None:
    assert site.run("options", "set", "protection", "hash").returncode == 2, "no password yet"
    assert site.run("options", "password", typed="open sesame\n").returncode == 0
    assert site.run("options", "set", "protection", "hash").returncode == 0
    machine = new_machine()
    pc = boot(machine, "-t", "0")
    pc.wait_for("Press i")
    pc.type("i")
    pc.wait_for("Sign in")
    for left in ("2", "1"):
        pc.type("Fehlversuch" + ENTER)
        pc.wait_for(f"Tries left: {left}")
    pc.type("Fehlversuch" + ENTER)
    pc.wait_for("No entry")
    pc.type(ENTER)
    assert pc.status() == 3
    again = boot(machine, "-t", "0")
    again.wait_for("Press i")
    again.type("i")
    again.wait_for("Sign in")
    again.type("open sesame" + ENTER)
    again.wait_for("No entry")
    other = boot(new_machine("OTHER-1"), "-t", "0")
    other.wait_for("Press i")
    other.type("i")
    other.wait_for("Sign in")
    other.type("open sesame" + ENTER)
    screen = other.wait_for("What is to be deployed")
    assert "sesame" not in screen
    logs = site.logs()
    assert "sesame" not in logs
    assert "Fehlversuch" not in logs


def test_another_computers_name_comes_back_to_the_name_screen(site: Site, boot: OpenPortal) -> None:
    taken = str(site.rows("SELECT name FROM computer WHERE group_id IS NOT NULL")[0][0])
    pc = boot(new_machine(), "-t", "0")
    pc.wait_for("Press i")
    pc.type("i")
    pc.wait_for("What is to be deployed")
    pc.type(ENTER)
    pc.wait_for("NOT KNOWN")
    pc.type(BACKSPACE * 10 + taken.lower() + ENTER)
    pc.wait_for("Another computer is called")
    pc.type(BACKSPACE * 15 + "FREE-NAME" + ENTER)
    pc.wait_for("Scheduled for the new computer FREE-NAME")


def test_options_are_in_force_at_the_next_boot_without_a_restart(
    site: Site, boot: OpenPortal
) -> None:
    assert site.run("options", "set", "menu_type", "folders").returncode == 0
    assert site.run("options", "set", "text.countdown", "Druecken Sie i").returncode == 0
    pc = boot(new_machine(), "-t", "0")
    pc.wait_for("Druecken Sie i")
    pc.type("i")
    screen = pc.wait_for("What is to be deployed")
    assert "Deploy" in screen


@pytest.mark.parametrize("part", ["menu", "scheduler", "nats-server"])
def test_a_part_that_is_killed_in_the_middle_is_back_and_the_pick_is_done_once(
    site: Site, boot: OpenPortal, part: str
) -> None:
    pc = boot(new_machine(), "-t", "0")
    pc.wait_for("Press i")
    pc.type("i")
    pc.wait_for("What is to be deployed")
    pc.type("exam" + ENTER)
    pc.wait_for("NOT KNOWN")
    os.kill(site.child(part), signal.SIGKILL)
    pc.type(ENTER)
    pc.wait_for("Scheduled for the new computer 5CG1234XYZ", 40)
    assert pc.status() == 0
    assert site.pending("5CG1234XYZ") == ["1. Lay down exam image", "2. Close network"]


def test_a_site_that_comes_up_late_is_waited_for(idle_site: Site, boot: OpenPortal) -> None:
    port = free_port()
    pc = boot(new_machine(), "--server", f"nats://127.0.0.1:{port}", "-t", "0")
    pc.wait_for("Looking for the deployment service")
    idle_site.start(port=port)
    pc.wait_for("not known to the deployment server", 30)


def test_no_site_at_all_lets_the_boot_go_on_with_a_status_that_says_so(
    boot: OpenPortal,
) -> None:
    pc = boot(new_machine(), "--server", f"nats://127.0.0.1:{free_port()}", "-t", "2")
    pc.wait_for("Looking for the deployment service")
    assert pc.status() == 4
