"""What runs in the image: consoles, devices, cards, leases and the disk's turn."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boot.linux import cards, consoles, local_disk
from boot.linux.consoles import Consoles
from boot.linux.devices import modaliases
from tests.boot_consoles import Person

LEASE = Path(cards.__file__).with_name("lease")


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        ("tty0 ttyS0\n", ["ttyS0", "tty1"]),
        ("ttyS0 tty0\n", ["tty1", "ttyS0"]),
        ("tty0\n", ["tty1"]),
        ("", ["console"]),
    ],
)
def test_the_consoles_are_those_of_the_kernels_command_line(
    active: str, expected: list[str]
) -> None:
    assert consoles.names(active) == expected


def test_a_program_is_seen_on_every_console_and_hears_each_and_its_status_is_told() -> None:
    with Person() as one, Person() as other:
        both = Consoles([one.console(), other.console()])
        program = "read a; echo one:$a; read b; echo two:$b; stty size; exit 7"
        one.types(b"first\r")
        other.types(b"second\r")
        status = both.run(lambda: subprocess.run(["sh", "-c", program], check=False).returncode)
        assert status == 7
        for person in (one, other):
            seen = person.sees()
            assert b"one:" in seen
            assert b"two:" in seen
            assert b"24 80" in seen


def test_a_console_that_takes_nothing_holds_up_nobody() -> None:
    with Person() as deaf, Person() as other:
        both = Consoles([deaf.console(), other.console()])
        program = "head -c 3000000 /dev/zero | tr '\\0' x; echo end"
        other.listens()
        status = both.run(lambda: subprocess.run(["sh", "-c", program], check=False).returncode)
        assert status == 0
        assert b"end" in other.heard()


def test_a_terminal_at_a_serial_line_says_how_large_it_is_and_what_it_knows() -> None:
    with Person() as person:
        console = person.console()
        assert (console.size, console.knows_unicode) == ((80, 24), False)
        person.types(b"\x1b[20;40R")
        assert console.typed() == b""
        person.types(b"i\x1b[1;2R")
        assert console.typed() == b"i"
        assert (console.size, console.knows_unicode) == ((40, 20), True)


def test_a_terminal_that_says_nothing_of_itself_is_typed_on_all_the_same() -> None:
    with Person() as person:
        console = person.console()
        person.types(b"i")
        assert console.typed() == b"i"


def test_the_kernels_events_tell_of_devices_that_were_added() -> None:
    event = b"add@/devices/pci0/0\0ACTION=add\0MODALIAS=pci:v00008086d0000100E\0SEQNUM=7\0"
    assert modaliases(event) == ["pci:v00008086d0000100E"]
    assert modaliases(event.replace(b"add@", b"remove@")) == []
    assert modaliases(b"") == []


def test_physical_cards_are_found_with_driver_and_link(tmp_path: Path) -> None:
    driver = tmp_path / "drivers" / "e1000e"
    driver.mkdir(parents=True)
    for name, carrier in (("eth1", "0"), ("eth0", "1"), ("eth2", None), ("lo", "1")):
        card = tmp_path / "net" / name
        card.mkdir(parents=True)
        (card / "type").write_text("772\n" if name == "lo" else "1\n")
        (card / "address").write_text(f"52:54:00:00:00:0{name[-1]}\n")
        if carrier:
            (card / "carrier").write_text(f"{carrier}\n")
        if name != "lo":
            (card / "device").mkdir()
            (card / "device" / "driver").symlink_to(driver)
    found = list(cards.seen(tmp_path / "net"))
    assert [(card.name, card.link, card.driver) for card in found] == [
        ("eth0", True, "e1000e"),
        ("eth1", False, "e1000e"),
        ("eth2", None, "e1000e"),
    ]


def test_the_lease_script_keeps_what_a_dhcp_server_told(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ip").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "ip").chmod(0o755)
    script = tmp_path / "lease"
    text = LEASE.read_text().replace("/run/imageinvoker", str(tmp_path))
    text = text.replace("/etc/resolv.conf", str(tmp_path / "resolv")).replace(
        "PATH=/usr/bin", f"PATH={tools}:/usr/bin:/bin"
    )
    script.write_text(text)
    told = {
        "interface": "eth0", "ip": "10.0.2.15", "mask": "24", "router": "10.0.2.2 10.0.2.9",
        "dns": "10.0.2.3 10.0.2.4", "ntpsrv": "10.0.2.5", "domain": "lab.example",
        "IMAGEINVOKER_METRIC": "100",
    }  # fmt: skip
    subprocess.run(["sh", script, "bound"], env=told, check=True, timeout=30)
    assert cards.lease("eth0", tmp_path) == {
        "ip": "10.0.2.15/24", "router": "10.0.2.2 10.0.2.9", "dns": "10.0.2.3 10.0.2.4",
        "ntp": "10.0.2.5",
    }  # fmt: skip
    assert (tmp_path / "resolv").read_text() == (
        "nameserver 10.0.2.3\nnameserver 10.0.2.4\nsearch lab.example\n"
    )
    assert (tmp_path / "asked").read_text().splitlines() == [
        "addr replace 10.0.2.15/24 dev eth0",
        "route replace default via 10.0.2.2 dev eth0 metric 100",
    ]
    subprocess.run(["sh", script, "deconfig"], env=told, check=True, timeout=30)
    assert cards.lease("eth0", tmp_path) == {}


def option(*nodes: tuple[int, int], active: bool = True) -> bytes:
    """A load option with such a device path (UEFI 2.10, 3.1.3)."""
    path = b"".join(struct.pack("<BBH", kind, subtype, 6) + b"xx" for kind, subtype in nodes)
    end = struct.pack("<BBH", 0x7F, 0xFF, 4)
    head = struct.pack("<IH", int(active), len(path) + 4)
    return head + "A disk".encode("utf-16-le") + b"\0\0" + path + end


NETWORK = option((2, 1), (1, 1), (3, 11), (3, 12))
DISK = option((4, 1), (4, 4))
SATA = option((2, 1), (1, 1), (3, 18))
STICK = option((2, 1), (1, 1), (3, 5))


def order(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def test_the_first_disk_of_the_firmwares_order_comes_next() -> None:
    options = {0: NETWORK, 1: STICK, 2: option((4, 1), active=False), 3: SATA, 4: DISK}
    assert local_disk.of_disk(order(0, 1, 2, 3, 4), 0, options) == 3
    assert local_disk.of_disk(order(0, 4, 3), 0, options) == 4
    assert local_disk.of_disk(order(4, 3), 4, options) == 3
    assert local_disk.of_disk(order(0, 1), 0, options) is None
    assert local_disk.of_disk(b"", None, {}) is None


@given(st.binary(max_size=60), st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_broken_variables_of_the_firmware_do_no_harm(some: bytes, junk: bytes) -> None:
    found = local_disk.of_disk(some, None, dict.fromkeys(range(300), junk))
    assert found is None or found < 300


def test_the_firmware_is_told(tmp_path: Path) -> None:
    end = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    for name, content in {
        "BootOrder": order(0, 3), "BootCurrent": order(0), "Boot0000": NETWORK, "Boot0003": DISK,
    }.items():  # fmt: skip
        (tmp_path / f"{name}{end}").write_bytes(b"\7\0\0\0" + content)
    assert local_disk.choose(tmp_path)
    assert (tmp_path / f"BootNext{end}").read_bytes() == b"\7\0\0\0\3\0"
    assert not local_disk.choose(tmp_path / "none")
