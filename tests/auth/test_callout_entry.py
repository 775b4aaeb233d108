"""Who comes on the bus as a boot client, on a real server that asks the auth service."""

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import nats.errors
import pytest
from prometheus_client import generate_latest

from bus import subjects
from bus.boot_credential import BootCredential
from bus.boot_signing import issue
from bus.connection import Connection, connect
from bus.contract import LOGIN, WHERE
from bus.door import RefusedError
from bus.events import Event, event_decoder
from bus.machines import machine_key
from bus.messages import Login, encode
from bus.nkeys import KeyPair
from bus.option_store import OptionStore
from bus.options import PASSWORD, parse
from bus.revocations import RevocationStore
from services.auth.callout_keys import CalloutKeysError, read_callout_keys
from services.auth.overseer import Overseer, _Page
from services.auth.passwords import Passwords
from services.auth.presences import Bounds
from services.running import Site
from tests.guests import ESTATE, Entry, guest, plain_guest, refused, secured, soon
from tests.site import Asker, eventually, new_machine

HOUR = 3600


@pytest.fixture
async def entry(tmp_path: Path) -> AsyncIterator[Entry]:
    entry = secured(tmp_path)
    entry.server.start()
    try:
        yield entry
    finally:
        entry.server.stop()


async def told(connection: Connection, site: str = "main") -> list[Event]:
    """The refusals that the audit knows."""
    kept = await Asker(connection, site).kept(
        subjects.EVENTS, subjects.event(site, kind="connection_refused")
    )
    return [event_decoder.decode(each) for each in kept]


def counted(site: Site) -> dict[str, float]:
    """How many were decided on, by what was decided."""
    lines = generate_latest(site.registry).decode().splitlines()
    start = 'imageinvoker_callout_total{result="'
    found = (line.removeprefix(start) for line in lines if line.startswith(start))
    return {
        line.partition('"')[0]: float(line.rpartition(" ")[2])
        for line in found
        if not line.endswith(" 0.0")
    }


def present(site: Site) -> float | None:
    return site.registry.get_sample_value("imageinvoker_boot_clients", {"site": site.name})


async def test_a_machine_with_a_good_credential_comes_in_and_is_answered(entry: Entry) -> None:
    async with entry.open() as (site,), guest(entry) as machine:
        subject = subjects.endpoint(subjects.ESTATE, "auth", WHERE.verb, machine.key)
        answer = await machine.connection.request(
            subject, encode(WHERE.asked(machine=machine.machine)), timeout=5
        )
        assert WHERE.answered_decoder.decode(answer.data).site == "main"
        assert machine.complaints == []
        assert counted(site) == {"ok": 1}
        await soon(lambda: present(site) == 1)
    assert entry.violations() == []


async def test_who_has_no_good_credential_stays_outside_and_is_told_of(entry: Entry) -> None:
    now = int(time.time())
    stranger = KeyPair.generate("account")
    forged = BootCredential(estate=ESTATE, image="win11", issued=now, expires=now + HOUR)
    other = BootCredential(estate="south", image="win11", issued=now, expires=now + HOUR)
    async with entry.insider() as insider, entry.open() as (site,):
        assert await (await RevocationStore.open(insider)).revoke("leaked", datetime.now(UTC))
        for token, machine, reason in (
            (entry.issue(issued=now - 2 * HOUR, expires=now - HOUR), None, "expired"),
            (entry.issue(issued=now + HOUR, expires=now + 2 * HOUR), None, "not_yet_valid"),
            (issue(stranger, other), None, "other_estate"),
            (issue(stranger, forged), None, "forged"),
            ("nonsense", None, "malformed"),
            (entry.issue("leaked"), None, "revoked"),
            (entry.issue(), "not-a-machine", "bad_machine"),
            (entry.issue(), "0" * 32, "bad_machine"),
            (entry.issue(), ">", "bad_machine"),
        ):
            before = counted(site).get(reason, 0)
            await refused(entry, token, key=machine)
            await soon(lambda: counted(site).get(reason, 0) > before)  # noqa: B023
            assert f"returned an error: {reason}" in entry.server.log
        assert "ok" not in counted(site)
        (first,) = await eventually(lambda: told(insider), bool)
        assert first.details == {"reason": "expired", "address": "127.0.0.1", "more": 0}
        assert first.machine == machine_key(new_machine(1))


