"""Events of many deployments, as a busy site tells them."""

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from bus.events import Detail, Event, Kind

SITE: Final = "main"
PER_DEPLOYMENT: Final = 8
_ITEMS: Final = 30
_TECHNICIANS: Final = 40


def deployment(number: int, at: datetime) -> Iterator[Event]:
    """What is told of one deployment; one of fifty fails."""
    request = str(uuid.UUID(int=number))
    of: dict[str, Detail] = {"request": request, "item": f"job:{2_000_000 + number * 7 % _ITEMS}"}
    waited = timedelta(seconds=5 + number * 13 % 240)
    outcome = "failed" if number % 50 == 0 else "succeeded"
    told: list[tuple[Kind, timedelta, dict[str, Detail]]] = [
        ("portal_opened", timedelta(0), {"environment": "linux", "model": "OptiPlex 7010"}),
        ("login_succeeded", waited / 2, {}),
        ("menu_shown", waited / 2, {}),
        ("request_accepted", waited, {**of, "name": f"PC-{number}"}),
        ("jobs_scheduled", waited, {**of, "jobs": 1}),
        ("job_started", waited * 2, {**of, "job": "Image"}),
        ("job_finished", waited * 20, {**of, "job": "Image"}),
        ("deployment_finished", waited * 20, {**of, "outcome": outcome}),
    ]
    for kind, later, details in told:
        yield Event(
            id=f"{SITE}.{kind}.{request}",
            site=SITE,
            kind=kind,
            at=at + later,
            machine=f"{number % 2_000:032x}",
            technician=None if kind == "portal_opened" else f"tech{number * 11 % _TECHNICIANS}",
            details=details,
        )
