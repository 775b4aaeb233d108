"""A machine that is not on the network: what the portal says, in namespaces with real cards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline import DEAD, FAR, LINKED, WORKING, alone, client, with_card

from client.linux import linux_cards
from client.network import (
    Card,
    is_here,
    leads_somewhere,
    names,
    network_trouble,
)
from client.system import system
from tests.terminal import Terminal

NO_CARD = "This computer has no network card that works."
NO_LINK = "There is no link on"
NO_ADDRESS = "no DHCP server answers"


def portal(
    machine_file: Path,
    *preparations: str,
    server: str = f"nats://{FAR}:4222",
    timeout: int = 0,
    names_from: Path | None = None,
) -> Terminal:
    """The portal on a machine with these cards and no others."""
    command = client(
        *("--server", server, "--site", "lab", "--machine", str(machine_file)),
        *("-t", str(timeout)),
    )
    return Terminal(alone(command, *preparations, names_from=names_from), os.environ)


FAULTS = {
    "no card": ([], NO_CARD),
    "no link": (with_card(DEAD, "eth0"), f"{NO_LINK} eth0."),
    "no link on two": (with_card(DEAD, "eth0") + with_card(DEAD, "eth1"), f"{NO_LINK} eth0, eth1."),
    "no address": (with_card(LINKED, "eth0"), "The network gives eth0 no address"),
    "dead and no address": (
        with_card(DEAD, "eth0") + with_card(LINKED, "eth1"),
        "The network gives eth1 no address",
    ),
    "dead and working": (
        with_card(DEAD, "eth0") + with_card(WORKING, "eth1"),
        "The server does not answer.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_the_network_is_said(machine_file: Path, fault: str) -> None:
    preparations, text = FAULTS[fault]
    with portal(machine_file, *preparations) as pc:
        screen = pc.wait_for(text, 40)
        assert "Press i for the deployment menu" in screen


@pytest.mark.parametrize("preparations", [[], with_card(LINKED, "eth0")])
def test_without_a_network_the_boot_goes_on_in_time(
    machine_file: Path, preparations: list[str]
) -> None:
    with portal(machine_file, *preparations, timeout=1) as pc:
        assert pc.status(30) == 4


def test_names_that_nobody_answers_for_do_not_hold_the_boot_up(
    machine_file: Path, tmp_path: Path
) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 203.0.113.53\noptions timeout:30 attempts:5\n")
    cards = with_card(WORKING, "eth0")
    with portal(
        machine_file, *cards, server="nats://deploy.example", timeout=1, names_from=resolver
    ) as pc:
        assert pc.status(30) == 4  # the name would be looked up for 150 s


def test_a_cable_that_is_plugged_in_meanwhile_changes_what_is_said(
    machine_file: Path, tmp_path: Path
) -> None:
    plugged = tmp_path / "plugged"
    waits = f"(while [ ! -e {plugged} ]; do sleep 0.2; done; {LINKED[2]}) &"
    with portal(machine_file, *with_card((*DEAD, waits), "eth0")) as pc:
        pc.wait_for(f"{NO_LINK} eth0.", 40)
        plugged.touch()
        pc.wait_for("The network gives eth0 no address", 40)


def with_server(folder: Path) -> list[str]:
    """A real server at the other end of the cable of eth1."""
    program = Path(sys.executable).parent / "nats-server"
    far = "nsenter --net=/proc/$far/ns/net"
    return [
        *with_card(LINKED, "eth1"),
        "ip address add 198.51.100.2/24 dev eth1",
        f"{far} ip address add 198.51.100.1/24 dev eth1",
        f"{far} {program} -a 198.51.100.1 -p 4222 -l {folder}/nats.log &",
        # Pulled out and plugged in as somebody says by files.
        f"(until [ -e {folder}/pulled ]; do sleep 0.2; done; {far} ip link set eth1 down;"
        f" until [ -e {folder}/plugged ]; do sleep 0.2; done; {far} ip link set eth1 up) &",
    ]


def test_of_two_cards_one_that_works_is_enough_until_its_cable_is_pulled(
    machine_file: Path, tmp_path: Path
) -> None:
    cards = [*with_card(DEAD, "eth0"), *with_server(tmp_path)]
    with portal(machine_file, *cards, server="nats://198.51.100.1:4222") as pc:
        pc.wait_for("The server is there", 40)
        (tmp_path / "pulled").touch()
        pc.wait_for(f"{NO_LINK} eth0, eth1.", 60)
        (tmp_path / "plugged").touch()
        pc.wait_for("The server is there", 60)


def test_without_a_screen_the_same_is_said(machine_file: Path) -> None:
    command = client(
        *("--server", f"nats://{FAR}:4222", "--machine", str(machine_file)),
        *("--item", "job:1", "-t", "3"),
    )
    done = subprocess.run(
        alone(command, *with_card(DEAD, "eth0")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert f"{NO_LINK} eth0." in done.stdout


def test_the_cards_of_this_machine_can_be_read() -> None:
    for card in system.cards():
        assert card.name
        assert card.has_link in {True, False}


@pytest.fixture
def sys_root(tmp_path: Path) -> Path:
    (tmp_path / "sys/class/net").mkdir(parents=True)
    (tmp_path / "proc/net").mkdir(parents=True)
    return tmp_path


def make_card(root: Path, name: str, carrier: str | None) -> None:
    folder = root / "sys/class/net" / name
    (folder / "device").mkdir(parents=True)
    (folder / "type").write_text("1\n")
    if carrier is not None:
        (folder / "carrier").write_text(f"{carrier}\n")


def test_links_and_addresses_of_both_kinds_are_seen(sys_root: Path) -> None:
    for name, carrier in (("a", "1"), ("b", "1"), ("c", "0"), ("d", None), ("e", "1")):
        make_card(sys_root, name, carrier)
    (sys_root / "proc/net/if_inet6").write_text(
        "fe800000000000000000000000000001 02 40 20 80        a\n"
        "20010db8000000000000000000000001 03 40 00 80        b\n"
        "20010db8000000000000000000000002 05 40 00 c0        e\n"
        "odd\n"
    )
    addresses = {"a": "169.254.1.2", "c": "10.0.0.9"}
    assert linux_cards(sys_root / "sys", sys_root / "proc", addresses.get) == [
        Card("a", has_link=True),
        Card("b", has_link=True, has_address=True),
        Card("c", has_link=False, has_address=True),
        Card("d", has_link=False),
        Card("e", has_link=True),
    ]


def test_a_machine_without_these_folders_has_no_card(tmp_path: Path) -> None:
    assert linux_cards(tmp_path / "sys", tmp_path / "proc", lambda _name: None) == []


@given(st.lists(st.builds(Card, st.sampled_from("abc"), st.booleans(), st.booleans())))
@settings(max_examples=200, deadline=None)
def test_one_card_with_link_and_address_is_enough(cards: list[Card]) -> None:
    trouble = network_trouble(cards)
    works = any(card.has_link and card.has_address for card in cards)
    assert (trouble is None) == works
    if trouble is not None:
        assert bool(names(cards, trouble)) == bool(cards)
        assert (trouble == "no_card") == (not cards)
        assert (trouble == "no_address") == any(card.has_link for card in cards)


@pytest.mark.parametrize("address", ["169.254.7.7", "0.0.0.0", "127.0.0.1", "", None, "what"])
def test_an_address_that_nobody_gave_leads_nowhere(address: str | None) -> None:
    assert not leads_somewhere(address)
    assert leads_somewhere("10.9.8.7")


@pytest.mark.parametrize(
    ("server", "here"),
    [
        ("nats://127.0.0.1:4222", True),
        ("localhost", True),
        ("tls://[::1]:4222", True),
        ("127.0.0.1,nats://deploy", False),
        ("tls://ann@deploy:4222", False),
    ],
)
def test_a_server_on_this_machine_needs_no_card(server: str, here: bool) -> None:
    assert is_here(server) == here