async def test_without_a_word_of_the_auth_service_nobody_comes_in(entry: Entry) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4), guest(entry):
            pass


async def test_a_good_credential_comes_in_again_by_itself_when_its_time_is_up(
    entry: Entry,
) -> None:
    async with entry.open(lifetime=2) as (site,), guest(entry) as machine:
        back = asyncio.Event()
        machine.connection.on_reconnect(back.set)
        async with asyncio.timeout(15):
            await back.wait()
        await machine.is_on()
        assert counted(site)["ok"] == 2


async def test_nobody_stays_longer_than_the_credential_is_good(entry: Entry) -> None:
    async with entry.open():
        end = int(time.time()) + 6
        async with guest(entry, token=entry.issue(expires=end)) as machine:
            gone = asyncio.Event()
            machine.connection.on_disconnect(gone.set)
            async with asyncio.timeout(20):
                await gone.wait()
            assert time.time() >= end


async def test_a_revoked_image_is_out_at_once_and_the_others_stay(entry: Entry) -> None:
    async with entry.insider() as insider, entry.open(copies=2):
        images = await RevocationStore.open(insider)
        async with (
            guest(entry, 1, token=entry.issue("leaked")) as out,
            guest(entry, 2, token=entry.issue("kept")) as stays,
        ):
            gone, disturbed = asyncio.Event(), asyncio.Event()
            out.connection.on_disconnect(gone.set)
            stays.connection.on_disconnect(disturbed.set)
            await images.revoke("leaked", datetime.now(UTC))
            async with asyncio.timeout(5):
                await gone.wait()
            await soon(lambda: any("does not let" in each for each in out.complaints))
            assert not out.connection.is_connected
            await stays.is_on()
            assert not disturbed.is_set()
            assert await images.read() == ["leaked"]
            assert await images.reinstate("leaked")
            await soon(lambda: out.connection.is_connected)


async def test_what_was_revoked_while_nobody_watched_is_ended_when_the_service_is_back(
    entry: Entry,
) -> None:
    async with entry.insider() as insider:
        async with entry.open():
            machine = await plain_guest(entry, 1, entry.issue("leaked"))
        assert machine.is_connected
        await (await RevocationStore.open(insider)).revoke("leaked", datetime.now(UTC))
        async with entry.open():
            await soon(lambda: machine.is_closed)


async def test_a_new_copy_disturbs_nobody_whom_another_has_let_in(entry: Entry) -> None:
    async with entry.insider() as insider:
        async with entry.open():
            images = await RevocationStore.open(insider)
            await images.revoke("other", datetime.now(UTC))
            machine = await plain_guest(entry, 1, entry.issue())
        async with entry.open() as (site,):
            await soon(lambda: present(site) == 1)
            await machine.flush()
            await machine.close()


