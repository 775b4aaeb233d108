"""Every error a caller can get: code, number, text and wire form."""

from typing import Final, Literal

from bus.messages import Details, ProblemBody, decoder, encode

CODE_HEADER: Final = "Nats-Service-Error-Code"
TEXT_HEADER: Final = "Nats-Service-Error"

Code = Literal[
    "bad_request",
    "bad_machine",
    "bad_name",
    "login_required",
    "login_failed",
    "session_expired",
    "forbidden",
    "unknown_item",
    "unknown_request",
    "unknown_site",
    "ambiguous_machine",
    "name_taken",
    "request_conflict",
    "locked_out",
    "internal_error",
    "deployment_server_unavailable",
    "directory_unavailable",
    "overloaded",
]

CATALOGUE: Final[dict[Code, tuple[int, str]]] = {
    "bad_request": (400, "The request could not be understood."),
    "bad_machine": (400, "This machine cannot be told apart from others by its identity."),
    "bad_name": (400, "This computer name is not allowed."),
    "login_required": (401, "Please sign in."),
    "login_failed": (401, "The sign-in was not accepted."),
    "session_expired": (401, "Your session has ended. Please sign in again."),
    "forbidden": (403, "You may not do this."),
    "unknown_item": (404, "This menu item does not exist any more."),
    "unknown_request": (404, "This request is not known here."),
    "unknown_site": (
        404,
        "This machine is at no known site: its network address is in no site's subnets. "
        "Ask an operator to add its subnet to a site.",
    ),
    "ambiguous_machine": (
        409,
        "Several computers match this machine. Ask an operator to tidy them.",
    ),
    "name_taken": (409, "Another computer has this name."),
    "request_conflict": (409, "This request id stands for another request."),
    "locked_out": (423, "Too many failed sign-ins. Entry is locked for a while."),
    "internal_error": (
        500,
        "Something went wrong here. An operator can find the cause in the log.",
    ),
    "deployment_server_unavailable": (503, "The deployment server does not answer at the moment."),
    "directory_unavailable": (503, "The directory cannot be asked at the moment."),
    "overloaded": (503, "The service is busy. Please try again in a moment."),
}
"""Number and usual text of each code."""

RETRIABLE: Final[frozenset[str]] = frozenset(
    {"deployment_server_unavailable", "directory_unavailable", "overloaded", "internal_error"}
)
"""Codes after which the same request may succeed later, unchanged."""

_body = decoder(ProblemBody)


class Problem(Exception):
    """An error of the catalogue; its text may be shown to a technician."""

    def __init__(
        self, code: Code, message: str | None = None, details: Details = Details()
    ) -> None:
        self.code: Code = code
        self.number, usual = CATALOGUE[code]
        self.message = message or usual
        self.details = details
        super().__init__(f"{code}: {self.message}")

    def body(self) -> ProblemBody:
        """The problem as it travels."""
        return ProblemBody(code=self.code, message=self.message, details=self.details)

    def wire(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the error reply (NATS service protocol, ADR-32)."""
        # A header is one line: a text that came from elsewhere must not end it.
        line = " ".join(self.message.split())
        return encode(self.body()), {CODE_HEADER: str(self.number), TEXT_HEADER: line}


def from_body(body: ProblemBody) -> Problem:
    """The problem that a body stands for; a code of a later contract becomes ``internal_error``."""
    for code in CATALOGUE:
        if code == body.code:
            return Problem(code, body.message, body.details)
    return Problem("internal_error", body.message, body.details)


def from_wire(data: bytes) -> Problem:
    """The problem in an error reply; a body that is none becomes ``internal_error``."""
    try:
        return from_body(_body.decode(data))
    except ValueError:
        return Problem("internal_error")
