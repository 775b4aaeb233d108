"""The documents of the wire contract, for whoever calls the bus from another language.

They are made from the messages, endpoints, problems and subjects as the code has them: a JSON
Schema (2020-12) of each message, and an AsyncAPI 3.0 description of the whole.

    python -m bus.documents [--check] [FOLDER]
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol, get_args

import msgspec
from msgspec import Struct

from bus import subjects
from bus.contract import ENDPOINTS
from bus.events import Event, Kind
from bus.menus import PART_HEADER, STALE_HEADER, VERSION_HEADER
from bus.messages import ProblemBody, Request
from bus.problems import CATALOGUE, CODE_HEADER, RETRIABLE, TEXT_HEADER, Code, Problem

FOLDER: Final = Path("docs/schema")
ASYNCAPI: Final = "asyncapi.json"

Json = dict[str, object]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ID: Final = f"urn:imageinvoker:wire:{subjects.VERSION}"

_ABOUT: Final = f"""\
What travels between the callers and the services of a site: JSON, over NATS.

A caller publishes a request on the channel of an endpoint and gets one answer on the reply subject
that the request names. An answer with the header `{CODE_HEADER}` is a problem. The page
`docs/wire-contract.md` explains the machine key, the way of a request from `accepted` to its
outcome, and how the contract evolves.

Services speak the NATS service protocol (ADR-32): `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` ask
all of them, with `.<service>` one service, and with `.<service>.<id>` one copy. Each names its
`site` and the version of the `contract` in its metadata.
"""
_SECURITY: Final = """\
The bus of the embedded site listens on 127.0.0.1 alone and asks nobody who they are. A `token` in a
body says which technician asks; it is good for one machine at one site, for a while. Passwords and
tokens travel in the bodies, so a bus that others can reach needs TLS. The machine key ends every
subject, so that the bus's permissions can hold a caller to one machine; they do not do so yet.
"""
_PARAMETERS: Final[Json] = {
    "site": {
        "description": "The site: 1 to 32 of `a-z`, `0-9` and `-`, but not `estate`.",
        "examples": ["main"],
    },
    "machine": {
        "description": "The machine key: the UUID as 32 lower-case hexadecimal digits; else `sn` "
        "and 16 digits of the serial number's SHA-256; else `mac` and the first hardware address.",
        "examples": ["4c4c4544004235108052b4c04f4d3132", "mac525400123456"],
    },
    "kind": {
        "description": "What happened.",
        "enum": list(get_args(Kind)),
    },
}

_PART_NAME: Final = "MenuPart"
_PART: Final[Json] = {
    "name": _PART_NAME,
    "title": _PART_NAME,
    "summary": "A part of a large menu: a slice of its JSON as zlib (RFC 1950) packs it.",
    "description": "Sent to who asked with a `part`. Ask for the others by `part` and `of`, the "
    "version, put them together in order and unpack the whole: it is a `Menu`. Another version "
    "means to begin again with this answer, which is its part 1.",
    "contentType": "application/zlib",
    "headers": {
        "type": "object",
        "properties": {
            PART_HEADER: {
                "type": "string",
                "pattern": "^[1-9][0-9]*/[1-9][0-9]*$",
                "description": "Which part it is, and of how many.",
            },
            VERSION_HEADER: {"type": "string", "description": "What the parts are parts of."},
            STALE_HEADER: {
                "const": "true",
                "description": "The menu may be out of date, whatever its own `stale` says.",
            },
        },
        "required": [PART_HEADER, VERSION_HEADER],
    },
    "payload": {"type": "string", "format": "binary"},
    "examples": [{"headers": {PART_HEADER: "2/3", VERSION_HEADER: "61476610de7bd486"}}],
}


class Question(Protocol):
    """What the documents tell of an endpoint."""

    @property
    def service(self) -> str: ...
    @property
    def verb(self) -> str: ...
    @property
    def asked(self) -> type[Struct]: ...
    @property
    def answered(self) -> type[Struct]: ...
    @property
    def problems(self) -> tuple[Code, ...]: ...
    @property
    def in_parts(self) -> bool: ...
    @property
    def site(self) -> str | None: ...


class _Stream(Struct, frozen=True):
    name: str
    channel: str
    address: str
    message: type[Struct]
    description: str
    kept: str
    taken: str | None


_QUESTIONS: Final[tuple[Question, ...]] = ENDPOINTS
_STREAMS: Final = (
    _Stream(
        subjects.REQUESTS,
        "request",
        subjects.request("{site}", "{machine}"),
        Request,
        "Accepted requests that are still to be carried out, a work queue.",
        "The scheduler keeps a request before it answers `accepted`.",
        "One copy of the scheduler carries it out; it leaves the stream with its outcome recorded.",
    ),
    _Stream(
        subjects.REJECTED,
        "rejected",
        subjects.rejected("{site}", "{machine}"),
        Request,
        "Rejected requests, whole, kept for replay.",
        "The scheduler keeps a request that could not be carried out.",
        None,
    ),
    _Stream(
        subjects.EVENTS,
        "event",
        subjects.event("{site}", "{machine}", "{kind}"),
        Event,
        "What happened, kept for the audit, for dashboards and mail. The machine is `-` in events "
        "of what an operator did.",
        "Services keep what they let in, refuse and do, and the command line what it changes.",
        None,
    ),
)
_BUCKETS: Final[Json] = {
    subjects.OPTIONS: {
        "key": "<site>.<option>",
        "description": "The options of a site as JSON, and the hash of its shared password.",
    },
    subjects.KEYS: {
        "key": "<site>.<key id>",
        "description": "The public keys that sessions are verified with, as JSON.",
    },
    subjects.TRIES: {
        "key": "<site>.<machine, account or address>.<its key>",
        "description": "The failed tries to sign in, and the locks they led to, as JSON.",
    },
    subjects.ACCOUNTS: {
        "key": "<site>.<account>",
        "description": "The site's own accounts, with the hashes of their passwords, as JSON.",
    },
    subjects.TECHNICIANS: {
        "key": "<site>.<protection>.<account>",
        "description": "Who has signed in, and which groups they are in, as JSON.",
    },
    subjects.LIVE: {
        "key": "<site>.<machine>",
        "description": "What each machine is doing now, as JSON.",
    },
    subjects.MENUS: {
        "key": "<site>.head, <site>.<part>",
        "description": "The jobs and job folders that menus are made of, packed, for the copies "
        "of the menu service alone: their form may change with any release.",
    },
    subjects.MAILED: {
        "key": "<site>.mail",
        "description": "How far operators have been told by mail, as JSON.",
    },
    subjects.ACCESS: {
        "key": "<site>.<rule>",
        "description": "The access rules: who may deploy what, as JSON.",
    },
    subjects.REVOKED: {
        "key": f"{subjects.ESTATE}.<image>",
        "description": "The boot images whose credentials let nobody in any more, as JSON.",
    },
    subjects.SITES: {
        "key": f"{subjects.ESTATE}.<site>",
        "description": "The sites of the estate, with their servers and subnets, as JSON.",
    },
    subjects.ESTATE_OPTIONS: {
        "key": f"{subjects.ESTATE}.default.<option>, {subjects.ESTATE}.enforced.<option>",
        "description": "The options of all sites as JSON: those that hold where a site has none "
        "of its own, and those that hold whatever it has.",
    },
}


def messages() -> tuple[type[Struct], ...]:
    """Every message that travels as a whole; what is only a part of one is none."""
    found: dict[type[Struct], None] = {}
    for question in _QUESTIONS:
        found |= {question.asked: None, question.answered: None}
    return (*found, ProblemBody, *{stream.message: None for stream in _STREAMS})


def documents() -> dict[str, bytes]:
    """The content of each document by its file's name."""
    made = {f"{each.__name__}.json": schema(each) for each in messages()} | {ASYNCAPI: asyncapi()}
    return {
        name: msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        for name, document in made.items()
    }


