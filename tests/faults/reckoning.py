"""What must be so after every run: the visits, the database and the events told as one story."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from bus import subjects
from bus.events import Event, event_decoder
from bus.machines import machine_key
from bus.messages import Outcome, Request, decoder
from tests.faults.estate import Estate
from tests.faults.machines import JOBS, Visit
from tests.site import Asker, Express, Rows

_outcome = decoder(Outcome)
_request = decoder(Request)

_OF_REQUESTS: Final = {
    "request_accepted",
    "request_rejected",
    "computer_created",
    "computer_renamed",
    "jobs_replaced",
    "jobs_scheduled",
}
"""What the scheduler tells of requests that it has accepted."""


@dataclass(frozen=True, slots=True)
class Before:
    """The database as it was before the first machine came."""

    computers: frozenset[int]
    schedule: Rows

    @classmethod
    def of(cls, express: Express) -> "Before":
        rows = express.sql("SELECT computer_id FROM computer")
        return cls(frozenset(int(row[0]) for row in rows), _schedule(express))


@dataclass(frozen=True, slots=True)
class Books:
    """All that is known after a run."""

    done: dict[str, Outcome]
    """What `ii_request` says has become of each request."""
    events: list[Event]
    computers: dict[int, str]
    schedule: Rows
    locks: int
    waiting: int
    rejected: list[str]


async def reckon(
    estate: Estate, before: Before, visits: Iterable[Visit], *, every_visit_is_told: bool = True
) -> Books:
    """Fails with everything that does not agree; the books, for who wants to look further.

    Where the bus could keep nothing for a while, a visit that was answered need not be told of.
    """
    books = await opened(estate.client, estate.express)
    made = list(visits)
    wrong = [
        *_left_behind(books),
        *_answers(books, made),
        *_events_of_requests(books),
        *_counts(books, before),
        *_schedules(books, before, made),
        *_visits_told(books, made, every=every_visit_is_told),
    ]
    assert not wrong, "\n".join(wrong)
    return books


async def opened(client: Asker, express: Express) -> Books:
    """All that is known now."""
    done = express.sql("SELECT request_id, state, outcome FROM ii_request")
    kept = await client.kept(subjects.EVENTS, subjects.event(client.site))
    outcomes = {str(row[0]): _outcome.decode(str(row[2])) for row in done}
    assert {str(row[0]): str(row[1]) for row in done} == {
        each: outcome.state for each, outcome in outcomes.items()
    }
    return Books(
        done=outcomes,
        events=[event_decoder.decode(data) for data in kept],
        computers={
            int(row[0]): str(row[1])
            for row in express.sql("SELECT computer_id, name FROM computer")
        },
        schedule=_schedule(express),
        locks=len(express.tables("ii_lock")["ii_lock"]),
        waiting=len(await client.waiting()),
        rejected=[_request.decode(data).request_id for data in await client.rejected()],
    )


def _schedule(express: Express) -> Rows:
    return express.sql(
        "SELECT computer_id, event_id, status_code FROM event_schedule ORDER BY schedule_id"
    )


def _left_behind(books: Books) -> Iterator[str]:
    if books.locks:
        yield f"{books.locks} rows stand in ii_lock"
    if books.waiting:
        yield f"{books.waiting} requests wait for ever"
    rejected = sorted(each for each, outcome in books.done.items() if outcome.state == "rejected")
    if sorted(books.rejected) != rejected:
        yield f"kept as rejected are {sorted(books.rejected)}, rejected were {rejected}"
    for request_id in rejected:
        if books.done[request_id].problem is None:
            yield f"{request_id} is rejected without a reason"


def _answers(books: Books, visits: list[Visit]) -> Iterator[str]:
    """What each machine was told is what is so."""
    asked = {visit.request_id for visit in visits if visit.sent}
    for request_id in books.done.keys() - asked:
        yield f"{request_id} was done, and nobody asked for it"
    for visit in visits:
        if visit.outcome is None:
            if visit.manner != "vanishes":
                yield f"{visit.request_id} has no end"
            continue
        done = books.done.get(visit.request_id)
        if done is not None:
            if done != visit.outcome:
                yield f"{visit.request_id} was told {visit.outcome}, and is {done}"
        elif visit.outcome.state != "rejected" or visit.outcome.problem is None:
            yield f"{visit.request_id} was told {visit.outcome}, and nothing was done"


def _events_of_requests(books: Books) -> Iterator[str]:
    """Of each accepted request exactly what became of it is told, once; of no other one anything.

    That a request is told to be accepted and stands nowhere would be one that was lost.
    """
    doubled = [
        each for each, count in Counter(event.id for event in books.events).items() if count > 1
    ]
    if doubled:
        yield f"told twice: {doubled}"
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for event in books.events:
        request_id = event.details.get("request")
        if isinstance(request_id, str) and event.kind in _OF_REQUESTS:
            told[request_id][event.kind] += 1
    for request_id in told.keys() | books.done.keys():
        expected = _expected(books.done.get(request_id))
        if told[request_id] != expected:
            yield f"of {request_id} is told {dict(told[request_id])} instead of {dict(expected)}"


def _expected(outcome: Outcome | None) -> Counter[str]:
    if outcome is None:
        return Counter()
    kinds = Counter({"request_accepted": 1})
    if outcome.problem:
        kinds["request_rejected"] = 1
    if outcome.computer:
        kinds["jobs_scheduled"] = 1
        kinds["computer_created"] = int(outcome.computer.created)
        kinds["computer_renamed"] = int(outcome.computer.renamed_from is not None)
        kinds["jobs_replaced"] = int(outcome.replaced > 0)
    return +kinds


def _counts(books: Books, before: Before) -> Iterator[str]:
    """Every number that can be counted from events is what the database says."""
    kinds = Counter(event.kind for event in books.events)
    states = Counter(outcome.state for outcome in books.done.values())
    jobs = sum(
        int(str(event.details["jobs"])) for event in books.events if event.kind == "jobs_scheduled"
    )
    gone = sum(
        int(str(event.details["jobs"])) for event in books.events if event.kind == "jobs_replaced"
    )
    for what, counted, there in (
        ("accepted", kinds["request_accepted"], len(books.done)),
        ("scheduled", kinds["jobs_scheduled"], states["scheduled"]),
        ("rejected", kinds["request_rejected"], states["rejected"]),
        ("created", kinds["computer_created"], len(books.computers) - len(before.computers)),
        ("jobs", jobs - gone, len(books.schedule) - len(before.schedule)),
    ):
        if counted != there:
            yield f"{what}: the events count {counted}, the database holds {there}"


def _schedules(books: Books, before: Before, visits: list[Visit]) -> Iterator[str]:
    """Each computer has the jobs of the last request of its machine, and nothing else."""
    asked = {visit.request_id: visit for visit in visits}
    pending: dict[int, tuple[int, ...]] = defaultdict(tuple)
    computer_of: dict[str, int] = {}
    for event in books.events:
        if event.kind != "jobs_scheduled":
            continue
        outcome = books.done[str(event.details["request"])]
        visit = asked[outcome.request_id]
        assert outcome.computer
        computer_id = outcome.computer.id
        if event.machine != machine_key(visit.machine):
            yield f"{outcome.request_id} was told of {event.machine}"
        if computer_of.setdefault(event.machine, computer_id) != computer_id:
            yield f"{event.machine} has two computers"
        # Carried out twice, it would have found its own jobs.
        if outcome.replaced != len(pending[computer_id]):
            yield f"{outcome.request_id} replaced {outcome.replaced}, not {pending[computer_id]}"
        pending[computer_id] = JOBS[visit.item_id]
    if len(set(computer_of.values())) != len(computer_of):
        yield f"two machines have one computer: {computer_of}"
    unasked = books.computers.keys() - before.computers - set(computer_of.values())
    if unasked:
        yield f"computers that nobody asked for: {unasked}"
    names = Counter(name.lower() for name in books.computers.values())
    yield from (
        f"{count} computers are called {name}" for name, count in names.items() if count > 1
    )

    there: dict[int, tuple[int, ...]] = defaultdict(tuple)
    others = []
    for row in books.schedule:
        if int(row[0]) in pending:
            there[int(row[0])] += (int(row[1]),)
        else:
            others.append(row)
    if there != pending:
        yield f"pending are {dict(there)} instead of {dict(pending)}"
    if others != before.schedule:
        yield f"jobs that nobody asked for: {others}"


def _visits_told(books: Books, visits: list[Visit], *, every: bool) -> Iterator[str]:
    """A visit is told of at most once, and where the client got its answer, once."""
    told = Counter((event.machine, str(event.kind)) for event in books.events)
    made: dict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        made[machine_key(visit.machine)].append(visit)
    for machine, of in made.items():
        for kind, least, most in (
            ("portal_opened", sum(visit.greeted for visit in of), len(of)),
            ("menu_shown", sum(visit.shown for visit in of), len(of)),
        ):
            if not (least if every else 0) <= told[machine, kind] <= most:
                yield f"{kind} of {machine} is told {told[machine, kind]} times, not {least}"
        signed_in = sum(visit.signed_in for visit in of)
        if told[machine, "login_succeeded"] < signed_in:
            yield f"{machine} signed in {signed_in} times and that is not told"


def described(books: Books) -> str:
    """The run in one line, for who reads the test's output."""
    states = Counter(outcome.state for outcome in books.done.values())
    return json.dumps({"requests": states, "events": Counter(e.kind for e in books.events)})
