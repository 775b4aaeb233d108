"""What operators read of rejected requests: one mail for as many as there are. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from msgspec import Struct, field

from bus.events import Event, one_line
from bus.problems import CATALOGUE

SHOWN: Final = 50
"""Requests that a mail tells of one by one; it counts the others."""
_PROBLEMS: Final = 20

_USUAL: Final[Mapping[str, str]] = {code: text for code, (_, text) in CATALOGUE.items()}


class Rejections(Struct):
    """Rejected requests of a site, in their order: the first few whole, all of them counted."""

    shown: list[Event] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    last: datetime | None = None

    def add(self, event: Event) -> None:
        """Takes one more in."""
        if len(self.shown) < SHOWN:
            self.shown.append(event)
        self.problems[_detail(event, "problem")] += 1
        self.last = event.at

    @property
    def count(self) -> int:
        """How many there are."""
        return self.problems.total()


def digest(
    site: str, rejections: Rejections, sender: str, recipients: Sequence[str], at: datetime
) -> EmailMessage:
    """The mail that tells of them all.

    Raises:
        ValueError: the sender or a recipient is no address of one line.
    """
    count = rejections.count
    what = "1 request was rejected" if count == 1 else f"{count} requests were rejected"
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = f"ImageInvoker at {site}: {what}"
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{_name_of(rejections)}@{site}.imageinvoker>"
    # RFC 3834: nobody's absence note answers this.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_lines(site, rejections, what)) + "\n")
    return message


def _lines(site: str, rejections: Rejections, what: str) -> list[str]:
    lines = [f"At site {site}, {what}."]
    for event in rejections.shown:
        lines += ["", *_of_one(event)]
    more = rejections.count - len(rejections.shown)
    if more:
        lines += ["", f"and {more} more. All of them by problem:"]
        lines += [
            f"{count:8}  {problem}" for problem, count in rejections.problems.most_common(_PROBLEMS)
        ]
    lines += [
        "",
        "`imageinvoker requests list` lists them; `imageinvoker requests replay ID` carries one",
        "out again, once its cause is gone.",
    ]
    return lines


def _of_one(event: Event) -> list[str]:
    problem = _detail(event, "problem")
    computer = event.computer.name if event.computer else event.details.get("name")
    told = {
        "technician": event.technician,
        "machine": event.machine,
        "computer": computer,
        "item": event.details.get("title") or event.details.get("item"),
        "problem": f"{problem}: {_USUAL[problem]}" if problem in _USUAL else problem,
        "request": event.details.get("request"),
    }
    moment = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return [moment] + [
        f"  {name:<10}  {one_line(str(value))}" for name, value in told.items() if value
    ]


def _detail(event: Event, name: str) -> str:
    return one_line(str(event.details.get(name) or "unknown"))


def _name_of(rejections: Rejections) -> str:
    """The same for the same requests: a mail that is sent twice can be told to be one."""
    first = rejections.shown[0] if rejections.shown else None
    request = str(first.details.get("request", "")) if first else ""
    token = "".join(char for char in request if char.isascii() and char.isalnum())[:64]
    return f"rejected.{token or 'unknown'}.{rejections.count}"
