"""Carries accepted requests out: all of each, or nothing, and only once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from bus.machines import Identity, machine_key, swap_uuid
from bus.messages import Outcome, Request
from bus.problems import Problem
from engine.orders import (
    Order,
    Plan,
    new_names,
    outcome_of,
    record_of,
    rejected,
    scheduled,
)
from express import computers, schedules
from express.computers import Newcomer
from express.database import Database, Transaction, WriteConflict
from express.plan import InGroup, make_plans, with_free_names
from express.progress import rows_of
from express.schedules import Wanted, in_database_clock
from express.schema import Layout


def carry_out(
    tx: Transaction,
    layout_of: Callable[[Transaction], Layout],
    site: str,
    orders: Sequence[Order[Request]],
) -> list[Outcome | Exception]:
    """What has become of each request; if it was carried out before, what became of it then.

    A problem says why a request cannot be carried out, and a `WriteConflict` that another must be
    first; nothing is written of these. The requests are those of different machines. ``layout_of``
    reads how the database is laid out, behind the locks as all else that is read.

    Raises:
        WriteConflict: another transaction was in the way.
    """
    locks = _Locks(tx)
    locks.take(_machine_lock(order.wish) for order in orders)
    records = schedules.recorded(tx, [order.wish.request_id for order in orders])
    fresh = [order for order in orders if order.wish.request_id not in records]
    layout = layout_of(tx)
    plans = make_plans(tx, layout, site, fresh) if fresh else []
    # Two machines may want one name at once: whoever comes second sees that it is taken.
    locks.take(f"name:{name.lower()}" for name in new_names(plans))
    plans = with_free_names(tx, plans)
    ended: dict[str, Outcome | Exception] = {id_: outcome_of(r) for id_, r in records.items()}
    todo: list[tuple[Request, Plan]] = []
    for order, each in zip(fresh, _one_of_a_kind(plans), strict=True):
        if isinstance(each, Plan):
            todo.append((order.wish, each))
        else:
            ended[order.wish.request_id] = each
    # A machine that is known by two keys, as by its UUID and by its serial number, has two locks.
    locks.take(f"computer:{plan.computer.id}" for _, plan in todo if plan.computer)
    outcomes = _write(tx, layout, todo)
    schedules.record(tx, [record_of(request, outcomes[request.request_id]) for request, _ in todo])
    locks.let_go()
    ended |= outcomes
    return [ended[order.wish.request_id] for order in orders]


async def reject(database: Database, request: Request, problem: Problem) -> Outcome:
    """Records that a request cannot be carried out, unless it has been."""
    ended = rejected(request, problem)

    def do(tx: Transaction) -> Outcome:
        locks = _Locks(tx)
        locks.take([_machine_lock(request)])
        record = schedules.recorded(tx, [request.request_id]).get(request.request_id)
        if record is None:
            schedules.record(tx, [record_of(request, ended)])
        locks.let_go()
        return outcome_of(record) if record else ended

    return await database.transact(do)


class _Locks:
    """The locks that a transaction holds."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._held: set[str] = set()

    def take(self, keys: Iterable[str]) -> None:
        """Takes locks of one kind, in an order that is the same for everybody."""
        new = set(keys)
        schedules.lock(self._tx, new)
        self._held |= new

    def let_go(self) -> None:
        """As the last thing before the commit."""
        schedules.unlock(self._tx, self._held)


def _one_of_a_kind(plans: Sequence[Plan | Problem]) -> Iterator[Plan | Problem | WriteConflict]:
    """The plans, where two want the same computer or the same name only the first of them.

    Two new machines that share a key may be one: the second is looked for when the first is there.
    """
    names: set[str] = set()
    ids: set[int] = set()
    keys: set[str] = set()
    for each in plans:
        if isinstance(each, Problem):
            yield each
        elif each.computer and each.computer.id in ids:
            yield WriteConflict("another request for this computer is carried out first")
        elif each.computer is None and not keys.isdisjoint(_keys(each.identity)):
            yield WriteConflict("a machine that may be this one gets a computer first")
        elif each.new_name and each.name.casefold() in names:
            yield WriteConflict("another computer gets this name first")
        else:
            yield each
            if each.new_name:
                names.add(each.name.casefold())
            if each.computer:
                ids.add(each.computer.id)
            else:
                keys |= _keys(each.identity)


def _keys(known: Identity) -> set[str]:
    """What a machine's computer would be found by."""
    uuids = (known.uuid, swap_uuid(known.uuid)) if known.uuid else ()
    texts = {"serial": (known.serial,), "asset_tag": (known.asset_tag,), "mac": known.macs}
    found = {f"{kind}:{text.lower()}" for kind, all_ in texts.items() for text in all_ if text}
    return found | {f"uuid:{uuid}" for uuid in uuids}


def _write(
    tx: Transaction, layout: Layout, todo: Sequence[tuple[Request, Plan]]
) -> dict[str, Outcome]:
    """Creates and renames computers and schedules jobs; the outcomes by the requests' ids."""
    if not todo:
        return {}
    created: dict[str, int] = {}
    newcomers: defaultdict[int, list[Newcomer]] = defaultdict(list)
    for request, plan in todo:
        if isinstance(plan, InGroup):
            newcomer = Newcomer(request.machine, plan.identity, plan.name)
            newcomers[plan.group].append(newcomer)
        elif plan.computer and plan.new_name:
            computers.rename(tx, plan.computer.id, plan.name)
    for group, machines in newcomers.items():
        created |= computers.create(tx, layout, group, machines)
    ids = [plan.computer.id if plan.computer else created[plan.name] for _, plan in todo]
    jobs = {id_: [job.id for job in plan.jobs] for id_, (_, plan) in zip(ids, todo, strict=True)}
    now = schedules.clock(tx)
    wanted = [
        Wanted(id_, jobs[id_], in_database_clock(request.start_at, now, datetime.now(UTC)))
        for id_, (request, _) in zip(ids, todo, strict=True)
    ]
    replaced = schedules.replace_pending(tx, wanted)
    rows = rows_of(tx, layout, jobs)
    return {
        request.request_id: scheduled(request, plan, id_, replaced.get(id_, 0), rows.get(id_))
        for id_, (request, plan) in zip(ids, todo, strict=True)
    }


def _machine_lock(request: Request) -> str:
    return f"machine:{machine_key(request.machine)}"
