"""The auth service with a real domain controller: who comes in, and what the screen is told."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from bus import subjects
from bus.connection import BusUnavailableError
from bus.messages import Session
from bus.option_store import OptionStore
from bus.problems import Problem
from bus.technicians import Technician, technician_decoder, technician_key
from services.auth.program import program as auth
from tests.buses import BusServer
from tests.guarded import RIGHT, WRONG, Guarded, by_chance, protected
from tests.samba import (
    ALICE,
    BOB,
    DISABLED,
    DOMAIN,
    ERIN,
    EXPIRED,
    LOCKED,
    MUST_CHANGE,
    NETBIOS,
    DomainController,
    hanging_server,
)
from tests.site import asker, eventually, new_machine, refused, running


@pytest.fixture
async def site(bus: BusServer, controller: DomainController) -> AsyncIterator[Guarded]:
    """A site whose technicians sign in with the domain."""
    async with asker(bus.url, "main") as client, protected(client, "domain") as site:
        await site.set("domain", DOMAIN)
        await site.set("domain_controllers", controller.address)
        await site.set("domain_ca", controller.ca_file)
        await site.set("tries_per_machine", "100")
        await site.set("tries_per_account", "100")
        async with running(bus.url, "main", auth):
            yield site


async def enter(site: Guarded, user: str, password: str, machine: int = 1) -> Session:
    return await site.login(new_machine(machine), password, user)


async def known(site: Guarded, user: str) -> Technician:
    bucket = await site.connection.jetstream().key_value(subjects.TECHNICIANS)
    entry = await bucket.get(subjects.site_key(site.site, technician_key("domain", user)))
    return technician_decoder.decode(entry.value or b"")


async def test_a_member_of_the_domain_comes_in_with_all_groups(
    site: Guarded, controller: DomainController
) -> None:
    session = await enter(site, ALICE, controller.password_of(ALICE))
    assert (session.username, session.display_name) == (ALICE, "Alice Ng")
    technician = await known(site, ALICE)
    assert {"Imaging Techs", "Deploy Staff", "Everybody", "Domain Users"} <= set(technician.groups)
    await enter(site, ERIN, controller.password_of(ERIN))
    assert {"Imaging Crew", "Deploy Staff"} <= set((await known(site, ERIN)).groups)


async def test_every_way_to_write_a_name_is_one_account_to_the_counters(
    site: Guarded, controller: DomainController
) -> None:
    await site.set("tries_per_account", "3")
    forms = (ALICE, f"{NETBIOS}\\{ALICE.upper()}", f"{ALICE}@{DOMAIN.upper()}")
    for number, form in enumerate(forms):
        assert await enter(site, form, controller.password_of(ALICE), number)
    for number, form in enumerate(forms):
        with refused("login_failed"):
            await enter(site, form, WRONG, number + 10)
    for number, form in enumerate(forms):
        with refused("locked_out"):
            await enter(site, form, controller.password_of(ALICE), number + 20)


REASONS = {
    DISABLED: "disabled",
    EXPIRED: "expired",
    MUST_CHANGE: "must_change_password",
    LOCKED: "locked",
}


async def test_why_somebody_may_not_come_in_is_told_to_the_log_and_not_to_the_screen(
    site: Guarded, controller: DomainController
) -> None:
    seen = set()
    with capture_logs() as lines:
        for number, user in enumerate((*REASONS, BOB, "nobody-of-this-name")):
            password = controller.password_of(user) if user in REASONS else WRONG
            with refused("login_failed") as caught:
                await enter(site, user, password, number)
            seen.add((caught[0].message, caught[0].details))
    assert len(seen) == 1
    reasons = {line["account"]: line["reason"] for line in lines if "reason" in line}
    assert {user: reasons[user] for user in REASONS} == REASONS
    assert reasons[BOB] == "wrong_password"
    assert len(await site.events("login_failed")) == 6
    assert "reason" not in repr(await site.events())


async def test_another_domain_is_refused(site: Guarded, controller: DomainController) -> None:
    for user in (f"ELSEWHERE\\{ALICE}", f"{ALICE}@elsewhere.example", "*)(uid=*", "", "\0"):
        with refused("login_failed"):
            await enter(site, user, controller.password_of(ALICE))


async def test_an_empty_password_is_no_anonymous_bind(site: Guarded) -> None:
    for password in ("", "\0"):
        with refused("login_failed"):
            await enter(site, ALICE, password)


async def test_a_directory_that_is_gone_lets_nobody_in_and_costs_no_try(
    site: Guarded, controller: DomainController
) -> None:
    await site.set("tries_per_machine", "1")
    with controller.stopped():
        for _ in range(3):
            with refused("directory_unavailable"):
                await enter(site, ALICE, controller.password_of(ALICE))
    assert await enter(site, ALICE, controller.password_of(ALICE))
    told = [event.details["problem"] for event in await site.events("login_failed")]
    assert told == ["directory_unavailable"] * 3


async def test_a_directory_that_hangs_hangs_no_service(
    site: Guarded, controller: DomainController
) -> None:
    with controller.hanging():
        found = await asyncio.gather(
            *(enter(site, ALICE, controller.password_of(ALICE), n) for n in range(30)),
            return_exceptions=True,
        )
        # Each has an answer within the five seconds that a boot client waits.
        assert [type(each) for each in found] == [Problem] * 30
        assert {each.code for each in found if isinstance(each, Problem)} == {
            "directory_unavailable"
        }
        assert not [each for each in found if isinstance(each, BusUnavailableError)]
        # Other protections go on.
        await site.employ("ann")
        await site.set("protection", "server")

        async def own() -> bool:
            try:
                return bool(await enter(site, "ann", RIGHT))
            except Problem:
                return False

        await eventually(own, bool)
        await site.set("protection", "domain")

    async def back() -> bool:
        try:
            return bool(await enter(site, ALICE, controller.password_of(ALICE)))
        except Problem:
            return False

    await eventually(back, bool)


async def test_a_second_controller_is_asked_when_the_first_is_silent(
    site: Guarded, controller: DomainController
) -> None:
    with hanging_server() as port:
        await site.set("domain_controllers", f"127.0.0.1:{port},{controller.address}")
        for number in range(3):
            assert await enter(site, ALICE, controller.password_of(ALICE), number)


async def test_new_settings_of_the_directory_are_in_force_at_once(
    site: Guarded, controller: DomainController
) -> None:
    assert await enter(site, ALICE, controller.password_of(ALICE))
    store = await OptionStore.open(site.connection, site.site)
    await store.reset("domain_ca")

    async def problem() -> str:
        try:
            await enter(site, ALICE, controller.password_of(ALICE))
        except Problem as problem:
            return problem.code
        return ""

    # Nobody trusts the authority any more.
    assert await eventually(problem, bool) == "directory_unavailable"
    await store.reset("domain")
    assert await problem() == "directory_unavailable"


async def test_groups_are_as_the_last_sign_in_found_them(
    site: Guarded, controller: DomainController
) -> None:
    bucket = await site.connection.jetstream().key_value(subjects.TECHNICIANS)
    await enter(site, ALICE, controller.password_of(ALICE))
    key = subjects.site_key(site.site, technician_key("domain", ALICE))
    first = await bucket.get(key)
    await enter(site, ALICE, controller.password_of(ALICE))
    assert (await bucket.get(key)).revision == first.revision
    await bucket.put(key, b"something else")
    await enter(site, ALICE, controller.password_of(ALICE))
    assert (await bucket.get(key)).value == first.value


async def test_the_time_does_not_tell_whether_the_domain_has_an_account(site: Guarded) -> None:
    order = random.Random(11)
    shares: list[float] = []
    while len(shares) < 3 and (not shares or shares[-1] < 0.01):
        taken: dict[str, list[float]] = {BOB: [], "nobody-of-this-name": []}
        for number in range(12):
            for user in order.sample(sorted(taken), 2):
                began = time.perf_counter()
                with refused("login_failed"):
                    await enter(site, user, WRONG, number)
                taken[user].append(time.perf_counter() - began)
        shares.append(by_chance(*taken.values(), order))
    assert shares[-1] >= 0.01, f"differences as great come by chance in {shares} of all cases"
