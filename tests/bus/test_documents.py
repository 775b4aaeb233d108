"""The documents of the wire contract say what the code does, and other programs can read them."""

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from msgspec import Struct

from bus import documents, subjects
from bus import messages as all_messages
from bus.buckets import prepare
from bus.connection import Connection
from bus.contract import COMMON, ENDPOINTS, SHOW
from bus.documents import ASYNCAPI, FOLDER, Json, Question
from bus.events import Event, Kind
from bus.machines import machine_key
from bus.menus import Division
from bus.messages import (
    AskStatus,
    ClientInfo,
    ComputerRef,
    Details,
    FolderEntry,
    Hello,
    Here,
    ItemEntry,
    JobRef,
    Login,
    Machine,
    Menu,
    NameRules,
    Outcome,
    ProblemBody,
    Request,
    Schedule,
    ScheduledComputer,
    Session,
    ShowMenu,
    Welcome,
    Where,
    decoder,
    encode,
)
from bus.problems import CATALOGUE, RETRIABLE, Code, Problem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/wire-contract.md").read_text(encoding="utf-8")
MESSAGES = {each.__name__: each for each in documents.messages()}
QUESTIONS: tuple[Question, ...] = ENDPOINTS
MADE = documents.documents()
ASYNC = json.loads(MADE[ASYNCAPI])


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


formats = FormatChecker(formats=())
formats.checks("date-time", raises=ValueError)(_is_moment)
VALIDATORS = {
    name: Draft202012Validator(json.loads(MADE[f"{name}.json"]), format_checker=formats)
    for name in MESSAGES
}

