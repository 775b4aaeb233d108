"""What is said of the network before the portal, and how long the boot waits for it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from boot.linux import network, screen
from boot.linux.network import SETTLING, Card, Network
from boot.linux.screen import First
from bus.texts import TEXTS

DEAD = Card(name="eth0", address="00:00:00:00:00:01", link=False)
ASKING = Card(name="eth1", address="00:00:00:00:00:02", link=True, asked=1.0)
LEASED = Card(name="eth2", address="00:00:00:00:00:03", link=True, asked=1.0, ip="10.0.0.7")

CARDS = st.builds(
    Card,
    name=st.sampled_from(["eth0", "enp0s31f6", "usb0"]),
    address=st.just("52:54:00:12:34:56"),
    driver=st.sampled_from(["e1000e", "virtio_net", ""]),
    link=st.sampled_from([None, False, True]),
    asked=st.none() | st.floats(0, 100),
    ip=st.sampled_from(["", "10.0.2.15", "192.168.178.100"]),
    booted=st.booleans(),
)
NETWORKS = st.builds(
    Network,
    cards=st.lists(CARDS, max_size=4).map(tuple),
    leased=st.none() | st.floats(0, 100),
    at=st.floats(0, 200),
)


def seen(*cards: Card, at: float, leased: float | None = None) -> Network:
    return Network(cards=cards, at=at, leased=leased)


def test_a_card_with_an_address_is_enough() -> None:
    assert network.state(seen(DEAD, ASKING, LEASED, at=2.0, leased=1.5)) == "up"


def test_the_card_booted_from_is_preferred_but_not_waited_for_long() -> None:
    booted = Card(name="eth1", address=ASKING.address, link=True, asked=1.0, booted=True)
    assert network.state(seen(booted, LEASED, at=2.0, leased=1.5)) == "no_address"
    assert network.state(seen(booted, LEASED, at=4.6, leased=1.5)) == "up"
    assert network.metric(booted, 0) < network.metric(LEASED, 1)


def test_a_card_booted_from_that_has_lost_its_link_is_not_waited_for() -> None:
    booted = Card(name="eth0", address=DEAD.address, link=False, booted=True)
    assert network.state(seen(booted, LEASED, at=2.0, leased=1.5)) == "up"


def test_without_card_or_link_the_portal_comes_up_once_that_is_sure() -> None:
    assert network.state(seen(at=1.0)) == "starting"
    assert network.state(seen(DEAD, at=1.0)) == "starting"
    for state, cards in (("no_card", ()), ("no_link", (DEAD,))):
        found = seen(*cards, at=SETTLING)
        assert network.state(found) == state
        assert network.waits(found, 30) == 0


@given(NETWORKS, st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_the_boot_never_waits_beyond_its_patience(found: Network, patience: int) -> None:
    left = network.waits(found, patience)
    assert 0 <= left <= max(patience - (found.at - found.began), 0)
    assert network.state(found) != "up" or left == 0


@given(NETWORKS | st.none(), st.text(max_size=40), st.integers(1, 200), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_the_screen_fits_every_terminal(
    found: Network | None, site: str, columns: int, rows: int
) -> None:
    lines = screen.first_screen(First("nats://10.0.0.1:4222", site), found, columns, rows)
    assert len(lines) == max(rows, screen.SMALLEST[1])
    assert all(len(line) <= max(columns, screen.SMALLEST[0]) for line in lines)
    assert all(" " <= char <= "~" for line in lines for char in line)
    screen.drawn(lines).decode("ascii")


def test_the_first_screen_says_what_is_wrong_and_what_to_do_and_which_key_opens_the_menu() -> None:
    first = First("nats://10.0.0.1:4222", "london")
    text = "\n".join(screen.first_screen(first, seen(DEAD, at=SETTLING), 80, 25))
    assert "No network card has a link." in text
    assert "Is the cable plugged in" in text
    assert "eth0    00:00:00:00:00:01" in text
    assert TEXTS["countdown"] in text
    assert "london" in text.splitlines()[0]
    lines = screen.first_screen(first, seen(DEAD, at=SETTLING), 40, 16)
    assert "Is the cable plugged in, at both ends?" in " ".join("\n".join(lines).split())


def test_while_all_is_well_it_is_the_portals_own_first_screen() -> None:
    first = First("nats://10.0.0.1:4222", waits=True)
    for found in (None, seen(LEASED, at=2.0, leased=1.5)):
        text = "\n".join(screen.first_screen(first, found, 80, 25))
        assert "Looking for the deployment service at nats://10.0.0.1:4222 ..." in text
        assert TEXTS["countdown_waits"] in text
        assert "eth2" not in text


def test_where_nothing_is_asked_no_key_is_named() -> None:
    lines = screen.first_screen(First("nats://x", asks=False), None, 80, 25)
    assert not any("Press i" in line for line in lines)
