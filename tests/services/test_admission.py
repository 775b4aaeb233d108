"""Who is admitted, with which rights, as the buckets stand and change."""

from collections.abc import AsyncIterator

import pytest

from bus import subjects
from bus.access import ALL_RIGHTS, make_rule, rule_key
from bus.buckets import prepare
from bus.connection import Connection
from bus.events import EventLog
from bus.messages import encode
from bus.option_store import LiveOptions, OptionStore
from bus.sessions import Claims, SessionRefused, Signer
from bus.technicians import Technician, technician_key
from services.admission import Admission
from tests.buses import BusServer
from tests.echo import KEY, until

ANN = Claims(username="Ann", protection="domain")


class Desk:
    """An admission, and whoever writes what it reads."""

    def __init__(self, connection: Connection, signer: Signer, admission: Admission) -> None:
        self.connection = connection
        self.signer = signer
        self.admission = admission

    async def know(self, *groups: str, name: str = "Ann") -> None:
        bucket = await self.connection.jetstream().key_value(subjects.TECHNICIANS)
        key = subjects.site_key("main", technician_key("domain", name))
        await bucket.put(key, encode(Technician(name=name, groups=groups)))

    async def allow(self, who: str, what: str) -> None:
        rule = make_rule(who, what, "allow")
        bucket = await self.connection.jetstream().key_value(subjects.ACCESS)
        await bucket.put(subjects.site_key("main", rule_key(rule)), encode(rule))

    def token(self, claims: Claims = ANN) -> str:
        return self.signer.session(KEY, claims).token


@pytest.fixture
async def desk(bus: BusServer, connection: Connection) -> AsyncIterator[Desk]:
    await prepare(connection.jetstream())
    store = await OptionStore.open(connection, "main")
    await store.write("protection", b'"domain"')
    options = LiveOptions(connection, "main")
    await options.start()
    signer = Signer("main")
    await signer.publish(connection)
    admission = Admission(connection, "main", options, EventLog(connection, "main"))
    await admission.start()
    yield Desk(connection, signer, admission)
    await admission.stop()
    await options.stop()


async def test_what_the_sign_in_wrote_counts_though_the_watch_has_not_shown_it(desk: Desk) -> None:
    await desk.allow("group:new", "job:7")
    await until(lambda: desk.admission.ruled_jobs == {7})
    await desk.know("old")
    first = await desk.admission.admit(desk.token(), KEY)
    assert not first.rights.jobs
    await desk.admission._people.stop()
    await desk.know("new")
    second = await desk.admission.admit(desk.signer.session(KEY, ANN, lifetime=90).token, KEY)
    assert second.rights.jobs == {(7, True)}


async def test_a_group_that_is_taken_away_counts_for_the_sessions_there_are(desk: Desk) -> None:
    await desk.allow("group:techs", "all")
    await desk.know("Techs")
    token = desk.token()
    await until(lambda: desk.admission.rights("domain", "ann").whole)
    assert (await desk.admission.admit(token, KEY)).rights.whole
    await desk.know()
    await until(lambda: not desk.admission.rights("domain", "ann").whole)
    assert not (await desk.admission.admit(token, KEY)).rights.whole


async def test_who_is_known_goes_on_to_be_known_while_the_bus_is_away(
    bus: BusServer, desk: Desk
) -> None:
    await desk.allow("user:ann", "all")
    await desk.know()
    token, other = desk.token(), desk.token(Claims(username="Bob", protection="domain"))
    await desk.admission.admit(token, KEY)
    await until(lambda: desk.admission.rights("domain", "ann").whole)
    bus.kill()
    await until(lambda: desk.connection.is_reconnecting)
    assert (await desk.admission.admit(token, KEY)).rights.whole
    with pytest.raises(SessionRefused) as caught:
        await desk.admission.admit(other, KEY)
    assert caught.value.reason == "account changed"


async def test_a_technician_who_cannot_be_read_is_nobody(desk: Desk) -> None:
    await desk.allow("user:ann", "all")
    bucket = await desk.connection.jetstream().key_value(subjects.TECHNICIANS)
    await bucket.put(subjects.site_key("main", technician_key("domain", "ann")), b"junk")
    with pytest.raises(SessionRefused):
        await desk.admission.admit(desk.token(), KEY)


async def test_names_of_one_protection_say_nothing_under_another(desk: Desk) -> None:
    await desk.allow("user:ann", "all")
    await desk.know()
    await until(lambda: desk.admission.rights("domain", "ann").whole)
    assert not desk.admission.rights("server", "ann").whole
    assert desk.admission.rights("hash", None) == ALL_RIGHTS
    assert desk.admission.rights("none", None) == ALL_RIGHTS
