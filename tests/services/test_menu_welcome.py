"""What a machine is greeted with."""

from collections.abc import Callable

import msgspec
import pytest

from bus.machines import normal_uuid, swap_uuid
from bus.messages import ComputerRef, Machine, Welcome
from tests.site import STAFF_0117, Asker, Express, eventually, new_machine, refused


@pytest.mark.parametrize(
    "machine",
    [
        Machine(uuid=STAFF_0117.uuid),
        Machine(uuid="{" + str(STAFF_0117.uuid).upper() + "}"),
        Machine(uuid=swap_uuid(normal_uuid(STAFF_0117.uuid) or "")),
        Machine(serial=" 5cg9207xk1 "),
        Machine(macs=("3c-52-82-a1-b7-01",)),
        Machine(macs=("52:54:00:00:00:99", "3C52.82A1.B701")),
        Machine(uuid="03000200-0400-0500-0006-000700080009", serial="5CG9207XK1"),
        Machine(uuid="not a uuid", serial="To be filled by O.E.M.", macs=("3c:52:82:a1:b7:01",)),
    ],
    ids=[
        "uuid",
        "braces",
        "other-order",
        "serial",
        "address",
        "second-card",
        "placeholder",
        "junk",
    ],
)
async def test_a_known_machine_is_greeted_with_its_computer(site: Asker, machine: Machine) -> None:
    welcome = await site.welcome(machine)

    assert welcome.computer == ComputerRef(id=1, name="STAFF-0117")


async def test_an_unknown_machine_is_offered_a_name(site: Asker) -> None:
    welcome = await site.welcome(new_machine(7))

    assert welcome.computer is None
    assert welcome.suggested_name == "NEW0000007"
    assert welcome.site == site.site


async def test_two_computers_that_match_equally_well_are_named_never_guessed(
    site: Asker, express: Express
) -> None:
    express.sql("UPDATE hardware SET uuid = (SELECT MAX(uuid) FROM hardware WHERE computer_id = 1)"
                " WHERE computer_id = 2")  # fmt: skip

    with refused("ambiguous_machine") as problems:
        await site.welcome(Machine(uuid=STAFF_0117.uuid))

    assert problems[0].details.computers == (
        ComputerRef(id=1, name="STAFF-0117"),
        ComputerRef(id=2, name="STAFF-0118"),
    )


async def test_leftovers_without_a_group_never_match(site: Asker, express: Express) -> None:
    express.sql("UPDATE computer SET group_id = NULL WHERE computer_id = 1")

    assert (await site.welcome(STAFF_0117)).computer is None


async def test_an_address_found_at_two_computers_identifies_neither(
    site: Asker, express: Express
) -> None:
    express.sql("UPDATE nics SET mac_addr = '3C:52:82:A1:B7:01' WHERE computer_id = 2")
    adapter = STAFF_0117.macs

    with refused("bad_machine"):
        await site.welcome(Machine(macs=adapter))
    stranger = await site.welcome(msgspec.structs.replace(new_machine(8), macs=adapter))
    second = await site.welcome(Machine(serial="5CG9207XK2", macs=adapter))

    assert stranger.computer is None
    assert second.computer == ComputerRef(id=2, name="STAFF-0118")


async def test_an_address_listed_as_shared_identifies_nothing(site: Asker) -> None:
    adapter = Machine(macs=STAFF_0117.macs)
    assert (await site.welcome(adapter)).computer

    await site.set("shared_macs", "3C-52-82-A1-B7-01")
    stranger = msgspec.structs.replace(new_machine(9), uuid=None, asset_tag=None, macs=adapter.macs)
    await eventually(lambda: _computer(site, stranger), lambda found: found is None, 1)

    with refused("bad_machine"):
        await site.welcome(adapter)


async def _computer(site: Asker, machine: Machine) -> ComputerRef | None:
    return (await site.welcome(machine)).computer


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("timeout", "0", lambda welcome: welcome.timeout == 0),
        ("idle_timeout", "90", lambda welcome: welcome.idle_timeout == 90),
        ("menu_type", "folders", lambda welcome: welcome.menu_type == "folders"),
        ("may_rename", "off", lambda welcome: not welcome.may_rename),
        ("naming", "PC-%ASSETTAG%", lambda welcome: welcome.suggested_name == "PC-T-000001"),
        ("name_max_length", "8", lambda welcome: welcome.suggested_name == "W0000001"),
        ("text.title", "Deploy!", lambda welcome: welcome.text == {"title": "Deploy!"}),
    ],
)
async def test_an_option_is_in_force_in_the_next_welcome_without_a_restart(
    site: Asker, option: str, value: str, shown: Callable[[Welcome], bool]
) -> None:
    assert not shown(await site.welcome(new_machine(1)))

    await site.set(option, value)

    await eventually(lambda: site.welcome(new_machine(1)), shown, 1)