texts = st.text(max_size=20)
maybe = st.none() | texts
numbers = st.integers(-(2**31), 2**63 - 1)
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=zones | st.just(UTC))
request_ids = st.uuids().map(str)
protections = st.sampled_from(["none", "hash", "server", "domain"])
menu_types = st.sampled_from(["flat", "folders"])
kinds = st.sampled_from(get_args(Kind))
details = maybe | numbers | st.floats(-1e9, 1e9) | st.booleans() | st.lists(texts, max_size=3)
machines = st.builds(
    Machine,
    uuid=maybe,
    serial=maybe,
    asset_tag=maybe,
    macs=st.lists(texts, max_size=3).map(tuple),
    manufacturer=maybe,
    model=maybe,
)
computers = st.builds(ComputerRef, id=numbers, name=texts)
items = st.builds(ItemEntry, id=texts, title=texts, hint=texts)
entries = st.recursive(
    items,
    lambda inner: st.builds(
        FolderEntry, title=texts, entries=st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=5,
)
problems = st.builds(
    ProblemBody,
    code=texts,
    message=texts,
    details=st.builds(
        Details,
        attempts_left=st.none() | numbers,
        retry_after=st.none() | st.floats(0, 1e6),
        computers=st.none() | st.lists(computers, max_size=2).map(tuple),
    ),
)
STRATEGIES: dict[type[Struct], st.SearchStrategy[Struct]] = {
    Where: st.builds(Where, machine=machines),
    Here: st.builds(Here, site=texts, servers=st.lists(texts, max_size=3).map(tuple)),
    Hello: st.builds(
        Hello,
        machine=machines,
        client=st.builds(
            ClientInfo, version=texts, environment=st.sampled_from(["linux", "winpe"])
        ),
    ),
    Welcome: st.builds(
        Welcome,
        site=texts,
        protection=protections,
        timeout=numbers,
        menu_type=menu_types,
        computer=st.none() | computers,
        may_rename=st.booleans(),
        suggested_name=texts,
        name_rules=st.builds(NameRules, max_length=numbers, pattern=texts, hint=texts),
        text=st.dictionaries(texts, texts, max_size=3),
        server_time=times,
        idle_timeout=numbers,
    ),
    Login: st.builds(Login, machine=machines, password=texts, username=maybe),
    Session: st.builds(Session, token=texts, expires_at=times, username=maybe, display_name=maybe),
    ShowMenu: st.builds(
        ShowMenu, machine=machines, token=maybe, part=st.integers(0, 999_999), of=maybe
    ),
    Menu: st.builds(
        Menu,
        version=texts,
        type=menu_types,
        stale=st.booleans(),
        entries=st.lists(entries, max_size=3).map(tuple),
    ),
    Schedule: st.builds(
        Schedule,
        request_id=request_ids,
        machine=machines,
        item_id=texts,
        token=maybe,
        computer_name=maybe,
        start_at=st.none() | times,
    ),
    Outcome: st.builds(
        Outcome,
        request_id=texts,
        state=st.sampled_from(["accepted", "scheduled", "rejected"]),
        computer=st.none()
        | st.builds(
            ScheduledComputer, id=numbers, name=texts, created=st.booleans(), renamed_from=maybe
        ),
        jobs=st.lists(st.builds(JobRef, id=numbers, name=texts), max_size=3).map(tuple),
        replaced=numbers,
        start_at=st.none() | times,
        problem=st.none() | problems,
    ),
    AskStatus: st.builds(AskStatus, machine=machines, request_id=request_ids),
    ProblemBody: problems,
    Request: st.builds(
        Request,
        request_id=request_ids,
        site=texts,
        machine=machines,
        item_id=texts,
        accepted_at=times,
        digest=texts,
        computer_name=maybe,
        start_at=st.none() | times,
        technician=maybe,
        outcome_to=maybe,
    ),
    Event: st.builds(
        Event,
        id=texts,
        site=texts,
        kind=kinds,
        at=times,
        machine=texts,
        computer=st.none() | computers,
        technician=maybe,
        operator=maybe,
        details=st.dictionaries(texts, details, max_size=3),
    ),
}


def test_the_documents_in_the_repository_are_up_to_date() -> None:
    wrong = documents.complaints(ROOT / FOLDER, MADE)
    assert not wrong, "run `python -m bus.documents`: " + "; ".join(wrong)


def test_check_names_each_file_that_differs_is_missing_or_is_left_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "schema"
    assert documents.main([str(folder)]) == 0
    assert documents.main(["--check", str(folder)]) == 0
    (folder / "Hello.json").write_bytes(b"{}")
    (folder / "Menu.json").unlink()
    (folder / "Farewell.json").write_bytes(b"{}")
    assert documents.main(["--check", str(folder)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{folder / 'Farewell.json'} is left over",
        f"{folder / 'Hello.json'} differs",
        f"{folder / 'Menu.json'} is missing",
    ]
    assert (folder / "Hello.json").read_bytes() == b"{}"


def test_writing_deletes_nothing_but_tells_of_what_is_left_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert documents.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'notes.txt'} is left over\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_not_there_lacks_every_document(tmp_path: Path) -> None:
    assert len(documents.complaints(tmp_path / "none", MADE)) == len(MADE)


def test_every_struct_of_the_contract_is_a_message_or_a_part_of_one() -> None:
    declared = {
        name
        for name, each in inspect.getmembers(all_messages, inspect.isclass)
        if issubclass(each, Struct) and each.__struct_fields__
    }
    parts = {name for each in VALIDATORS.values() for name in each.schema.get("$defs", {})}
    assert parts | MESSAGES.keys() == declared | {Event.__name__}
    assert STRATEGIES.keys() == set(MESSAGES.values())


@pytest.mark.parametrize("name", MESSAGES)
def test_a_schema_is_valid_and_says_what_it_is_of(name: str) -> None:
    schema = json.loads(MADE[f"{name}.json"])
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == f"urn:imageinvoker:wire:{subjects.VERSION}:{name}"
    assert schema["title"] == name
    assert schema["description"] == (inspect.getdoc(MESSAGES[name]) or "").replace("``", "`")
    for ref in _refs(schema):
        _resolve(schema, ref)


@pytest.mark.parametrize("name", MESSAGES)
def test_whatever_is_sent_is_valid_by_its_schema(name: str) -> None:
    kind, validator = MESSAGES[name], VALIDATORS[name]

    @given(STRATEGIES[kind])
    @settings(max_examples=40)
    def holds(message: Struct) -> None:
        data = encode(message)
        assert decoder(kind).decode(data) == message
        validator.validate(json.loads(data))

    holds()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_schema_refuses_what_the_code_refuses(name: str) -> None:
    """One field is left out or becomes something else: both say the same of what is left."""
    kind, validator = MESSAGES[name], VALIDATORS[name]
    junk = st.sampled_from([None, True, 7, "junk", "x" * 5000, [], [7], {}, {"id": "1"}])

    @given(STRATEGIES[kind], st.data())
    @settings(max_examples=100)
    def holds(message: Struct, data: st.DataObject) -> None:
        body = json.loads(encode(message))
        field = data.draw(st.sampled_from(sorted(body)))
        del body[field]
        if data.draw(st.booleans()):
            body[field] = data.draw(junk)
        assert validator.is_valid(body) == _is_read(kind, body), body

    holds()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_schema_lets_fields_of_a_later_contract_through(name: str) -> None:
    @given(STRATEGIES[MESSAGES[name]])
    @settings(max_examples=5)
    def holds(message: Struct) -> None:
        VALIDATORS[name].validate(json.loads(encode(message)) | {"of_a_later_contract": [1]})

    holds()


def test_the_asyncapi_document_refers_only_to_what_it_holds() -> None:
    refs = list(_refs(ASYNC))
    assert refs
    for ref in refs:
        _resolve(ASYNC, ref)


def test_the_asyncapi_document_has_every_message_and_every_problem() -> None:
    assert ASYNC["asyncapi"] == "3.0.0"
    described = MESSAGES.keys() | CATALOGUE.keys() | {"MenuPart"}
    assert ASYNC["components"]["messages"].keys() == described
    for schema in ASYNC["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
    for name in MESSAGES:
        assert ASYNC["components"]["messages"][name]["payload"] == {
            "$ref": f"#/components/schemas/{name}"
        }


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: f"{each.service}.{each.verb}")
def test_the_asyncapi_document_has_every_endpoint(question: Question) -> None:
    name = f"{question.service}.{question.verb}"
    operation = ASYNC["operations"][name]
    channel = _resolve(ASYNC, operation["channel"]["$ref"])
    site, machine = question.site or "lab-1", "mac525400123456"
    address = channel["address"].format(site=site, machine=machine)
    assert address == subjects.endpoint(site, question.service, question.verb, machine)
    assert channel["parameters"].keys() == ({"machine"} if question.site else {"site", "machine"})
    assert operation["action"] == "receive"
    assert operation["bindings"]["nats"]["queue"] == question.service
    assert _names(operation["messages"]) == [question.asked.__name__]
    reply = operation["reply"]
    assert _resolve(ASYNC, reply["channel"]["$ref"])["address"] is None
    parts = ["MenuPart"] if question is SHOW else []
    assert _names(reply["messages"]) == [question.answered.__name__, *parts, *question.problems]


def test_every_operation_speaks_of_messages_of_its_own_channel() -> None:
    for operation in ASYNC["operations"].values():
        for side in (operation, operation.get("reply", operation)):
            within = side["channel"]["$ref"] + "/messages/"
            assert all(each["$ref"].startswith(within) for each in side["messages"])


@pytest.mark.parametrize("code", CATALOGUE)
def test_an_error_reply_is_described_by_the_message_of_its_code_alone(code: Code) -> None:
    body, headers = Problem(code, "Text\nof the moment").wire()
    described = [
        other
        for other in CATALOGUE
        if _is_valid(json.loads(body), f"#/components/messages/{other}/payload")
        and _is_valid(headers, f"#/components/messages/{other}/headers")
    ]
    assert described == [code]
    example = ASYNC["components"]["messages"][code]["examples"][0]
    assert _is_valid(example["payload"], f"#/components/messages/{code}/payload")
    assert _is_valid(example["headers"], f"#/components/messages/{code}/headers")


def test_a_part_of_a_menu_is_described_by_the_headers_it_has() -> None:
    headers = "#/components/messages/MenuPart/headers"
    assert _is_valid(Division(2, 3, "61476610de7bd486").headers(), headers)
    assert _is_valid(Division(10, 10, "v", stale=True).headers(), headers)
    for wrong in ({}, {"Imaging-Part": "0/1", "Imaging-Version": "v"}, {"Imaging-Part": "1/1"}):
        assert not _is_valid(wrong, headers)


async def test_the_streams_and_buckets_described_are_those_that_services_make(
    connection: Connection,
) -> None:
    stream = connection.jetstream()
    await prepare(stream)
    made = {each.config.name: each.config.subjects for each in await stream.streams_info()}
    buckets = {name.removeprefix("KV_") for name in made if name and name.startswith("KV_")}
    streams = {name: made[name] for name in made if name and not name.startswith("KV_")}
    assert ASYNC["x-buckets"].keys() == buckets
    assert streams == {
        channel["title"].removeprefix("Stream "): [
            channel["address"].format(site="*", machine="*", kind="*")
        ]
        for channel in ASYNC["channels"].values()
        if channel.get("title", "").startswith("Stream ")
    }
    assert {row[0] for row in _table("stream")} == {f"`{name}`" for name in streams}
    assert {row[0] for row in _table("bucket")} == {f"`{name}`" for name in buckets}


def test_the_page_lists_every_problem_as_the_catalogue_has_it() -> None:
    listed = {
        code.strip("`"): (int(number), text, later == "yes")
        for number, code, text, later, _details in _table("number")
    }
    assert listed == {
        code: (number, text, code in RETRIABLE) for code, (number, text) in CATALOGUE.items()
    }


def test_the_page_lists_every_endpoint_with_its_messages_and_problems() -> None:
    asked = {
        row[0]: re.findall(r"\(schema/(\w+)\.json\)", " ".join(row)) for row in _table("service")
    }
    assert asked == {
        f"`{each.service}.{each.verb}`": [each.asked.__name__, each.answered.__name__]
        for each in QUESTIONS
    }
    answered = {row[0]: re.findall(r"`(\w+)`", row[1]) for row in _table("endpoint")}
    assert answered == {
        f"`{each.service}.{each.verb}`": [code for code in each.problems if code not in COMMON]
        for each in QUESTIONS
    }
    common = re.search(r"Every endpoint may answer (.*?)\.", PAGE, re.DOTALL)
    assert common
    assert tuple(re.findall(r"`(\w+)`", common[1])) == COMMON


def test_the_machine_keys_worked_on_the_page_are_right() -> None:
    rows = _table("machine")
    assert len(rows) == 4
    for text, key in rows:
        machine = msgspec.json.decode(text.strip("`"), type=Machine)
        if key == "none: `bad_machine`":
            with pytest.raises(Problem, match="bad_machine"):
                machine_key(machine)
        else:
            assert f"`{machine_key(machine)}`" == key


def test_the_bodies_shown_on_the_page_are_read_by_the_real_decoders() -> None:
    shown = re.findall(r"^```json (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in shown} >= {each.answered.__name__ for each in QUESTIONS}
    for name, body in shown:
        _read_whole(MESSAGES[name], body)
        VALIDATORS[name].validate(json.loads(body))


def test_the_requests_shown_on_the_page_reach_an_endpoint_that_understands_them() -> None:
    shown = re.findall(r"^nats req (.*?)^(?=```)", PAGE, re.MULTILINE | re.DOTALL)
    reached = set()
    for command in shown:
        subject, *body = shlex.split(command.replace("\\\n", " ").partition(" < ")[0])
        _, site, service, verb, machine = subject.split(".")
        (question,) = (each for each in QUESTIONS if (each.service, each.verb) == (service, verb))
        assert subject == subjects.endpoint(site, service, verb, machine)
        reached.add(question)
        if body:
            _read_whole(question.asked, body[0])
            spoken_for = msgspec.convert(json.loads(body[0])["machine"], Machine)
            assert machine_key(spoken_for) == machine
    assert reached == set(QUESTIONS)


def test_the_files_and_headings_the_page_points_to_exist() -> None:
    prose = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", prose)
    assert links
    headings = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    # As GitHub makes them: lower case, letters, digits, hyphens and underscores only.
    anchors = {"#" + re.sub(r"[^\w-]", "", each.lower().replace(" ", "-")) for each in headings}
    broken = [
        link
        for link in links
        if not (link in anchors if link.startswith("#") else (ROOT / "docs" / link).exists())
    ]
    assert broken == []


def _refs(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _refs(part)
    elif isinstance(value, list):
        for part in value:
            yield from _refs(part)


def _resolve(document: Json, ref: str) -> dict[str, Any]:
    assert ref.startswith("#/")
    found: object = document
    for step in ref.removeprefix("#/").split("/"):
        assert isinstance(found, dict)
        assert step in found, ref
        found = found[step]
    assert isinstance(found, dict)
    return found


def _names(refs: list[dict[str, str]]) -> list[str]:
    return [_resolve(ASYNC, _resolve(ASYNC, each["$ref"])["$ref"])["name"] for each in refs]


def _is_valid(value: object, ref: str) -> bool:
    validator = Draft7Validator({"$ref": ref, "components": ASYNC["components"]})
    return bool(validator.is_valid(value))


def _is_read(kind: type[Struct], body: Json) -> bool:
    try:
        decoder(kind).decode(json.dumps(body))
    except msgspec.ValidationError:
        return False
    return True


def _read_whole(kind: type[Struct], text: str) -> Struct:
    """The message, none of whose fields is unknown or missing a value of its own."""
    message = decoder(kind).decode(text)
    _assert_holds(json.loads(encode(message)), json.loads(text))
    return message


def _assert_holds(read: object, shown: object) -> None:
    if isinstance(shown, dict):
        assert isinstance(read, dict)
        assert shown.keys() <= read.keys()
        for key, value in shown.items():
            _assert_holds(read[key], value)
    elif isinstance(shown, list):
        assert isinstance(read, list)
        for one, other in zip(read, shown, strict=True):
            _assert_holds(one, other)
    else:
        assert read == shown


def _table(first: str) -> list[list[str]]:
    """The rows of the page's table whose head begins with a word."""
    found = re.search(rf"^\| {first}\b.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, first
    return [
        [cell.strip() for cell in row.strip().strip("|").split(" |")]
        for row in found[1].splitlines()
    ]
