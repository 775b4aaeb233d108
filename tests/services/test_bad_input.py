"""What no good client would send: a typed problem, nothing written, and the service lives."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest

from bus import contract
from bus.contract import Endpoint
from bus.messages import Login, Machine, ShowMenu, encode
from bus.problems import CODE_HEADER, from_wire
from services.auth.program import program as auth
from services.menu.program import program as menu
from services.scheduler.program import program as scheduler
from tests.site import DESKTOP, STAFF_0117, Asker, Express, new_id, new_machine, running

KEY: Final = "6f0c2b5e31d44a7c9b520d6e8a1f4c01"
GOOD: Final[dict[str, Any]] = {
    "machine": msgspec.to_builtins(STAFF_0117),
    "client": {"version": "1", "environment": "linux"},
    "password": "x",
    "request_id": new_id(),
    "item_id": DESKTOP,
}
"""A body that every endpoint takes: unknown fields are ignored."""

BAD: Final[dict[str, bytes]] = {
    "nothing": b"",
    "no-json": b"hello",
    "half": encode(GOOD)[:-1],
    "binary": bytes(range(256)),
    "null": b"null",
    "list": b"[]",
    "number": b"5",
    "empty-object": b"{}",
    "machine-null": encode(GOOD | {"machine": None}),
    "machine-text": encode(GOOD | {"machine": "PC-1"}),
    "uuid-number": encode(GOOD | {"machine": {"uuid": 5}}),
    "macs-text": encode(GOOD | {"machine": {"macs": "525400123456"}}),
    "macs-of-lists": encode(GOOD | {"machine": {"macs": [["525400123456"]]}}),
    "100-macs": encode(GOOD | {"machine": {"macs": ["525400123456"] * 100}}),
    "long-serial": encode(GOOD | {"machine": {"serial": "9" * 1025}}),
    "half-a-character": b'{"machine": {"serial": "\\ud800"}, "request_id": 1, "password": "x"}',
    "not-utf8": b'{"machine": {"serial": "\xff\xfe"}}',
    "one-megabyte": encode(GOOD | {"machine": {"serial": "9" * 1_000_000}}),
    "deep-lists": b"[" * 100_000,
    "deep-unknown-field": encode(GOOD)[:-1] + b', "more": ' + b"[" * 100_000 + b"}",
    "deep-machine": b'{"machine":' * 50_000,
}
STRANGE: Final[dict[str, Machine]] = {
    "no-identity": Machine(),
    "placeholders": Machine(uuid="0" * 32, serial="None", macs=("ff:ff:ff:ff:ff:ff",)),
    "control-characters": Machine(serial="\0\x1b[2J"),
    "another-machine": new_machine(1),
}
WRONG: Final[dict[str, tuple[Endpoint[Any, Any], bytes]]] = {
    "client-of-another-kind": (
        contract.WELCOME,
        encode(GOOD | {"client": {"environment": "dos"}}),
    ),
    "no-password": (contract.LOGIN, encode(ShowMenu(machine=STAFF_0117))),
    "password-number": (contract.LOGIN, encode(GOOD | {"password": 5})),
    "long-password": (contract.LOGIN, encode(Login(machine=STAFF_0117, password="x" * 65_537))),
    "long-token": (contract.SHOW, encode(GOOD | {"token": "x" * 4097})),
    "token-list": (contract.SHOW, encode(GOOD | {"token": ["x"]})),
    "no-item": (contract.SCHEDULE, encode(GOOD | {"item_id": None})),
    "item-number": (contract.SCHEDULE, encode(GOOD | {"item_id": 2000190})),
    "id-of-capitals": (contract.SCHEDULE, encode(GOOD | {"request_id": new_id().upper()})),
    "id-and-newline": (contract.SCHEDULE, encode(GOOD | {"request_id": new_id() + "\n"})),
    "id-of-statements": (contract.SCHEDULE, encode(GOOD | {"request_id": "'; DROP TABLE event"})),
    "id-empty": (contract.STATUS, encode(GOOD | {"request_id": ""})),
    "start-without-offset": (
        contract.SCHEDULE,
        encode(GOOD | {"start_at": "2099-01-01T00:00:00"}),
    ),
    "start-no-time": (contract.SCHEDULE, encode(GOOD | {"start_at": "tomorrow"})),
    "start-number": (contract.SCHEDULE, encode(GOOD | {"start_at": 4070908800})),
    "start-in-year-one": (
        contract.SCHEDULE,
        encode(GOOD | {"start_at": "0001-01-01T00:00:00+23:59"}),
    ),
}

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])


@pytest.fixture
async def site(url: str, name: str, dsn: str, client: Asker) -> AsyncIterator[Asker]:
    """A site with every service."""
    async with running(url, name, menu(dsn), auth, scheduler(dsn)):
        yield client


async def code_of(site: Asker, endpoint: Endpoint[Any, Any], body: bytes) -> str:
    """The code of the problem that a body gets, well-formed and one the endpoint may answer."""
    answer = await site.raw(endpoint, KEY, body)
    assert answer.headers, answer.data
    problem = from_wire(answer.data)
    assert problem.code in endpoint.problems
    assert answer.headers[CODE_HEADER] == str(problem.number)
    assert len(answer.data) < 1000
    return problem.code


@pytest.mark.parametrize("endpoint", contract.ENDPOINTS, ids=lambda each: each.verb)
async def test_bodies_that_are_none_are_bad_requests(
    site: Asker, express: Express, endpoint: Endpoint[Any, Any]
) -> None:
    before = express.tables()

    codes = {case: await code_of(site, endpoint, body) for case, body in BAD.items()}

    assert codes == dict.fromkeys(BAD, "bad_request")
    assert express.tables() == before
    assert await site.waiting() == []
    assert (await site.welcome(STAFF_0117)).computer
    assert (await site.login(STAFF_0117, "")).token
    assert (await site.show()).entries
    assert (await site.schedule(STAFF_0117, DESKTOP)).state == "scheduled"


@pytest.mark.parametrize("endpoint", contract.ENDPOINTS, ids=lambda each: each.verb)
async def test_a_body_that_speaks_for_another_machine_than_its_subject_is_refused(
    site: Asker, express: Express, endpoint: Endpoint[Any, Any]
) -> None:
    before = express.tables()

    for machine in STRANGE.values():
        body = encode(GOOD | {"machine": msgspec.to_builtins(machine)})
        assert await code_of(site, endpoint, body) == "bad_machine"

    assert express.tables() == before
    assert await site.waiting() == []


async def test_fields_that_do_not_fit_are_bad_requests(site: Asker, express: Express) -> None:
    before = express.tables()

    codes = {case: await code_of(site, *asked) for case, asked in WRONG.items()}

    assert codes == dict.fromkeys(WRONG, "bad_request")
    assert express.tables() == before
    assert await site.waiting() == []


async def test_fields_of_a_later_contract_are_ignored(site: Asker) -> None:
    body = encode(GOOD | {"request_id": new_id(), "colour": {"of": ["the", "screen"]}})

    answer = await site.raw(contract.SCHEDULE, KEY, body)

    assert contract.SCHEDULE.answered_decoder.decode(answer.data).state == "scheduled"
