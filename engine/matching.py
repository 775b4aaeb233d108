"""Which computer a machine is. Pure."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from bus.machines import Identity, swap_uuid
from bus.messages import ComputerRef, Details
from bus.problems import Problem


class Candidate(Struct, frozen=True, kw_only=True):
    """A computer that shares a key with the machine, with all that identifies it."""

    id: int
    name: str
    identity: Identity


Strength = tuple[bool, bool, bool, bool]
"""Which keys agree, the strongest first: UUID, serial number, asset tag, hardware address."""


def which(identity: Identity, candidates: Sequence[Candidate]) -> ComputerRef | Problem | None:
    """The computer that a machine is among those that share a key with it; None: it is unknown.

    The problems are ``ambiguous_machine``, and ``bad_machine`` when nothing is left of its identity
    without the addresses that stand at several computers. Candidates that share no key do no harm.
    """
    if not unshared(identity, candidates):
        return Problem("bad_machine")
    try:
        found = match(identity, candidates)
    except Problem as problem:
        return problem
    return ComputerRef(id=found.id, name=found.name) if found else None


def match(identity: Identity, candidates: Sequence[Candidate]) -> Candidate | None:
    """The computer that the machine is, None when it is none of them.

    The strongest key that both sides have decides whether a candidate can be it, whatever weaker
    keys say; that is how a USB adapter that moves from machine to machine confuses nothing. Of
    those that can, the one that agrees in the strongest keys is it.

    Raises:
        Problem: ``ambiguous_machine`` when two computers match equally well.
    """
    own = unshared(identity, candidates)
    strengths = [(_strength(own, candidate.identity), candidate) for candidate in candidates]
    best = max((strength for strength, _ in strengths if strength), default=None)
    if best is None:
        return None
    winners = [candidate for strength, candidate in strengths if strength == best]
    if len(winners) > 1:
        refs = sorted((ComputerRef(id=c.id, name=c.name) for c in winners), key=lambda ref: ref.id)
        raise Problem("ambiguous_machine", details=Details(computers=tuple(refs)))
    return winners[0]


def unshared(identity: Identity, candidates: Sequence[Candidate]) -> Identity:
    """The identity less the addresses that stand at two or more computers."""
    stand = Counter(mac for candidate in candidates for mac in set(candidate.identity.macs))
    return Identity(
        uuid=identity.uuid,
        serial=identity.serial,
        asset_tag=identity.asset_tag,
        macs=tuple(mac for mac in identity.macs if stand[mac] < 2),
    )


def _strength(machine: Identity, computer: Identity) -> Strength | None:
    """How well they agree; None when the strongest key that both have says no, or there is none."""
    uuid = serial = asset_tag = None
    if machine.uuid and computer.uuid:
        uuid = computer.uuid in {machine.uuid, swap_uuid(machine.uuid)}
    if machine.serial and computer.serial:
        serial = machine.serial.lower() == computer.serial.lower()
    if machine.asset_tag and computer.asset_tag:
        asset_tag = machine.asset_tag.lower() == computer.asset_tag.lower()
    address = not set(machine.macs).isdisjoint(computer.macs)
    verdict = next((key for key in (uuid, serial, asset_tag) if key is not None), address)
    return (bool(uuid), bool(serial), bool(asset_tag), address) if verdict else None
