"""How many cold visits a second a site bears, against as many with a bare echo.

A cold visit is what a machine costs that has just booted: it connects, is welcomed, is shown the
menu, and leaves. Against that: it connects, asks the echo twice, whose answers are as large, and
leaves. Both sides are the same code with the same kind of connection, so that what the client and
the bus take is alike. The visits are such as every boot client makes: each is told of by two
events, which the bus keeps. Who names no visit is not told of; what such visits cost is a figure of
its own.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

import uvloop

from bench.echoing import echo, until_heard
from bench.harness import Figure, MeasureError, Reach, Rounds, Run, Say, per_second
from bench.site import Site, new_machine, running_site
from bus import contract, subjects
from bus.connection import Connection, connect
from bus.machines import machine_key
from bus.messages import ClientInfo, Hello, Machine, ShowMenu, encode
from bus.problems import CODE_HEADER

AT_ONCE: Final = 64
_ROUNDS: Final = 15
_VISITS: Final = 640
"""Of one round, on each side."""
_TIMEOUT: Final = 10.0
_ECHO: Final = "bench.echo.visit"
_NAMES: Final = ("welcome", "show")


@dataclass(frozen=True)
class Question:
    """What is asked in a visit, and how many bytes the answer has at least."""

    subject: str
    data: bytes
    answered: int


def _make(say: Say) -> Mapping[str, float]:
    with running_site() as site:
        return uvloop.run(_measure(site, say))


async def _measure(site: Site, say: Say) -> Mapping[str, float]:
    machines = [new_machine(number) for number in range(_VISITS)]
    connection = await connect(site.url, "bench")
    try:
        answers = [await _ask(connection, each) for each in _of_visit(site, machines[0])]
        say(f"{AT_ONCE} visits at once, answers of {len(answers[0])} and {len(answers[1])} bytes")
        with echo(site, _ECHO, dict(zip(_NAMES, answers, strict=True))):
            echoes = _of_echo(_of_visit(site, machines[0], str(uuid4())), answers)
            await until_heard(connection, echoes[0].subject)
            return await _compare(site, machines, echoes, say)
    finally:
        await connection.close()


async def _compare(
    site: Site, machines: Sequence[Machine], echoes: Sequence[Question], say: Say
) -> Mapping[str, float]:
    told = Rounds(say, "visits", "echoes", per_second)
    untold = Rounds(say, "visits not told of", "echoes", per_second)
    for number in range(_ROUNDS + 1):
        visited = await visits_a_second(
            site.url, [_of_visit(site, each, str(uuid4())) for each in machines]
        )
        echoed = await visits_a_second(site.url, [echoes] * len(machines))
        not_named = await visits_a_second(site.url, [_of_visit(site, each) for each in machines])
        if number:  # The first round warms both sides up.
            told.add(visited, echoed)
            untold.add(not_named, echoed)
    return {_TOLD.name: told.median(), _UNTOLD.name: untold.median()}


def _of_visit(site: Site, machine: Machine, visit: str | None = None) -> list[Question]:
    """What a boot client asks of the menu service."""
    key = machine_key(machine)
    client = ClientInfo(version="bench", environment="linux")
    hello = Hello(machine=machine, client=client, visit=visit)
    show = ShowMenu(machine=machine, visit=visit)
    return [
        Question(subjects.endpoint(site.name, "menu", each.verb, key), encode(asked), 1)
        for each, asked in ((contract.WELCOME, hello), (contract.SHOW, show))
    ]


def _of_echo(questions: Sequence[Question], answers: Sequence[bytes]) -> list[Question]:
    return [
        replace(each, subject=f"{_ECHO}.{name}", answered=len(answer))
        for name, each, answer in zip(_NAMES, questions, answers, strict=True)
    ]


async def visits_a_second(server: str, visits: Sequence[Sequence[Question]]) -> float:
    """How many of these visits a second are made, a fixed number at once.

    Raises:
        MeasureError: a question was answered by a problem.
    """
    waiting = iter(visits)

    async def go() -> None:
        for questions in waiting:
            connection = await connect(server, "bench")
            try:
                for question in questions:
                    await _ask(connection, question)
            finally:
                await connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(go() for _ in range(AT_ONCE)))
    return len(visits) / (time.perf_counter() - began)


async def _ask(connection: Connection, question: Question) -> bytes:
    answer = await connection.request(question.subject, question.data, timeout=_TIMEOUT)
    if (answer.headers and CODE_HEADER in answer.headers) or len(answer.data) < question.answered:
        raise MeasureError(f"{question.subject} answers {answer.data[:200]!r}")
    return answer.data


_AGAINST: Final = f"rate of connect, two echoes, leave, {AT_ONCE} at once"
_TOLD: Final = Figure(
    name="cold_visit",
    about=f"rate of cold visits (connect, welcome, show, leave) / {_AGAINST}",
    reach=Reach(">=", 0.8),
)
_UNTOLD: Final = Figure(
    name="cold_visit_untold",
    about="the same with clients that name no visit, so that no events are kept",
    reach=Reach(">=", 0.8),
)
RUN: Final = Run((_TOLD, _UNTOLD), _make)
