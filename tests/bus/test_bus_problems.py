"""Every error a caller can get, and how it travels."""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.messages import ComputerRef, Details
from bus.problems import CATALOGUE, RETRIABLE, Code, Problem, from_wire

NUMBERS = {
    400: {"bad_request", "bad_machine", "bad_name"},
    401: {"login_required", "login_failed", "session_expired"},
    403: {"forbidden"},
    404: {"unknown_item", "unknown_request", "unknown_site"},
    409: {"ambiguous_machine", "name_taken", "request_conflict"},
    423: {"locked_out"},
    500: {"internal_error"},
    503: {"deployment_server_unavailable", "directory_unavailable", "overloaded"},
}


def test_the_numbers_are_those_of_the_contract() -> None:
    assert {code: number for number, codes in NUMBERS.items() for code in codes} == {
        code: number for code, (number, _) in CATALOGUE.items()
    }
    assert set(get_args(Code)) == set(CATALOGUE)
    assert set(CATALOGUE) >= RETRIABLE


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_problem_travels_by_the_service_protocol(code: Code) -> None:
    body, headers = Problem(code).wire()
    number, text = CATALOGUE[code]
    assert headers == {"Nats-Service-Error-Code": str(number), "Nats-Service-Error": text}
    assert json.loads(body) == {"code": code, "message": text, "details": {}}


def test_details_travel_and_come_back() -> None:
    details = Details(
        attempts_left=2, retry_after=1.5, computers=(ComputerRef(id=7, name="PC-0815"),)
    )
    problem = from_wire(Problem("ambiguous_machine", "Two match.", details).wire()[0])
    assert (problem.code, problem.number, problem.message) == (
        "ambiguous_machine",
        409,
        "Two match.",
    )
    assert problem.details == details


@given(st.text(max_size=60) | st.text(alphabet="ab\r\n\v\f\x1c\x85\u2028: \0", max_size=60))
@settings(max_examples=200)
def test_no_text_can_end_its_header_and_begin_another(message: str) -> None:
    body, headers = Problem("bad_name", message).wire()
    line = headers["Nats-Service-Error"]
    assert line.splitlines() in ([line], [])
    assert set(headers) == {"Nats-Service-Error-Code", "Nats-Service-Error"}
    assert from_wire(body).message == (message or CATALOGUE["bad_name"][1])


@pytest.mark.parametrize(
    "data", [b"", b"oops", b"{}", b"[]", b'{"code": 7, "message": ""}', b"\xff", b"null"]
)
def test_an_error_that_cannot_be_read_is_an_internal_error(data: bytes) -> None:
    assert from_wire(data).code == "internal_error"


def test_a_code_of_a_later_contract_keeps_its_text() -> None:
    problem = from_wire(b'{"code": "quota", "message": "Enough for today.", "more": 1}')
    assert (problem.code, problem.message) == ("internal_error", "Enough for today.")
