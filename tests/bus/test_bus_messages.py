"""What is read from the wire, good or bad, old or new."""

import contextlib
import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import contract
from bus.messages import (
    FolderEntry,
    Hello,
    ItemEntry,
    Login,
    Machine,
    Menu,
    Outcome,
    Request,
    Schedule,
    Session,
    ShowMenu,
    Welcome,
    decoder,
    encode,
)

ID = "b4b9b1c2-0000-4000-8000-000000000001"
DECODERS = [
    *(each.asked_decoder for each in contract.ENDPOINTS),
    *(each.answered_decoder for each in contract.ENDPOINTS),
    decoder(Request),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["machine", "macs", "uuid", "password", "entries", "kind", "x"]), inner
        )
    ),
    max_leaves=8,
)


def _refuses(data: bytes) -> None:
    """Each reader takes the data or refuses it as the services expect."""
    for each in DECODERS:
        with contextlib.suppress(ValueError, RecursionError):
            each.decode(data)


@given(st.binary(max_size=64))
@settings(max_examples=200)
def test_bytes_that_are_no_message_are_refused_as_services_expect(data: bytes) -> None:
    _refuses(data)


@given(values)
@settings(max_examples=200)
def test_json_of_any_other_shape_is_refused_as_services_expect(value: object) -> None:
    _refuses(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"machine"',
        b"{}",
        b'{"machine": null}',
        b'{"machine": {"uuid": 7}}',
        b'{"machine": {"macs": "00:1b:21:aa:bb:cc"}}',
        b'{"machine": {"macs": [null]}}',
        b'{"machine": {}',
        b'{"machine": {}} {}',
        b'{"machine": {"serial": "\\ud800"}}',
        b'{"machine": {"serial": "\xff"}}',
        b"\xef\xbb\xbf{}",
        b'{"machine": {"serial": "' + b"x" * 1025 + b'"}}',
        b'{"machine": {"macs": [' + b",".join([b'""'] * 65) + b"]}}",
        b'{"machine": {}, "x": ' + b"[" * 200_000,
        b'{"machine": {}, "x": ' + b'{"a":' * 200_000,
        b'{"machine": {}, "client": {"environment": "dos"}}',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_no_service_takes_a_broken_hello(data: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        contract.WELCOME.asked_decoder.decode(data)


@pytest.mark.parametrize("number", ["1e999999", "-1e400", "9" * 5000, "0." + "1" * 5000])
def test_a_huge_number_in_an_unknown_field_harms_nobody(number: str) -> None:
    data = f'{{"machine": {{}}, "x": {number}}}'.encode()
    with contextlib.suppress(ValueError):
        assert contract.WELCOME.asked_decoder.decode(data) == Hello(machine=Machine())


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    data = b'{"machine": {"serial": "A1", "new": {"deep": [1]}}, "client": {"x": 1}, "later": true}'
    assert contract.WELCOME.asked_decoder.decode(data) == Hello(machine=Machine(serial="A1"))


def test_a_message_of_an_older_part_reads_with_the_defaults_of_what_it_lacks() -> None:
    hello = contract.WELCOME.asked_decoder.decode(b'{"machine": {}}')
    assert hello.client.environment == "linux"
    older = (
        b'{"site": "main", "protection": "none", "timeout": 5, "menu_type": "flat",'
        b'"computer": null, "may_rename": true, "suggested_name": "",'
        b'"name_rules": {"max_length": 15, "pattern": "", "hint": ""}, "text": {},'
        b'"server_time": "2026-05-04T12:00:00Z"}'
    )
    assert decoder(Welcome).decode(older).idle_timeout == 0
    outcome = decoder(Outcome).decode(b'{"request_id": "x", "state": "accepted"}')
    assert (outcome.jobs, outcome.replaced, outcome.problem) == ((), 0, None)


@pytest.mark.parametrize("field", ["token", "computer_name", "start_at"])
def test_what_a_wish_need_not_say_may_be_absent_or_null(field: str) -> None:
    wish: dict[str, object] = {"request_id": ID, "machine": {}, "item_id": "job:1", field: None}
    assert decoder(Schedule).decode(encode(wish)) == Schedule(
        request_id=ID, machine=Machine(), item_id="job:1"
    )


@pytest.mark.parametrize(
    "time", ["2026-05-04T12:00:00", "2026-05-04", "noon", "2026-13-04T12:00:00Z", "", "1e9"]
)
def test_a_time_without_an_offset_is_refused(time: str) -> None:
    wish = {"request_id": ID, "machine": {}, "item_id": "job:1", "start_at": time}
    with pytest.raises(msgspec.ValidationError):
        decoder(Schedule).decode(encode(wish))


@pytest.mark.parametrize(
    "time", ["2026-05-04T12:00:00Z", "2026-05-04T14:00:00+02:00", "2026-05-04T12:00:00.000+00:00"]
)
def test_a_time_is_a_moment_whatever_its_offset(time: str) -> None:
    wish = {"request_id": ID, "machine": {}, "item_id": "job:1", "start_at": time}
    assert decoder(Schedule).decode(encode(wish)).start_at == datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "request_id", ["", "1", ID.upper(), ID.replace("-", ""), f"{ID}0", f"x{ID}", f"{ID}\n"]
)
def test_a_request_id_is_a_uuid_in_lower_case(request_id: str) -> None:
    wish = {"request_id": request_id, "machine": {}, "item_id": "job:1"}
    with pytest.raises(msgspec.ValidationError):
        decoder(Schedule).decode(encode(wish))


def test_a_menu_reads_as_it_was_written() -> None:
    menu = Menu(
        version="1",
        type="folders",
        stale=False,
        entries=(
            ItemEntry(id="job:1", title="Wipe", hint="Tools"),
            FolderEntry(title="Deploy", entries=(ItemEntry(id="folder:2", title="Staff"),)),
        ),
    )
    assert decoder(Menu).decode(encode(menu)) == menu
    assert json.loads(encode(menu))["entries"][0]["kind"] == "item"


def test_neither_password_nor_token_shows_when_a_message_is_printed() -> None:
    login = Login(machine=Machine(), password="s3cret", username="ann")
    assert "s3cret" not in f"{login} {login!r} {[login]}"
    assert "ann" in repr(login)
    assert json.loads(encode(login))["password"] == "s3cret"
    asked = ShowMenu(machine=Machine(), token="s3cret")
    given = Session(token="s3cret", expires_at=datetime(2026, 5, 4, 12, tzinfo=UTC))
    assert "s3cret" not in f"{asked} {given!r} {[given]}"


def test_a_session_reads_as_it_was_written() -> None:
    session = Session(token="t", expires_at=datetime(2026, 5, 4, 12, tzinfo=UTC))
    assert decoder(Session).decode(encode(session)) == session
