"""What orders come to on this deployment server as it stands now."""

from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from bus.machines import Identity, identity
from bus.messages import ComputerRef
from bus.problems import Problem
from engine.orders import Offer, Order, Plan, Wish, free, needed, new_names, plan
from express import computers
from express.database import Transaction
from express.jobs import read_folders, read_jobs, read_jobs_in
from express.schema import Layout


class InGroup(Plan, frozen=True, kw_only=True):
    """A plan for a computer that is to be created, in the group with this id."""

    group: int


def make_plans(
    tx: Transaction, layout: Layout, site: str, orders: Sequence[Order[Wish]]
) -> list[Plan | Problem]:
    """What wishes come to; their names may be taken.

    The problems are ``unknown_item``, ``bad_machine``, ``ambiguous_machine``, ``bad_name``,
    ``forbidden``, ``bad_request`` and ``deployment_server_unavailable``.
    """
    offer = _offer(tx, orders)
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
        made = plan(order, site, known, computer, offer)
        if made.computer is None and layout.cannot_create:
            raise _unavailable(f"New computers cannot be created here: {layout.cannot_create}.")
        return made if made.computer else _in_group(made, order.options.new_computer_group, groups)

    plans: list[Plan | Problem] = []
    for order, known, computer in zip(orders, identities, found, strict=True):
        try:
            plans.append(planned(order, known, computer))
        except Problem as problem:
            plans.append(problem)
    return plans


def with_free_names(tx: Transaction, plans: Sequence[Plan | Problem]) -> list[Plan | Problem]:
    """Plans whose new names no other computer has, in any case; ``name_taken`` for the others."""
    owners = computers.named(tx, new_names(plans))
    return [
        each if isinstance(each, Problem) else free(each, owners.get(each.name, ()))
        for each in plans
    ]


def _offer(tx: Transaction, orders: Sequence[Order[Wish]]) -> Offer:
    """The items of all orders; what they are made of is read once for all."""
    folders = read_folders(tx)
    wanted = needed(orders, folders)
    # None of a greater id exists, and a number that is no int fails the query of all.
    jobs = read_jobs(tx, wanted.job_ids) + read_jobs_in(tx, wanted.folder_ids)
    return Offer(orders, folders, jobs)


def _in_group(made: Plan, name: str, groups: Mapping[str, int | None]) -> InGroup:
    group = groups[name]
    if group is None:
        raise _unavailable(f"The group {name!r} for new computers does not exist. Ask an operator.")
    return InGroup(**asdict(made), group=group)


def _unavailable(text: str) -> Problem:
    return Problem("deployment_server_unavailable", text)
