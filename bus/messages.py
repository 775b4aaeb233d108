"""Every message of the wire contract, a struct each, and how they are read and written.

Messages evolve by four rules: a new field has a default, unknown fields are ignored, a type never
changes, a name is never used again for something else.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

Token = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=1024)]
Time = Annotated[datetime, Meta(tz=True)]
"""A moment in time, RFC 3339 on the wire; one without an offset is refused."""
RequestId = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        max_length=36,  # "$" lets a line end follow
    ),
]
"""A UUID in lower case, made by the client; it is what makes a request one request."""

_SECRETS = frozenset({"password", "token"})

Protection = Literal["none", "hash", "server", "domain"]
MenuType = Literal["flat", "folders"]
State = Literal["accepted", "scheduled", "rejected"]


class Machine(Struct, frozen=True, kw_only=True):
    """A machine as its firmware and network cards identify it; any field may be absent or junk."""

    uuid: Text | None = None
    serial: Text | None = None
    asset_tag: Text | None = None
    macs: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    manufacturer: Text | None = None
    model: Text | None = None


class ClientInfo(Struct, frozen=True, kw_only=True):
    """Which boot client speaks."""

    version: Text = ""
    environment: Literal["linux", "winpe"] = "linux"


class Hello(Struct, frozen=True, kw_only=True):
    """A machine has booted and asks what it is to show.

    ``visit`` is made by the client, once each time it is started: what is told of a visit is told
    once, however often the client asks.
    """

    machine: Machine
    client: ClientInfo = ClientInfo()
    visit: RequestId | None = None


class Where(Struct, frozen=True, kw_only=True):
    """A machine asks at which site it is: the bus knows from which network address it has come."""

    machine: Machine


class Here(Struct, frozen=True, kw_only=True):
    """The site of a machine, and where its bus is: addresses such as ``tls://10.1.0.5:4222``.

    Without any, it is the bus that was asked.
    """

    site: str
    servers: tuple[str, ...] = ()


class ComputerRef(Struct, frozen=True, kw_only=True):
    """A computer of the deployment server."""

    id: int
    name: str


class NameRules(Struct, frozen=True, kw_only=True):
    """What a computer name must obey: its length in characters and a regular expression."""

    max_length: int
    pattern: str
    hint: str


class Welcome(Struct, frozen=True, kw_only=True):
    """What the portal needs before anybody signs in."""

    site: str
    protection: Protection
    timeout: int
    menu_type: MenuType
    computer: ComputerRef | None
    may_rename: bool
    suggested_name: str
    name_rules: NameRules
    text: dict[str, str]
    server_time: Time
    idle_timeout: int = 0


class Discreet(Struct, frozen=True, kw_only=True):
    """A message that holds a secret, and does not show it where it is printed or logged."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'...' if name in _SECRETS else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class Login(Discreet, frozen=True, kw_only=True):
    """A technician signs in; with one shared password there is no user name."""

    machine: Machine
    # Longer than a password may be: who sends such a one is refused as who sends a wrong one.
    password: Annotated[str, Meta(max_length=65_536)]
    username: Text | None = None


class Session(Discreet, frozen=True, kw_only=True):
    """A technician's session, bound to the machine and the site."""

    token: str
    expires_at: Time
    username: str | None = None
    display_name: str | None = None


class ShowMenu(Discreet, frozen=True, kw_only=True):
    """Asks for the menu; the token is needed where the site is protected.

    ``part`` 0 says that the caller knows of no parts; 1 asks for a menu from its beginning, and any
    other number for that part of the version ``of``.
    """

    machine: Machine
    token: Token | None = None
    visit: RequestId | None = None
    part: Annotated[int, Meta(ge=0, le=999_999)] = 0
    of: Text | None = None


class ItemEntry(Struct, frozen=True, kw_only=True, tag_field="kind", tag="item"):
    """A menu item: ``job:<id>`` or ``folder:<id>``; the hint tells equal titles apart."""

    id: str
    title: str
    hint: str = ""


class FolderEntry(Struct, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A folder to enter."""

    title: str
    entries: "tuple[Entry, ...]"


Entry = ItemEntry | FolderEntry


class Menu(Struct, frozen=True, kw_only=True):
    """What a technician can pick; ``stale`` when the deployment server could not be asked."""

    version: str
    type: MenuType
    stale: bool
    entries: tuple[Entry, ...]


class Schedule(Discreet, frozen=True, kw_only=True):
    """One technician's wish: this item, on this machine, under this name."""

    request_id: RequestId
    machine: Machine
    item_id: Text
    token: Token | None = None
    computer_name: Text | None = None
    start_at: Time | None = None


class AskStatus(Struct, frozen=True, kw_only=True):
    """Asks what has become of a request of the same machine.

    With ``wait`` the answer takes up to two seconds if there is no outcome yet.
    """

    machine: Machine
    request_id: RequestId
    wait: bool = False


class JobRef(Struct, frozen=True, kw_only=True):
    """A job of the deployment server."""

    id: int
    name: str


class ScheduledComputer(Struct, frozen=True, kw_only=True):
    """The computer a request was carried out on, and what was done to it."""

    id: int
    name: str
    created: bool
    renamed_from: str | None = None


class Details(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a problem adds to its text; each code uses its own fields."""

    attempts_left: int | None = None
    retry_after: float | None = None
    computers: tuple[ComputerRef, ...] | None = None


class ProblemBody(Struct, frozen=True, kw_only=True):
    """A problem as it travels; the message is fit for a technician's screen."""

    code: str
    message: str
    details: Details = Details()


class Outcome(Struct, frozen=True, kw_only=True):
    """What has become of a request: accepted (on disk), scheduled or rejected (both final).

    ``rows`` are the first and the last ``schedule_id`` of its jobs on the deployment server, where
    that numbers them.
    """

    request_id: str
    state: State
    computer: ScheduledComputer | None = None
    jobs: tuple[JobRef, ...] = ()
    replaced: int = 0
    start_at: Time | None = None
    problem: ProblemBody | None = None
    rows: tuple[int, int] | None = None


class Request(Struct, frozen=True, kw_only=True):
    """An accepted request as it waits in the stream: the wish, without any secret.

    ``item_title`` is what the item was called in the menu when the request was accepted.
    """

    request_id: RequestId
    site: str
    machine: Machine
    item_id: str
    accepted_at: Time
    digest: str
    computer_name: str | None = None
    start_at: Time | None = None
    technician: str | None = None
    outcome_to: str | None = None
    protection: Protection = "none"
    item_title: str | None = None


_M = TypeVar("_M")
encode = msgspec.json.Encoder().encode
"""Writes any message as JSON."""


def decoder(kind: type[_M]) -> msgspec.json.Decoder[_M]:
    """A reader of one kind of message; made once and kept by whoever reads."""
    return msgspec.json.Decoder(kind)
