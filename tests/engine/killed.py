"""Carries orders out until it is killed, and says which are done: `python -m tests.engine.killed`.

Its arguments are an engine's address and the number of its first machine.
"""

import asyncio
import sys
from itertools import count
from typing import Final

from engine.finding import find
from tests.engine.test_engine_contract import carried, order
from tests.site import new_machine

_SIDE_BY_SIDE: Final = 4


async def main(address: str, first: int) -> None:
    """Carries orders out for ever."""
    engine = find(address).open("lab")

    async def work(start: int) -> None:
        for number in count(start, _SIDE_BY_SIDE):
            outcome = await carried(engine, order(new_machine(number)))
            sys.stdout.write(f"{outcome.request_id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(work(first + each) for each in range(_SIDE_BY_SIDE)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
