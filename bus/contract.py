"""The endpoints of the wire contract: who answers what with what.

Services serve these, clients call these, and the documents in
``docs/schema`` are written from these.
"""

from typing import Final, Generic, Protocol, TypeVar

import msgspec

from bus import subjects
from bus.messages import (
    AskStatus,
    Hello,
    Here,
    Login,
    Machine,
    Menu,
    Outcome,
    Schedule,
    Session,
    ShowMenu,
    Welcome,
    Where,
    decoder,
)
from bus.problems import Code


class FromMachine(Protocol):
    """A message that carries the machine it speaks for."""

    @property
    def machine(self) -> Machine: ...


Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")


class Endpoint(Generic[Asked, Answered]):
    """One question a service answers, with the problems it may answer instead."""

    def __init__(
        self,
        service: str,
        verb: str,
        asked: type[Asked],
        answered: type[Answered],
        problems: tuple[Code, ...],
        *,
        in_parts: bool = False,
        site: str | None = None,
    ) -> None:
        """``in_parts`` says that an answer may come in parts, to who knows of them.

        ``site`` is what stands for the site where the question is not one to a certain site.
        """
        self.service = service
        self.verb = verb
        self.asked = asked
        self.answered = answered
        self.problems: tuple[Code, ...] = (*COMMON, *problems)
        self.in_parts = in_parts
        self.site = site
        self.asked_decoder: msgspec.json.Decoder[Asked] = decoder(asked)
        self.answered_decoder: msgspec.json.Decoder[Answered] = decoder(answered)


COMMON: Final[tuple[Code, ...]] = ("bad_request", "bad_machine", "overloaded", "internal_error")
"""Problems that every endpoint may answer."""

WELCOME: Final = Endpoint(
    "menu", "welcome", Hello, Welcome, ("ambiguous_machine", "deployment_server_unavailable")
)
LOGIN: Final = Endpoint(
    "auth", "login", Login, Session, ("login_failed", "locked_out", "directory_unavailable")
)
SHOW: Final = Endpoint(
    "menu",
    "show",
    ShowMenu,
    Menu,
    ("login_required", "session_expired", "deployment_server_unavailable"),
    in_parts=True,
)
SCHEDULE: Final = Endpoint(
    "scheduler",
    "schedule",
    Schedule,
    Outcome,
    (
        "bad_name",
        "login_required",
        "session_expired",
        "forbidden",
        "unknown_item",
        "ambiguous_machine",
        "name_taken",
        "request_conflict",
        "deployment_server_unavailable",
    ),
)
STATUS: Final = Endpoint(
    "scheduler", "status", AskStatus, Outcome, ("unknown_request", "deployment_server_unavailable")
)

WHERE: Final = Endpoint("auth", "where", Where, Here, ("unknown_site",), site=subjects.ESTATE)

ENDPOINTS: Final = (WHERE, WELCOME, LOGIN, SHOW, SCHEDULE, STATUS)