async def test_who_goes_while_it_is_counted_hides_nobody_else(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.overseer._PAGE", 4)
    monkeypatch.setattr("services.auth.overseer._STEP", 2)
    asked = Overseer._ask

    async with entry.open() as (first,):
        inside = [await plain_guest(entry, number, entry.issue()) for number in range(8)]

        async def ask(overseer: Overseer, offset: int) -> list[_Page]:
            found = await asked(overseer, offset)
            if len(inside) > 5:
                await inside.pop(0).close()
                await soon(lambda: present(first) == len(inside))
            return found

        monkeypatch.setattr(Overseer, "_ask", ask)
        async with entry.open() as (counting,):
            assert present(counting) == len(inside) == 5
        for each in inside:
            await each.close()


async def test_of_a_machines_connections_the_oldest_give_way_whichever_copy_lets_them_in(
    entry: Entry,
) -> None:
    async with entry.open(copies=2, bounds=Bounds(of_machine=3)) as sites:
        token = entry.issue()
        old = [await plain_guest(entry, 1, token) for _ in range(3)]
        for site in sites:
            await soon(lambda: present(site) == 3)  # noqa: B023
        other = await plain_guest(entry, 2, token)
        new = [await plain_guest(entry, 1, token) for _ in range(2)]
        await soon(lambda: sum(each.is_connected for each in old) == 1)
        for each in (*new, other, old[2]):
            await each.flush()
        for each in (*new, other, *old):
            await each.close()
        for site in sites:
            await soon(lambda: present(site) == 0)  # noqa: B023


async def test_of_an_image_no_more_come_in_than_may_whichever_copy_is_asked(entry: Entry) -> None:
    async with entry.open(copies=2, bounds=Bounds(of_image=3)) as sites:
        inside = [await plain_guest(entry, n, entry.issue("lab")) for n in range(3)]
        for site in sites:
            await soon(lambda: present(site) == 3)  # noqa: B023
        await asyncio.gather(*(refused(entry, entry.issue("lab"), number=9) for _ in range(4)))
        assert sum(counted(site).get("too_many", 0) for site in sites) >= 4
        await (await plain_guest(entry, 10, entry.issue("office"))).close()
        await inside.pop().close()
        for site in sites:
            await soon(lambda: present(site) == 2)  # noqa: B023
        inside.append(await plain_guest(entry, 9, entry.issue("lab")))
        for each in inside:
            await each.close()


async def test_who_is_kept_out_for_a_while_is_not_told_that_its_credential_is_bad(
    entry: Entry,
) -> None:
    key = machine_key(new_machine(2))
    told: asyncio.Queue[Exception] = asyncio.Queue()
    async with entry.open(bounds=Bounds(of_image=1)), guest(entry, 1) as first:
        coming = asyncio.create_task(
            connect(
                entry.server.url,
                key,
                inbox=subjects.inbox(key),
                report=told.put,
                door=entry.door(key, entry.issue()),
            )
        )
        error = await asyncio.wait_for(told.get(), 10)
        assert isinstance(error, RefusedError)
        assert error.refusal == "slow"
        await first.connection.close()
        connection = await asyncio.wait_for(coming, 20)
        await connection.close()


async def test_copies_come_and_go_and_nobody_who_boots_is_turned_away(entry: Entry) -> None:
    stop = asyncio.Event()
    came = 0

    async def boot(number: int) -> None:
        nonlocal came
        while not stop.is_set():
            connection = await plain_guest(entry, number, entry.issue())
            came += 1
            await connection.close()

    async with entry.open():
        booting = [asyncio.create_task(boot(number)) for number in range(4)]
        try:
            for _ in range(3):
                before = came
                async with entry.open():
                    await soon(lambda: came > before + 20)  # noqa: B023
        finally:
            stop.set()
            await asyncio.gather(*booting)


async def test_who_guesses_is_told_of_once_a_minute_and_locked_and_keeps_nobody_out(
    entry: Entry,
) -> None:
    async with entry.insider() as insider, entry.open() as (site,):
        store = await OptionStore.open(insider, "main")
        await store.write("tries_per_address", parse("tries_per_address", "5"))
        guessing = [asyncio.create_task(_guess(entry, number)) for number in range(40)]
        await asyncio.gather(*guessing)
        await soon(lambda: "address" in _locked(site))
        await asyncio.gather(*(_guess(entry, number) for number in range(40)))
        assert counted(site)["locked_out"] > 0
        events = await told(insider)
        assert len(events) <= 2
        async with guest(entry, 2) as machine:
            await machine.is_on()


async def test_a_login_is_counted_for_the_address_from_which_its_machine_came(
    entry: Entry,
) -> None:
    async with entry.insider() as insider, entry.open():
        passwords = Passwords()
        store = await OptionStore.open(insider, "main")
        await store.write(PASSWORD, (await passwords.hash("open sesame")).encode())
        await store.write("protection", parse("protection", "hash"))
        await passwords.close()
        async with guest(entry) as machine:
            subject = subjects.endpoint("main", "auth", LOGIN.verb, machine.key)
            question = encode(Login(machine=machine.machine, password="wrong"))

            async def failed() -> bytes:
                return (await machine.connection.request(subject, question, timeout=5)).data

            await eventually(failed, lambda answer: b"login_failed" in answer)
            kept = await Asker(insider, "main").kept(
                subjects.EVENTS, subjects.event("main", kind="login_failed")
            )
            assert json.loads(kept[-1])["details"]["address"] == "127.0.0.1"


async def test_the_service_says_that_it_is_not_well_when_the_server_cannot_ask(
    entry: Entry,
) -> None:
    async with entry.open() as (site,):
        site.health.serving = True
        async with site.health.answered():
            assert await asyncio.to_thread(site.health.missing) == []
            entry.server.stop()
            found = await asyncio.to_thread(site.health.missing)
            assert "the callout does not answer" in found
            assert "the system account does not answer" in found
            entry.server.start()
            await soon(lambda: bool(site.connection.is_connected))
            async with guest(entry) as machine:
                await machine.is_on()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("auth.seed", None),
        ("auth.seed", "nonsense"),
        ("boot-signing.seed", KeyPair.generate("user").seed),
        ("boot.pub", "nonsense"),
        ("account.pub", KeyPair.generate("user").public),
        ("estate", ""),
        ("callout.creds", None),
    ],
    ids=["no key", "no seed", "a user's seed", "no public key", "a user's key", "empty", "none"],
)
def test_a_folder_of_keys_that_is_not_fit_is_refused_with_the_cure(
    tmp_path: Path, name: str, content: str | None
) -> None:
    entry = secured(tmp_path)
    file = entry.folder / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(CalloutKeysError, match=f"{name}.* copy ") as info:
        read_callout_keys(entry.folder)
    assert not content or content not in str(info.value)


