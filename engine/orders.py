"""What an order comes to: which jobs, on which computer, under which name. Pure.

An engine reads what `needed` says, finds the machine, and asks `plan` what is to be done; before it
writes, it asks `free` whether the name can be had. So whatever the deployment server is, the same
wish is refused for the same reason::

    offer = Offer(orders, folders, jobs)  # jobs: those that needed(orders, folders) names
    planned = plan(order, "lab", identity(machine), found, offer)
    planned = free(planned, computers_of_that_name)
    outcome = scheduled(request, planned, computer_id, replaced, rows)
    ...  # written, and in the same step record_of(request, outcome)
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from bus.access import Rights
from bus.machines import Identity, machine_key
from bus.messages import (
    ComputerRef,
    Details,
    JobRef,
    Machine,
    Outcome,
    Request,
    ScheduledComputer,
    decoder,
    encode,
)
from bus.names import check_name, suggested_name
from bus.options import Options
from bus.problems import Problem
from engine.rights import forbidden_jobs
from engine.tree import Folder, Job, JobTree, Needed

MOST_JOBS: Final = 4000
"""Most jobs of one item: their names must fit into one message of the bus."""

_outcome = decoder(Outcome)


class Wish(Protocol):
    """What a technician asked for."""

    @property
    def machine(self) -> Machine: ...
    @property
    def item_id(self) -> str: ...
    @property
    def computer_name(self) -> str | None: ...


Wish_co = TypeVar("Wish_co", bound=Wish, covariant=True)


class Order(Struct, Generic[Wish_co], frozen=True):
    """A wish, and the options and rights by which it is judged."""

    wish: Wish_co
    options: Options
    rights: Rights


class Possible(Struct, frozen=True):
    """Nothing is against a wish; ``title`` is the item's."""

    title: str


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done: to a known computer, or to one that is to be created.

    ``title`` is the item's.
    """

    identity: Identity
    computer: ComputerRef | None
    name: str
    title: str
    jobs: tuple[Job, ...]

    @property
    def new_name(self) -> bool:
        """Whether a computer is to be created or renamed."""
        return self.computer is None or self.computer.name != self.name


class Record(Struct, frozen=True, kw_only=True):
    """What was done for a request; ``outcome`` is the wire form of its `Outcome`, as text."""

    request_id: str
    site: str
    machine: str
    digest: str
    state: Literal["scheduled", "rejected"]
    outcome: str
    technician: str | None
    item_id: str
    created_at: datetime


class Item(NamedTuple):
    """A menu item and its jobs in their order."""

    title: str
    jobs: tuple[Job, ...]
    tree: JobTree


_Key = tuple[str, str, str | None]


def needed(orders: Iterable[Order[Wish]], folders: Sequence[Folder]) -> Needed:
    """The jobs that must be read to know what the items of some orders stand for."""
    found = [
        JobTree((), folders, tag, root).needed(item_id)
        for item_id, tag, root in {_key(order) for order in orders}
    ]
    return Needed(
        tuple({id_: None for each in found if each for id_ in each.job_ids}),
        tuple({id_: None for each in found if each for id_ in each.folder_ids}),
    )


class Offer:
    """The items that some orders wish for, of all folders and the jobs that are `needed`."""

    def __init__(
        self, orders: Iterable[Order[Wish]], folders: Sequence[Folder], jobs: Iterable[Job]
    ) -> None:
        unique = list({job.id: job for job in jobs}.values())
        self._items = {key: _item(key, folders, unique) for key in {_key(each) for each in orders}}

    def item(self, order: Order[Wish]) -> Item:
        """The item of one of the orders.

        Raises:
            Problem: ``unknown_item``, ``forbidden``, or ``bad_request`` for one that is too large.
        """
        item = self._items[_key(order)]
        if item is None:
            raise Problem("unknown_item")
        if forbidden_jobs(item.tree, order.rights, item.jobs):
            raise Problem("forbidden", "You may not deploy this item.")
        if len(item.jobs) > MOST_JOBS:
            raise Problem("bad_request", f"This item stands for more than {MOST_JOBS} jobs.")
        return item


def plan(
    order: Order[Wish],
    site: str,
    known: Identity,
    found: ComputerRef | Problem | None,
    offer: Offer,
) -> Plan:
    """What an order comes to on the machine that was ``found``; its name may be taken.

    Raises:
        Problem: ``unknown_item``, ``forbidden``, ``bad_request``, what ``found`` is, ``bad_name``.
    """
    item = offer.item(order)
    if isinstance(found, Problem):
        raise found
    name = choose_name(found, order.wish.computer_name, known, order.options, site)
    return Plan(identity=known, computer=found, name=name, title=item.title, jobs=item.jobs)


def choose_name(
    computer: ComputerRef | None,
    asked: str | None,
    known: Identity,
    options: Options,
    site: str,
) -> str:
    """The name the computer is to have.

    A name that a known computer already has is kept, whatever the rules say of it now.

    Raises:
        Problem: ``bad_name``, or ``forbidden`` where known computers keep their names.
    """
    if computer and asked in {None, computer.name}:
        return computer.name
    if computer and not options.may_rename:
        raise Problem(
            "forbidden", f"Known computers keep their names; this one is {computer.name}."
        )
    if asked is None:
        asked = suggested_name(options.naming, known, site, options.name_max_length)
    return check_name(asked, options.name_max_length)


def new_names(plans: Iterable[Plan | Problem]) -> set[str]:
    """The names that plans give to computers that have others, or are new."""
    return {each.name for each in plans if isinstance(each, Plan) and each.new_name}


def free(planned: Plan, owners: Iterable[ComputerRef]) -> Plan | Problem:
    """The plan, or ``name_taken`` where one of those who have its name is another computer.

    ``owners`` are those of the name in any case.
    """
    if planned.new_name:
        own = planned.computer.id if planned.computer else None
        others = tuple(each for each in owners if each.id != own)
        if others:
            return name_taken(others)
    return planned


def name_taken(owners: Sequence[ComputerRef]) -> Problem:
    """The problem of a name that other computers have."""
    text = f"Another computer is called {owners[0].name}."
    return Problem("name_taken", text, Details(computers=tuple(owners)))


def scheduled(
    request: Request, done: Plan, computer_id: int, replaced: int, rows: tuple[int, int] | None
) -> Outcome:
    """What is told of a plan that was carried out on a computer.

    So many pending jobs were ``replaced``; ``rows`` are the first and the last of the jobs' rows,
    None where they are not known to be the request's alone.
    """
    old_name = done.computer.name if done.computer else None
    return Outcome(
        request_id=request.request_id,
        state="scheduled",
        computer=ScheduledComputer(
            id=computer_id,
            name=done.name,
            created=done.computer is None,
            renamed_from=old_name if old_name != done.name else None,
        ),
        jobs=tuple(JobRef(id=job.id, name=job.name) for job in done.jobs),
        replaced=replaced,
        start_at=request.start_at,
        rows=rows,
    )


def rejected(request: Request, problem: Problem) -> Outcome:
    """What is told of a request that is not carried out."""
    return Outcome(
        request_id=request.request_id,
        state="rejected",
        start_at=request.start_at,
        problem=problem.body(),
    )


def record_of(request: Request, ended: Outcome) -> Record:
    """What is kept of a request that has come to its end."""
    return Record(
        request_id=request.request_id,
        site=request.site,
        machine=machine_key(request.machine),
        digest=request.digest,
        state="rejected" if ended.state == "rejected" else "scheduled",
        outcome=encode(ended).decode(),
        technician=request.technician,
        item_id=request.item_id,
        created_at=datetime.now(UTC),
    )


def outcome_of(record: Record) -> Outcome:
    """What the record of a request says has become of it."""
    return _outcome.decode(record.outcome)


def _key(order: Order[Wish]) -> _Key:
    return order.wish.item_id, order.options.tag, order.options.root_folder


def _item(key: _Key, folders: Sequence[Folder], jobs: Sequence[Job]) -> Item | None:
    item_id, tag, root = key
    tree = JobTree(jobs, folders, tag, root)
    found = tree.jobs_of(item_id)
    if not found:
        return None
    title = next(item.title for item in tree.items() if item.id == item_id)
    return Item(title, tuple(found), tree)
