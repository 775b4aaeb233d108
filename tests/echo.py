"""A question of the tests' own, asked and answered as those of the contract."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from bus.caller import Caller
from bus.contract import Endpoint
from bus.messages import Machine

MACHINE: Final = Machine(uuid="4c4c4544-0042-3510-8052-b4c04f4d3132", serial="7XK2P12")
KEY: Final = "4c4c4544004235108052b4c04f4d3132"


class Say(Struct, frozen=True, kw_only=True):
    """Asks for its text to be said again."""

    machine: Machine
    text: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """The text, said again."""

    text: str


def say(text: str = "") -> Say:
    """The question of a machine that can be told apart."""
    return Say(machine=MACHINE, text=text)


ECHO: Final = Endpoint("echo", "say", Say, Said, ())


async def echo(asked: Say, _caller: Caller) -> Said:
    """Says it again."""
    return Said(text=asked.text)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Returns when the condition holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.005)
