"""What a request comes to: which jobs, on which computer, under which name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from bus.access import Rights
from bus.machines import Identity, identity
from bus.messages import ComputerRef, Details, Machine
from bus.names import check_name, suggested_name
from bus.options import Options
from bus.problems import Problem
from express import computers
from express.database import Transaction
from express.jobs import read_folders, read_jobs, read_jobs_in
from express.rights import forbidden_jobs
from express.schema import Layout
from express.tree import Job, JobTree, Needed

MOST_JOBS: Final = 4000
"""Most jobs of one item: their names must fit into one message of the bus."""


class Wish(Protocol):
    """What a technician asked for."""

    @property
    def machine(self) -> Machine: ...
    @property
    def item_id(self) -> str: ...
    @property
    def computer_name(self) -> str | None: ...


Wish_co = TypeVar("Wish_co", bound=Wish, covariant=True)


class NewComputer(Struct, frozen=True):
    """A computer that is to be created, in the group with this id."""

    group: int


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done: to a known computer, or to one that is to be created in a group.

    ``title`` is the item's.
    """

    identity: Identity
    target: ComputerRef | NewComputer
    name: str
    title: str
    jobs: tuple[Job, ...]

    @property
    def computer(self) -> ComputerRef | None:
        """The known computer, if the machine has one."""
        return self.target if isinstance(self.target, ComputerRef) else None

    @property
    def new_name(self) -> bool:
        """Whether a computer is to be created or renamed."""
        return self.computer is None or self.computer.name != self.name


class Order(Struct, Generic[Wish_co], frozen=True):
    """A wish, and the options and rights by which it is judged."""

    wish: Wish_co
    options: Options
    rights: Rights


def make_plans(
    tx: Transaction, layout: Layout, site: str, orders: Sequence[Order[Wish]]
) -> list[Plan | Problem]:
    """What wishes come to as the deployment server stands now; their names may be taken.

    The problems are ``unknown_item``, ``bad_machine``, ``ambiguous_machine``, ``bad_name``,
    ``forbidden`` and ``deployment_server_unavailable``.
    """
    offer = _Offer(tx, orders)
    identities = [identity(order.wish.machine, order.options.shared) for order in orders]
    found = computers.find(tx, layout, identities)
    groups = {
        name: computers.group_id(tx, name)
        for name in {
            order.options.new_computer_group
            for order, computer in zip(orders, found, strict=True)
            if computer is None and not layout.cannot_create
        }
    }

    def planned(
        order: Order[Wish], known: Identity, computer: ComputerRef | Problem | None
    ) -> Plan:
        if layout.cannot_schedule:
            raise _unavailable(f"Jobs cannot be scheduled here: {layout.cannot_schedule}.")
        item = offer.item(order)
        if isinstance(computer, Problem):
            raise computer
        name = choose_name(computer, order.wish.computer_name, known, order.options, site)
        if computer is None and layout.cannot_create:
            raise _unavailable(f"New computers cannot be created here: {layout.cannot_create}.")
        target = computer or _new_computer(order.options.new_computer_group, groups)
        return Plan(identity=known, target=target, name=name, title=item.title, jobs=item.jobs)

    plans: list[Plan | Problem] = []
    for order, known, computer in zip(orders, identities, found, strict=True):
        try:
            plans.append(planned(order, known, computer))
        except Problem as problem:
            plans.append(problem)
    return plans


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


def with_free_names(tx: Transaction, plans: Sequence[Plan | Problem]) -> list[Plan | Problem]:
    """Plans whose new names no other computer has, in any case; ``name_taken`` for the others."""
    owners = computers.named(tx, new_names(plans))
    return [each if isinstance(each, Problem) else _free(each, owners) for each in plans]


def _free(plan: Plan, owners: Mapping[str, Sequence[ComputerRef]]) -> Plan | Problem:
    if plan.new_name:
        own = plan.computer.id if plan.computer else None
        others = tuple(each for each in owners[plan.name] if each.id != own)
        if others:
            return name_taken(others)
    return plan


def name_taken(owners: Sequence[ComputerRef]) -> Problem:
    """The problem of a name that other computers have."""
    text = f"Another computer is called {owners[0].name}."
    return Problem("name_taken", text, Details(computers=tuple(owners)))


def _unavailable(text: str) -> Problem:
    return Problem("deployment_server_unavailable", text)


def _new_computer(name: str, groups: Mapping[str, int | None]) -> NewComputer:
    group = groups[name]
    if group is None:
        raise _unavailable(f"The group {name!r} for new computers does not exist. Ask an operator.")
    return NewComputer(group)


class _Item(NamedTuple):
    title: str
    jobs: tuple[Job, ...]
    tree: JobTree


class _Offer:
    """The items that some orders wish for; what they are made of is read once for all."""

    def __init__(self, tx: Transaction, orders: Iterable[Order[Wish]]) -> None:
        self._folders = read_folders(tx)
        self._items: dict[tuple[str, str, str | None], _Item | None] = {}
        needed: list[Needed] = []
        wanted = {_key(order) for order in orders}
        for item_id, tag, root in wanted:
            tree = JobTree((), self._folders, tag, root)
            needed.extend(filter(None, [tree.needed(item_id)]))
        # None of a greater id exists, and a number that is no int fails the query of all.
        jobs = read_jobs(tx, {id_ for each in needed for id_ in each.job_ids})
        jobs += read_jobs_in(tx, {id_ for each in needed for id_ in each.folder_ids})
        self._jobs = list({job.id: job for job in jobs}.values())
        for key in wanted:
            self._items[key] = self._find(*key)

    def item(self, order: Order[Wish]) -> _Item:
        item = self._items[_key(order)]
        if item is None:
            raise Problem("unknown_item")
        if forbidden_jobs(item.tree, order.rights, item.jobs):
            raise Problem("forbidden", "You may not deploy this item.")
        if len(item.jobs) > MOST_JOBS:
            raise Problem("bad_request", f"This item stands for more than {MOST_JOBS} jobs.")
        return item

    def _find(self, item_id: str, tag: str, root: str | None) -> _Item | None:
        tree = JobTree(self._jobs, self._folders, tag, root)
        jobs = tree.jobs_of(item_id)
        if not jobs:
            return None
        title = next(item.title for item in tree.items() if item.id == item_id)
        return _Item(title, tuple(jobs), tree)


def _key(order: Order[Wish]) -> tuple[str, str, str | None]:
    return order.wish.item_id, order.options.tag, order.options.root_folder
