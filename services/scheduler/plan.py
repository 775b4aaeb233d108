"""What a request comes to: which jobs, on which computer, under which name."""

from typing import Final, Protocol

from msgspec import Struct

from bus.access import Rights
from bus.machines import Identity, identity
from bus.messages import ComputerRef, Details, Machine
from bus.names import check_name, suggested_name
from bus.options import Options
from bus.problems import Problem
from express import computers
from express.database import Transaction
from express.jobs import LARGEST_ID, read_folders, read_job, read_jobs_in
from express.rights import forbidden_jobs
from express.schema import Layout
from express.tree import Job, JobTree

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


def make_plan(
    transaction: Transaction,
    layout: Layout,
    wish: Wish,
    options: Options,
    site: str,
    rights: Rights,
) -> Plan:
    """What a wish comes to as the deployment server stands now; its name may be taken.

    Raises:
        Problem: ``unknown_item``, ``bad_machine``, ``ambiguous_machine``, ``bad_name``,
            ``forbidden`` or ``deployment_server_unavailable``.
    """
    known = identity(wish.machine, options.shared)
    title, jobs = _item(transaction, wish.item_id, options, rights)
    computer = computers.find(transaction, layout, known)
    name = choose_name(computer, wish.computer_name, known, options, site)
    target = computer or _new_computer(transaction, layout, options.new_computer_group)
    return Plan(identity=known, target=target, name=name, title=title, jobs=tuple(jobs))


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


def require_free_name(transaction: Transaction, plan: Plan) -> None:
    """Makes sure that no other computer has a new name, in any case.

    Raises:
        Problem: ``name_taken``, with the computers that have it.
    """
    if not plan.new_name:
        return
    owners = computers.named(transaction, plan.name)
    others = tuple(each for each in owners if not plan.computer or each.id != plan.computer.id)
    if others:
        raise Problem(
            "name_taken",
            f"Another computer is called {others[0].name}.",
            Details(computers=others),
        )


def _new_computer(transaction: Transaction, layout: Layout, name: str) -> NewComputer:
    if layout.cannot_create:
        raise Problem(
            "deployment_server_unavailable",
            f"New computers cannot be created here: {layout.cannot_create}.",
        )
    group = computers.group_id(transaction, name)
    if group is None:
        raise Problem(
            "deployment_server_unavailable",
            f"The group {name!r} for new computers does not exist. Ask an operator.",
        )
    return NewComputer(group)


def _item(
    transaction: Transaction, item_id: str, options: Options, rights: Rights
) -> tuple[str, list[Job]]:
    """The title of an item, and the jobs that it stands for."""
    folders = read_folders(transaction)
    needed = JobTree((), folders, options.tag, options.root_folder).needed(item_id)
    if needed is None or any(abs(id_) > LARGEST_ID for id_ in needed.job_ids):
        raise Problem("unknown_item")
    jobs = [job for id_ in needed.job_ids if (job := read_job(transaction, id_))]
    jobs += read_jobs_in(transaction, needed.folder_ids)
    tree = JobTree(jobs, folders, options.tag, options.root_folder)
    found = tree.jobs_of(item_id)
    if not found:
        raise Problem("unknown_item")
    if forbidden_jobs(tree, rights, found):
        raise Problem("forbidden", "You may not deploy this item.")
    if len(found) > MOST_JOBS:
        raise Problem("bad_request", f"This item stands for more than {MOST_JOBS} jobs.")
    return next(item.title for item in tree.items() if item.id == item_id), found