def test_a_seed_that_others_may_read_is_refused(tmp_path: Path) -> None:
    entry = secured(tmp_path)
    (entry.folder / "auth.seed").chmod(0o644)
    with pytest.raises(CalloutKeysError, match="chmod 600"):
        read_callout_keys(entry.folder)


async def _guess(entry: Entry, number: int) -> None:
    forged = BootCredential(
        estate=ESTATE, image="win11", issued=int(time.time()), expires=int(time.time()) + HOUR
    )
    token = issue(KeyPair.generate("account"), forged)
    await refused(entry, token, number=number)


def _locked(site: Site) -> list[str]:
    lines = generate_latest(site.registry).decode().splitlines()
    return [
        "address"
        for line in lines
        if line.startswith('imageinvoker_login_locks_total{scope="address"')
        and not line.endswith(" 0.0")
    ]


async def test_the_command_lets_boot_clients_in_by_a_folder_of_keys(entry: Entry) -> None:
    told = {
        "IMAGEINVOKER_SERVER": entry.server.url,
        "IMAGEINVOKER_SITE": entry.site,
        "IMAGEINVOKER_CREDENTIALS": str(entry.server.credentials("auth")),
        "IMAGEINVOKER_CA": str(entry.server.ca),
    }
    command = (sys.executable, "-m", "cli", "auth", "--callout-keys")
    wrong = await asyncio.create_subprocess_exec(
        *command, str(entry.server.folder / "nowhere"), env=os.environ | told, stderr=PIPE
    )
    _, said = await asyncio.wait_for(wrong.communicate(), 30)
    assert wrong.returncode == 2
    assert "callout.creds cannot be read" in said.decode()

    running = await asyncio.create_subprocess_exec(
        *command, str(entry.folder), env=os.environ | told, stderr=DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    await (await plain_guest(entry, 1, entry.issue())).close()
                    break
    finally:
        running.terminate()
        assert await running.wait() == 0
