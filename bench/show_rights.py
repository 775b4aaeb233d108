"""How many menus a second the menu service shows where each technician may deploy something else.

200 technicians with accounts of the site, each signed in at a machine of its own, share a tree of
20,000 jobs. Each is in the groups of three faculties and has a rule of its own that takes a
department away again, so that no two see the same. What is compared is as in `show_rate`: the echo
knows the 200 answers by the key of the machine that asks.
"""

import asyncio
import functools
import itertools
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import uvloop
from argon2 import PasswordHasher

from bench.harness import MeasureError, Reach, Say, one_figure
from bench.show_rate import IN_FLIGHT, Exchange, compare, show
from bench.site import Site, new_machine, protect, running_site
from bench.trees import fill, large_tree
from bus import contract, subjects
from bus.access import Rule, make_rule, rule_key
from bus.connection import Connection, ask, connect
from bus.machines import machine_key
from bus.messages import Login, encode
from engine.tree import Folder
from services.auth.accounts import Account, Accounts

_TECHNICIANS: Final = 200
_FACULTIES: Final = 3
"""Of which each technician is in the group."""
_SMALLER: Final = 5
"""Times that the tree of `menu_build` is larger."""
_PASSWORD: Final = "Messbecher-0417"
_SETTLES_WITHIN: Final = 30.0


def _make(say: Say) -> float:
    jobs, folders = large_tree(_SMALLER)
    tagged = sum("(MI)" in name for name in (*(j.name for j in jobs), *(f.name for f in folders)))
    say(f"{len(jobs):,} jobs in {len(folders):,} folders, {tagged:,} of both are tagged")
    with running_site(functools.partial(fill, jobs=jobs, folders=folders)) as site:
        return uvloop.run(_measure(site, folders, say))


async def _measure(site: Site, folders: Sequence[Folder], say: Say) -> float:
    technicians, rules = _staff(folders)
    connection = await connect(site.url, "bench")
    try:
        await protect(connection, site, "server")
        await _employ(connection, site, technicians)
        await _put_in_force(connection, site, rules)
        exchanges = await _menus(connection, site, await _sign_in(connection, site, technicians))
        items = [each.items for each in exchanges]
        say(
            f"{len(exchanges)} different menus of {min(items)} to {max(items)} items, "
            f"{statistics.median(len(each.answer) for each in exchanges):,.0f} bytes in the median"
        )
        return (await compare(connection, site, exchanges, say)).rate
    finally:
        await connection.close()


def _staff(folders: Sequence[Folder]) -> tuple[dict[str, list[str]], list[Rule]]:
    """The groups of each technician by name, in the order of their machines, and all rules."""
    faculties = [folder for folder in folders if folder.name.startswith("Faculty")]
    departments = [folder for folder in folders if folder.name.startswith("Department")]
    trios = list(itertools.combinations(faculties, _FACULTIES))
    technicians: dict[str, list[str]] = {}
    rules = [make_rule(f"group:{_group(each)}", f"folder:{each.id}", "allow") for each in faculties]
    for number in range(_TECHNICIANS):
        name = f"technician-{number:03}"
        trio = trios[number * len(trios) // _TECHNICIANS]
        technicians[name] = [_group(each) for each in trio]
        inside = [each for each in departments if each.parent_id == trio[0].id]
        denied = inside[number % len(inside)]
        rules.append(make_rule(f"user:{name}", f"folder:{denied.id}", "deny"))
    return technicians, rules


def _group(faculty: Folder) -> str:
    return f"Technicians of {faculty.id}"


async def _employ(
    connection: Connection, site: Site, technicians: Mapping[str, Sequence[str]]
) -> None:
    """Makes the accounts, all with one password."""
    accounts = await Accounts.open(connection, site.name)
    # As cheap as can be: what hashes cost is the figure `login_burst`.
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(_PASSWORD)
    for name, groups in technicians.items():
        account = Account(
            name=name, password_hash=password_hash, display_name=None, created_at=datetime.now(UTC)
        )
        await accounts.add(account, groups)


async def _put_in_force(connection: Connection, site: Site, rules: Iterable[Rule]) -> None:
    bucket = await connection.jetstream().key_value(subjects.ACCESS)
    for rule in rules:
        await bucket.put(subjects.site_key(site.name, rule_key(rule)), encode(rule))


async def _sign_in(connection: Connection, site: Site, technicians: Iterable[str]) -> list[str]:
    """The session of each technician, at the machine of the same number."""
    tokens: list[str] = []
    for number, name in enumerate(technicians):
        machine = new_machine(number)
        login = Login(machine=machine, username=name, password=_PASSWORD)
        session = await ask(connection, site.name, contract.LOGIN, machine_key(machine), login)
        tokens.append(session.token)
    return tokens


async def _menus(connection: Connection, site: Site, tokens: Sequence[str]) -> list[Exchange]:
    """The menu of each technician, once all rules are in force.

    Raises:
        MeasureError: the menus go on changing, or two technicians see the same.
    """
    give_up = time.monotonic() + _SETTLES_WITHIN
    before: list[Exchange] = []
    while time.monotonic() < give_up:
        now = [
            await show(connection, site.name, new_machine(number), token)
            for number, token in enumerate(tokens)
        ]
        if now == before:
            break
        before = now
        await asyncio.sleep(0.1)
    else:
        raise MeasureError("the menus go on changing")
    different = len({each.answer for each in now})
    if different < len(now):
        raise MeasureError(f"{len(now)} technicians see only {different} different menus")
    return now


RUN: Final = one_figure(
    name="show_rights",
    about=f"rate of showing menus to {_TECHNICIANS} technicians with different rights / "
    f"rate of a bare echo, {IN_FLIGHT} in flight",
    reach=Reach(">=", 0.75),
    make=_make,
)
