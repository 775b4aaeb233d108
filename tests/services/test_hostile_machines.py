"""Machines that tell odd things about themselves are served all the same."""

import msgspec

from bus.messages import Machine
from tests.site import MEMORY_TEST, Asker, Express, new_machine

ODD = {
    "null": "Dell\0Inc.",
    "escape": "\x1b[2JDell",
    "quote": 'O\'Brien "Systems"; DROP TABLE computer; --',
    "emoji": "\N{GRINNING FACE}" * 200,
    "long": "x" * 1024,
    "right-to-left": "\N{RIGHT-TO-LEFT OVERRIDE}lleD",
    "blank": " ",
}


async def test_whatever_a_machine_says_of_itself_it_gets_its_computer(
    site: Asker, express: Express
) -> None:
    for number, (case, text) in enumerate(ODD.items()):
        machine = msgspec.structs.replace(
            new_machine(number), asset_tag=text, manufacturer=text, model=text
        )
        outcome = await site.schedule(machine, MEMORY_TEST, f"ODD-{number}")

        assert outcome.state == "scheduled", (case, outcome)
        assert (await site.welcome(machine)).computer
    assert len(express.tables("computer")["computer"]) == 5 + len(ODD)


async def test_a_serial_number_of_any_characters_finds_its_computer_again(
    site: Asker, express: Express
) -> None:
    for number, serial in enumerate(["a'b\"c;--", "Ünïcode-ß", "s" * 255, "%_[a-z]", "S" * 1000]):
        machine = Machine(serial=serial, macs=(f"52:54:00:00:01:{number:02x}",))
        first = await site.schedule(machine, MEMORY_TEST, f"SER-{number}")
        second = await site.schedule(machine, MEMORY_TEST)

        assert first.computer
        assert second.computer
        assert second.computer.id == first.computer.id
    assert len(express.tables("computer")["computer"]) == 10
