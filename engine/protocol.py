"""What a deployment engine is: how ImageInvoker reaches a deployment server, whichever it is.

An engine knows one deployment server and speaks for one site. It does four things: it tells the job
tree, finds machines among the computers, schedules a request's jobs, and tells how far they have
come. Everything else is the same on each of them and stands elsewhere: the rules of menus
(`engine/tree.py`), of rights (`engine/rights.py`), of matching (`engine/matching.py`) and of orders
(`engine/orders.py`), which an engine uses, and the bus, of which it knows nothing.

All methods may be called many at once, also by several copies of a service, and each is cancelled
when nobody waits for its answer any more. Whoever has many questions at once asks them all at once:
to share a transaction or a call among them is the engine's own affair. Unless something else is
said, a method raises `EngineUnavailable` when the deployment server does not answer; it has
time-outs of its own. Whatever else it raises is logged as a fault of the engine.

How to write one stands in docs/engines.md, and tests/engine holds the tests that each must pass.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from bus.machines import Identity
from bus.messages import ComputerRef, Outcome, Request, Schedule
from bus.problems import Problem
from engine.menu_rows import MenuRows, Wanted
from engine.orders import Order, Possible, Record
from engine.progress import JobRow, Scheduled, Standing


class JobTrees(Protocol):
    """What the menu service asks for."""

    @property
    def shares_marks(self) -> bool:
        """Whether a mark says the same to all who ask, on whatever connection."""
        ...

    async def mark(self) -> str:
        """A text that is another one whenever a job or a job folder is; cheaper than to read them.

        It may be another one more often than that. It is asked for twice a second while menus are.

        Raises:
            NoMarkError: it cannot be told; then the tree is read instead, from now on.
        """
        ...

    async def menu_rows(self, wanted: Wanted) -> MenuRows:
        """What a menu is made of, as it is now: all of it of one moment."""
        ...


class Orders(Protocol):
    """What the scheduler asks for."""

    async def find(self, identity: Identity) -> ComputerRef | None:
        """The computer that a machine is, by the rules of `engine/matching.py`; None: unknown.

        Raises:
            Problem: ``ambiguous_machine``, or ``bad_machine`` where nothing is left to tell it by.
        """
        ...

    async def judge(self, order: Order[Schedule]) -> Record | Possible:
        """What was done for a request of this id before; of another whether it can be carried out.

        Nothing is written and nothing is promised: it is judged again when it is carried out.

        Raises:
            Problem: why it cannot be, by the rules of `engine/orders.py`.
        """
        ...

    async def carry_out(self, order: Order[Request]) -> Outcome:
        """Creates or renames the computer, and has it do the item's jobs in place of pending ones.

        All of it is done or nothing, and once: whoever asks again by the same request id, or at the
        same time, is told what became of it. It is recorded in the same step. When the answer is
        there, a power failure does not undo it.

        Raises:
            Problem: why it cannot be carried out; nothing is written.
            Conflict: another order is in the way at the moment; nothing is written.
        """
        ...

    async def reject(self, request: Request, problem: Problem) -> Outcome:
        """Records that a request is not carried out; if something was recorded, tells that.

        Raises:
            Conflict: another order is in the way at the moment.
        """
        ...

    async def record(self, request_id: str) -> Record | None:
        """What was done for a request, whichever site's; None if nothing was yet."""
        ...

    async def forget(self, before: datetime) -> None:
        """Removes the site's records from before a moment.

        Raises:
            Conflict: not now.
        """
        ...


class JobRows(Protocol):
    """What the monitor asks for; an engine that numbers no rows tells of none."""

    async def ranges(self, ranges: Sequence[tuple[int, int]]) -> list[Standing]:
        """How all rows stand from a row to another one, for each of these ranges.

        It is asked for every two seconds while deployments are under way.
        """
        ...

    async def standings(self, computer_ids: Collection[int], first_row: int) -> dict[int, Standing]:
        """How the rows of these computers stand, from a row on; those without any are left out."""
        ...

    async def rows(self, computer_ids: Collection[int], first_row: int) -> list[JobRow]:
        """The rows of these computers from a row on, in their order."""
        ...

    async def scheduled(self, since: datetime) -> list[Scheduled]:
        """What was scheduled for the requests that have been carried out since then."""
        ...


@runtime_checkable
class Engine(JobTrees, Orders, JobRows, Protocol):
    """A deployment server, for one site. It connects when it is first asked for something."""

    async def sign_of_life(self) -> None:
        """Returns if the deployment server answers."""
        ...

    async def close(self) -> None:
        """Breaks off what is under way, with `EngineUnavailable`, and leaves within seconds."""
        ...


Step = Literal["connection", "statement"]
"""What takes time: to get a connection, free or new; to have a question or a commit answered."""
Observer = Callable[[Step, float, bool], None]
"""Told of each step, of the seconds it took, and whether it went well."""

Make = Callable[[str, str, Observer], Engine]
"""Makes an engine of an address and a site, and tells the observer of what takes time.

It is what an entry point of the group ``imageinvoker.engines`` names. It is called in a running
event loop and asks nobody anything: no service is kept from starting because a deployment server is
away. An address may hold a secret, and so is never shown; one that can never be right is refused by
`engine.finding.EngineError`, whose text is shown.
"""
