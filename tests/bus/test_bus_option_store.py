"""Where options are kept, and how they are in force at once."""

import asyncio

import nats.errors
import pytest
from structlog.testing import capture_logs

from bus import subjects
from bus.buckets import prepare
from bus.connection import Connection
from bus.option_store import LiveOptions, OptionStore
from bus.options import DEFAULTS, PASSWORD, Options, parse
from tests.buses import BusServer
from tests.echo import until

SOON = 2.0
"""Seconds in which a change must be in force; it takes a few milliseconds on an idle machine."""


@pytest.fixture
async def store(connection: Connection) -> OptionStore:
    await prepare(connection.jetstream())
    return await OptionStore.open(connection, "main")


async def test_what_is_written_is_read_and_what_is_reset_is_gone(
    connection: Connection, store: OptionStore
) -> None:
    other = await OptionStore.open(connection, "london")
    assert await store.read() == {}
    await store.write("timeout", b"7")
    await store.write("text.title", b'"Hi"')
    await other.write("timeout", b"9")
    assert await store.read() == {"timeout": b"7", "text.title": b'"Hi"'}
    await store.reset("timeout")
    await store.reset("never_set")
    assert await store.read() == {"text.title": b'"Hi"'}
    assert await other.read() == {"timeout": b"9"}


async def test_a_bus_that_keeps_no_options_says_so(connection: Connection) -> None:
    with pytest.raises(nats.errors.Error):
        await OptionStore.open(connection, "main")


async def test_replace_needs_the_value_to_be_what_was_read(store: OptionStore) -> None:
    assert not await store.replace(PASSWORD, b"new", b"old")
    await store.write(PASSWORD, b"old")
    assert not await store.replace(PASSWORD, b"new", b"older")
    assert await store.replace(PASSWORD, b"new", b"old")
    assert await store.read() == {PASSWORD: b"new"}
    await store.reset(PASSWORD)
    assert not await store.replace(PASSWORD, b"newer", b"new")
    assert await store.read() == {}


async def test_what_has_just_been_written_is_always_read(store: OptionStore) -> None:
    """Also when the key is still on its way while the watch is said to be whole."""
    for number in range(100):
        value = str(number).encode()
        await store.write("timeout", value)
        assert await store.read() == {"timeout": value}


async def test_of_many_who_replace_the_same_value_one_wins(store: OptionStore) -> None:
    for _ in range(10):
        await store.write(PASSWORD, b"old")
        won = await asyncio.gather(
            *(store.replace(PASSWORD, str(number).encode(), b"old") for number in range(8))
        )
        assert sum(won) == 1
        assert await store.read() == {PASSWORD: str(won.index(True)).encode()}


async def test_a_change_is_in_force_within_milliseconds(
    connection: Connection, store: OptionStore
) -> None:
    told: list[Options] = []
    live = LiveOptions(connection, "main", told.append)
    assert live.current == DEFAULTS
    await live.start()
    assert told == [DEFAULTS]
    await store.write("timeout", parse("timeout", "30"))
    await until(lambda: live.current.timeout == 30, SOON)
    assert told[-1] is live.current
    await store.write(PASSWORD, b"$argon2id$...")
    await until(lambda: live.password_hash == "$argon2id$...", SOON)
    await store.reset("timeout")
    await store.reset(PASSWORD)
    await until(lambda: live.current == DEFAULTS and live.password_hash is None, SOON)
    await live.stop()


async def test_a_value_that_does_not_fit_is_complained_about_and_harms_nothing_else(
    connection: Connection, store: OptionStore
) -> None:
    await store.write("timeout", b'"soon"')
    await store.write("menu_type", b'"folders"')
    with capture_logs() as lines:
        live = LiveOptions(connection, "main")
        await live.start()
        assert live.current == Options(menu_type="folders")
        await store.write("naming", b'"%NOSUCH%"')
        await until(lambda: any("NOSUCH" in str(line) for line in lines), SOON)
    assert all(line["site"] == "main" and line["log_level"] == "error" for line in lines)
    assert live.current.naming == DEFAULTS.naming
    await live.stop()


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'"passwort"', b"hash", b"{}"])
async def test_a_protection_that_cannot_be_read_closes_the_site(
    connection: Connection, store: OptionStore, raw: bytes
) -> None:
    live = LiveOptions(connection, "main")
    await live.start()
    await store.write("protection", raw)
    await until(lambda: live.current.protection == "domain", SOON)
    await store.write("protection", b'"none"')
    await until(lambda: live.current.protection == "none", SOON)
    await live.stop()


async def test_a_password_that_is_no_text_does_not_stop_the_options(
    connection: Connection, store: OptionStore
) -> None:
    live = LiveOptions(connection, "main")
    await live.start()
    await store.write(PASSWORD, b"\xff\xfe")
    await store.write("timeout", b"9")
    await until(lambda: live.current.timeout == 9, SOON)
    assert live.password_hash
    await live.stop()


async def test_options_outlive_the_server(
    bus: BusServer, connection: Connection, store: OptionStore
) -> None:
    live = LiveOptions(connection, "main")
    await live.start()
    await store.write("timeout", b"9")
    bus.stop()
    await until(lambda: connection.is_reconnecting)
    assert live.current.timeout == 9
    bus.start()
    await until(lambda: connection.is_connected)
    assert await store.read() == {"timeout": b"9"}
    assert subjects.site_key("main", "timeout") == "main.timeout"
    await live.stop()


# Options of the whole estate.


async def test_an_option_of_the_estate_holds_where_a_site_has_none_and_an_enforced_one_always(
    connection: Connection, store: OptionStore
) -> None:
    default = await OptionStore.of_estate(connection, "default")
    enforced = await OptionStore.of_estate(connection, "enforced")
    live = LiveOptions(connection, "main")
    await live.start()
    try:
        await default.write("timeout", b"9")
        await until(lambda: live.current.timeout == 9, SOON)
        await store.write("timeout", b"7")
        await until(lambda: live.current.timeout == 7, SOON)
        await enforced.write("timeout", b"0")
        await until(lambda: live.current.timeout == 0, SOON)
        await enforced.reset("timeout")
        await until(lambda: live.current.timeout == 7, SOON)
        await store.reset("timeout")
        await until(lambda: live.current.timeout == 9, SOON)
        await default.reset("timeout")
        await until(lambda: live.current == DEFAULTS, SOON)
    finally:
        await live.stop()


async def test_the_layers_of_the_estate_are_kept_apart(connection: Connection) -> None:
    await prepare(connection.jetstream())
    default = await OptionStore.of_estate(connection, "default")
    enforced = await OptionStore.of_estate(connection, "enforced")
    await default.write("text.title", b'"Campus"')
    await enforced.write("protection", b'"domain"')
    assert await default.read() == {"text.title": b'"Campus"'}
    assert await enforced.read() == {"protection": b'"domain"'}
    assert await (await OptionStore.open(connection, "main")).read() == {}


async def test_the_password_of_the_estate_is_that_of_each_site_without_its_own(
    connection: Connection, store: OptionStore
) -> None:
    default = await OptionStore.of_estate(connection, "default")
    await default.write(PASSWORD, b"of all")
    live = LiveOptions(connection, "main")
    await live.start()
    try:
        assert live.password_hash == "of all"
        await store.write(PASSWORD, b"own")
        await until(lambda: live.password_hash == "own", SOON)
    finally:
        await live.stop()