def schema(message: type[Struct]) -> Json:
    """A message as a JSON Schema (2020-12) that refers to nothing outside itself."""
    parts = _components((message,), "#/$defs/{name}")
    own = parts.pop(message.__name__)
    document: Json = {"$schema": _DIALECT, "$id": f"{_ID}:{message.__name__}", **own}
    return document | ({"$defs": parts} if parts else {})


def asyncapi() -> Json:
    """The whole contract as an AsyncAPI 3.0.0 document that refers to nothing outside itself."""
    return {
        "asyncapi": "3.0.0",
        "id": _ID,
        "info": {
            "title": "ImageInvoker wire contract",
            "version": f"{subjects.VERSION}.0.0",
            "description": _ABOUT,
            "license": {
                "name": "Apache-2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": "application/json",
        "servers": {
            "bus": {
                "host": "{host}:{port}",
                "protocol": "nats",
                "description": _SECURITY,
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "4222"}},
            }
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "parameters": _PARAMETERS,
            "messages": {each.__name__: _message(each) for each in messages()}
            | {_PART_NAME: _PART}
            | {code: _problem(code) for code in CATALOGUE},
            "schemas": _components(messages(), "#/components/schemas/{name}"),
        },
        "x-buckets": _BUCKETS,
    }


def write(folder: Path, made: Mapping[str, bytes]) -> None:
    """Writes the documents into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)


def complaints(folder: Path, made: Mapping[str, bytes]) -> list[str]:
    """What is wrong with a folder of documents: each file that differs, is missing or left over."""
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    return [
        f"{folder / name} {trouble}"
        for name in sorted(found.keys() | made.keys())
        if (trouble := _trouble(found.get(name), made.get(name)))
    ]


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks the documents; 1 if the folder does not hold exactly these."""
    parser = argparse.ArgumentParser(
        prog="python -m bus.documents", description="Write the documents of the wire contract."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="FOLDER")
    told = parser.parse_args(arguments)
    made = documents()
    if not told.check:
        write(told.folder, made)
    wrong = complaints(told.folder, made)
    for complaint in wrong:
        sys.stderr.write(f"{complaint}\n")
    return 1 if wrong else 0


