"""What a machine says of itself, on Linux and on Windows, sane and insane."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.machines import machine_key
from bus.messages import Machine
from bus.problems import Problem
from client import smbios
from client.identity import machine_in, this_machine
from client.linux import linux_machine
from client.network import Card
from client.settings import WrongUseError
from client.windows import Windows, hardware_addresses, make_harmless, network_cards

UUID_TEXT = "4c4c4544-0042-3510-8052-b4c04f4d3132"


def firmware(sys_root: Path, **values: str) -> None:
    folder = sys_root / "class/dmi/id"
    folder.mkdir(parents=True)
    for name, value in values.items():
        (folder / name).write_text(value + "\n")


def card(
    sys_root: Path,
    name: str,
    address: str,
    *,
    physical: bool = True,
    kind: int = 1,
    bridge: bool = False,
    assigned: int = 0,
    plugged_into: str = "pci",
) -> None:
    folder = sys_root / "class/net" / name
    folder.mkdir(parents=True)
    (folder / "address").write_text(address + "\n")
    (folder / "type").write_text(f"{kind}\n")
    (folder / "addr_assign_type").write_text(f"{assigned}\n")
    if physical:
        (folder / "device").mkdir()
        bus = sys_root / "bus" / plugged_into
        bus.mkdir(parents=True, exist_ok=True)
        (folder / "device/subsystem").symlink_to(bus)
    if bridge:
        (folder / "bridge").mkdir()


def test_linux_shows_firmware_and_physical_cards(tmp_path: Path) -> None:
    firmware(
        tmp_path,
        product_uuid=UUID_TEXT,
        product_serial="7XK2P12",
        chassis_asset_tag="A-100",
        sys_vendor="Dell Inc.",
        product_name="OptiPlex 7010",
    )
    card(tmp_path, "lo", "00:00:00:00:00:00", physical=False, kind=772)
    card(tmp_path, "docker0", "02:42:00:00:00:01", physical=False, bridge=True)
    card(tmp_path, "veth1", "ce:00:00:00:00:01", physical=False)
    card(tmp_path, "eno1", "52:54:00:00:00:01")
    card(tmp_path, "wlan0", "52:54:00:00:00:02")
    card(tmp_path, "usb0", "de:ad:be:ef:00:01", assigned=1)
    assert linux_machine(tmp_path) == Machine(
        uuid=UUID_TEXT,
        serial="7XK2P12",
        asset_tag="A-100",
        macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
        manufacturer="Dell Inc.",
        model="OptiPlex 7010",
    )


def test_the_card_booted_from_comes_first(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        card(tmp_path, f"eth{number}", f"52:54:00:00:00:0{number}")
    macs = linux_machine(tmp_path, "52:54:00:00:00:03").macs
    assert macs == ("52:54:00:00:00:03", "52:54:00:00:00:01", "52:54:00:00:00:02")


def test_a_usb_adapter_comes_last_even_if_it_was_booted_from(tmp_path: Path) -> None:
    card(tmp_path, "enx1", "52:54:00:00:00:01", plugged_into="usb")
    card(tmp_path, "eno1", "52:54:00:00:00:02")
    card(tmp_path, "wlan0", "52:54:00:00:00:03")
    machine = linux_machine(tmp_path, "52:54:00:00:00:01")
    assert machine.macs == ("52:54:00:00:00:02", "52:54:00:00:00:03", "52:54:00:00:00:01")
    assert machine_key(machine) == "mac525400000002"


def test_a_machine_without_physical_cards_shows_its_others_but_no_bridge(tmp_path: Path) -> None:
    card(tmp_path, "lo", "00:00:00:00:00:00", physical=False, kind=772)
    card(tmp_path, "br0", "02:42:00:00:00:01", physical=False, bridge=True)
    card(tmp_path, "eth0", "ce:00:00:00:00:01", physical=False)
    assert linux_machine(tmp_path).macs == ("ce:00:00:00:00:01",)


def test_the_boards_serial_number_stands_in_for_a_placeholder(tmp_path: Path) -> None:
    firmware(tmp_path, product_serial="To be filled by O.E.M.", board_serial="BRD-77")
    assert linux_machine(tmp_path).serial == "BRD-77"


def test_a_machine_without_any_firmware_tables_is_described_by_nothing(tmp_path: Path) -> None:
    machine = linux_machine(tmp_path)
    assert machine == Machine()
    with pytest.raises(Problem, match="bad_machine"):
        machine_key(machine)


def test_junk_in_the_firmware_is_read_as_text(tmp_path: Path) -> None:
    firmware(tmp_path)
    (tmp_path / "class/dmi/id/product_serial").write_bytes(b"\xff\xfe" * 3000)
    (tmp_path / "class/dmi/id/product_uuid").mkdir()
    machine = linux_machine(tmp_path)
    assert machine.uuid is None
    assert machine.serial is not None
    assert len(machine.serial) == 1024


def test_a_file_describes_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps({"serial": "S-1", "macs": ["52:54:00:00:00:01"], "more": 1}))
    assert this_machine(file) == Machine(serial="S-1", macs=("52:54:00:00:00:01",))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"macs": "one"}', b'{"uuid": "\xff"}'])
def test_a_file_that_describes_no_machine_is_wrong_use(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(content)
    with pytest.raises(WrongUseError, match="describes no machine"):
        machine_in(file)


def test_a_missing_file_is_wrong_use_and_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUseError, match=r"absent\.json: No such file"):
        machine_in(tmp_path / "absent.json")


def structure(kind: int, body: bytes, *texts: str) -> bytes:
    area = b"".join(text.encode() + b"\0" for text in texts) or b"\0"
    return bytes([kind, len(body) + 4]) + b"\x01\x00" + body + area + b"\0"


def table() -> bytes:
    bios = structure(0, b"\x01\x02" + bytes(14), "Dell Inc.", "A17")
    system = structure(
        1,
        b"\x01\x02\x00\x03" + UUID(UUID_TEXT).bytes_le + b"\x06\x00\x00",
        "Dell Inc.",
        "OptiPlex 7010",
        "7XK2P12 ",
    )
    chassis = structure(3, b"\x01\x03\x00\x02\x03" + bytes(4), "Dell Inc.", "CH-1", "A-100")
    return bios + system + chassis + structure(127, b"")


def test_a_firmware_table_describes_the_machine() -> None:
    raw = bytes([0, 2, 7, 0]) + len(table()).to_bytes(4, "little") + table()
    assert smbios.machine(*smbios.windows_table(raw)) == Machine(
        uuid=UUID_TEXT,
        serial="7XK2P12",
        asset_tag="A-100",
        manufacturer="Dell Inc.",
        model="OptiPlex 7010",
    )


def test_a_firmware_table_before_2_6_has_its_uuid_in_network_order() -> None:
    system = structure(1, b"\x00\x00\x00\x00" + UUID(UUID_TEXT).bytes + b"\x06")
    assert smbios.machine((2, 4), system).uuid == UUID_TEXT


def test_a_firmware_table_of_the_first_kind_has_no_uuid() -> None:
    assert smbios.machine((2, 0), structure(1, b"\x01\x00\x00\x00", "Old")).uuid is None


@given(st.binary(max_size=400), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_no_firmware_table_is_too_broken_to_be_read(junk: bytes, cut: int) -> None:
    smbios.machine((2, 7), junk)
    smbios.machine((3, 0), table()[:cut] + junk)
    smbios.windows_table(junk)


def row(
    address: bytes,
    permanent: bytes,
    *,
    kind: int = 6,
    flags: int = 1,
    name: str = "Ethernet",
    index: int = 0,
    connected: int = 1,
) -> bytes:
    made = bytearray(1352)
    made[8:12] = index.to_bytes(4, "little")
    described = name.encode("utf-16-le")
    made[542 : 542 + len(described)] = described
    made[1164:1168] = connected.to_bytes(4, "little")
    made[1056:1060] = len(address).to_bytes(4, "little")
    made[1060 : 1060 + len(address)] = address
    made[1092 : 1092 + len(permanent)] = permanent
    made[1128:1132] = kind.to_bytes(4, "little")
    made[1152] = flags
    return bytes(made)


def test_windows_shows_physical_cards_by_their_permanent_addresses() -> None:
    wired, changed = bytes.fromhex("525400000001"), bytes.fromhex("02aabbccddee")
    wireless = bytes.fromhex("525400000002")
    rows = (
        row(b"", b"", kind=24),
        row(changed, wired),
        row(changed, wired, flags=2),
        row(wireless, bytes(6), kind=71),
        row(wireless, wireless, flags=0),
        row(wireless, wireless, kind=131),
    )
    raw = len(rows).to_bytes(8, "little") + b"".join(rows)
    assert hardware_addresses(raw) == ("52:54:00:00:00:01", "52:54:00:00:00:02")


def test_windows_shows_usb_adapters_last() -> None:
    adapter, built_in = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
    rows = (
        row(adapter, adapter, name="Realtek USB GbE Family Controller"),
        row(built_in, built_in, name="Intel(R) Ethernet Connection I219-LM"),
    )
    raw = len(rows).to_bytes(8, "little") + b"".join(rows)
    assert hardware_addresses(raw) == ("52:54:00:00:00:02", "52:54:00:00:00:01")


def unicast(index: int, family: int, address: bytes) -> bytes:
    made = bytearray(80)
    made[:2] = family.to_bytes(2, "little")
    at = 4 if family == 2 else 8
    made[at : at + len(address)] = address
    made[40:44] = index.to_bytes(4, "little")
    return bytes(made)


class Recorded:
    """Answers of a Windows, written down."""

    def __init__(self, firmware: bytes, cards: tuple[bytes, ...], given: tuple[bytes, ...]) -> None:
        self._firmware = firmware
        self._cards = cards
        self._given = given

    def firmware(self) -> bytes:
        return self._firmware

    def interfaces(self) -> bytes:
        return len(self._cards).to_bytes(8, "little") + b"".join(self._cards)

    def addresses(self) -> bytes:
        return len(self._given).to_bytes(8, "little") + b"".join(self._given)


def test_windows_tells_who_it_is_and_which_cards_have_links_and_addresses() -> None:
    mac = bytes.fromhex("525400000001")
    windows = Windows(
        Recorded(
            bytes([0, 2, 7, 0]) + len(table()).to_bytes(4, "little") + table(),
            (
                row(mac, mac, name="Dead", index=3, connected=2),
                row(mac, mac, name="Linked", index=4),
                row(mac, mac, name="Working", index=5),
                row(mac, mac, name="Six", index=6),
            ),
            (
                unicast(4, 2, bytes([169, 254, 1, 2])),
                unicast(5, 23, bytes.fromhex("fe80" + "00" * 14)),
                unicast(5, 2, bytes([10, 1, 2, 3])),
                unicast(6, 23, bytes.fromhex("20010db8" + "00" * 12)),
                unicast(7, 99, b""),
            ),
        )
    )
    assert windows.machine().uuid == UUID_TEXT
    assert windows.cards() == [
        Card("Dead", has_link=False),
        Card("Linked", has_link=True),
        Card("Working", has_link=True, has_address=True),
        Card("Six", has_link=True, has_address=True),
    ]


def test_a_windows_that_answers_nothing_has_no_card_and_no_name() -> None:
    silent = Windows(Recorded(b"", (), ()))
    assert (silent.machine(), silent.cards()) == (Machine(), [])


class RecordedConsole:
    """A console that remembers what was done to it."""

    def __init__(self, mode: int | None) -> None:
        self.now = mode
        self.heeds_interrupts = True

    def mode(self) -> int | None:
        return self.now

    def set_mode(self, mode: int) -> None:
        self.now = mode

    def ignore_interrupts(self) -> None:
        self.heeds_interrupts = False


def test_a_click_into_a_windows_console_does_not_stop_it() -> None:
    console = RecordedConsole(0x01F7)  # as cmd.exe has it: QuickEdit on
    make_harmless(console)
    assert console.now == 0x01B7
    assert not console.heeds_interrupts
    piped = RecordedConsole(None)
    make_harmless(piped)
    assert piped.now is None


@given(st.binary(max_size=3000))
@settings(max_examples=50, deadline=None)
def test_no_table_of_cards_is_too_broken_to_be_read(junk: bytes) -> None:
    hardware_addresses(junk)
    network_cards(junk, junk)