def _trouble(path: Path | None, content: bytes | None) -> str | None:
    if path is None:
        return "is missing"
    if content is None:
        return "is left over"
    return None if path.is_file() and path.read_bytes() == content else "differs"


def _channels() -> Json:
    channels: Json = {}
    for question in _QUESTIONS:
        name = _name(question)
        channels[name] = {
            "address": subjects.endpoint(
                question.site or "{site}", question.service, question.verb, "{machine}"
            ),
            "parameters": _parameters(*(() if question.site else ("site",)), "machine"),
            "messages": _messages((question.asked.__name__,)),
        }
        channels[f"{name}.reply"] = {
            "address": None,
            "description": "The reply subject that the request names.",
            "messages": _messages(_answers(question)),
        }
    for stream in _STREAMS:
        channels[stream.channel] = {
            "address": stream.address,
            "title": f"Stream {stream.name}",
            "description": stream.description,
            "parameters": _parameters(*re.findall(r"{(\w+)}", stream.address)),
            "messages": _messages((stream.message.__name__,)),
        }
    return channels


def _operations() -> Json:
    """What the services do: they receive questions and reply; the scheduler has streams as well."""
    operations: Json = {}
    for question in _QUESTIONS:
        name = _name(question)
        refused = ", ".join(f"{CATALOGUE[code][0]} `{code}`" for code in question.problems)
        operations[name] = {
            "action": "receive",
            "channel": _ref("channels", name),
            "summary": inspect.getdoc(question.asked),
            "description": f"Problems it may answer: {refused}.",
            "messages": [_ref("channels", name, "messages", question.asked.__name__)],
            "reply": {
                "channel": _ref("channels", f"{name}.reply"),
                "messages": [
                    _ref("channels", f"{name}.reply", "messages", answer)
                    for answer in _answers(question)
                ],
            },
            "bindings": {"nats": {"queue": question.service}},
        }
    for stream in _STREAMS:
        steps = {"keep": ("send", stream.kept), "take": ("receive", stream.taken)}
        for step, (action, summary) in steps.items():
            if summary:
                told = stream.message.__name__
                operations[f"{stream.channel}.{step}"] = {
                    "action": action,
                    "channel": _ref("channels", stream.channel),
                    "summary": summary,
                    "messages": [_ref("channels", stream.channel, "messages", told)],
                }
    return operations


def _message(kind: type[Struct]) -> Json:
    name = kind.__name__
    return {"name": name, "title": name, "payload": _ref("components", "schemas", name)}


def _problem(code: Code) -> Json:
    """The error reply with this code: a problem in the body, its number and text as headers."""
    number, text = CATALOGUE[code]
    body, headers = Problem(code).wire()
    later = " The same request may succeed later." if code in RETRIABLE else ""
    return {
        "name": code,
        "title": f"{number} {code}",
        "summary": text + later,
        "headers": {
            "type": "object",
            "properties": {CODE_HEADER: {"const": str(number)}, TEXT_HEADER: {"type": "string"}},
            "required": [CODE_HEADER, TEXT_HEADER],
        },
        "payload": {
            "allOf": [
                _ref("components", "schemas", ProblemBody.__name__),
                {"properties": {"code": {"const": code}}},
            ]
        },
        "examples": [{"headers": headers, "payload": msgspec.json.decode(body, type=Json)}],
    }


def _answers(question: Question) -> tuple[str, ...]:
    """The names of the messages that a question may be answered with."""
    parts = (_PART_NAME,) if question.in_parts else ()
    return (question.answered.__name__, *parts, *question.problems)


def _name(question: Question) -> str:
    return f"{question.service}.{question.verb}"


def _parameters(*names: str) -> Json:
    return {name: _ref("components", "parameters", name) for name in names}


def _messages(names: Iterable[str]) -> Json:
    return {name: _ref("components", "messages", name) for name in names}


def _ref(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}


def _components(kinds: Iterable[type[Struct]], refs: str) -> dict[str, Json]:
    """The schemas of messages and of their parts, by name."""
    _, made = msgspec.json.schema_components(kinds, ref_template=refs)
    return msgspec.convert(_tidy(made), dict[str, Json])


def _tidy(value: object) -> object:
    """A schema without OpenAPI's ``discriminator``, whose descriptions are plain Markdown."""
    match value:
        case dict():
            return {
                key: inspect.cleandoc(part).replace("``", "`")
                if key == "description" and isinstance(part, str)
                else _tidy(part)
                for key, part in value.items()
                if key != "discriminator"
            }
        case list():
            return [_tidy(part) for part in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
