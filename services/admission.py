"""Who asks, and what they may deploy by the rules as they are now."""

import contextlib
from collections.abc import Mapping
from typing import Final

import nats.errors
import structlog
from msgspec import Struct

from bus import subjects
from bus.access import ALL_RIGHTS, Rights, Rule, jobs_in, rights_of, rule_decoder
from bus.buckets import Mirror
from bus.connection import Connection
from bus.events import EventLog, NotKeptError
from bus.messages import Protection
from bus.option_store import LiveOptions
from bus.sessions import Claims, SessionRefused, Verifier
from bus.technicians import Technician, technician_decoder, technician_key

_NAMED: Final = frozenset({"server", "domain"})
"""The protections under which technicians have names, and so rights of their own."""


class Admitted(Struct, frozen=True):
    """Somebody whose session is good: under which protection, and who it is where names are known.

    ``name`` is None where nobody signs in, or all with one password.
    """

    protection: Protection
    name: str | None
    rights: Rights


_ANYBODY: Final = Admitted("none", None, ALL_RIGHTS)


class Admission:
    """Sessions, technicians and access rules of a site, always at hand."""

    def __init__(
        self, connection: Connection, site: str, options: LiveOptions, events: EventLog
    ) -> None:
        self._options = options
        self._events = events
        self._verifier = Verifier(connection, site)
        self._technicians: Mapping[str, bytes] = {}
        self._rules: tuple[Rule, ...] = ()
        self.ruled_jobs: frozenset[int] = frozenset()
        """The jobs that access rules name."""
        self._known: dict[str, Technician | None] = {}
        self._rights: dict[tuple[str, str | None], Rights] = {}
        self._people = Mirror(connection, subjects.TECHNICIANS, site, self._people_changed)
        self._access = Mirror(connection, subjects.ACCESS, site, self._rules_changed)
        self._log = structlog.get_logger("admission").bind(site=site)

    async def start(self) -> None:
        """Returns when all of it has been read."""
        await self._verifier.start()
        await self._people.start()
        await self._access.start()

    async def stop(self) -> None:
        """Watches no longer."""
        await self._access.stop()
        await self._people.stop()
        await self._verifier.stop()

    async def admit(self, token: str | None, machine: str) -> Admitted:
        """Who asks.

        Raises:
            Problem: ``login_required`` or ``session_expired``; an event tells of a bad session.
        """
        protection = self._options.current.protection
        new = token is not None and not self._verifier.has_seen(token)
        try:
            claims = await self._verifier.admit(token, machine, protection)
            if claims is None or protection not in _NAMED:
                return Admitted(protection, None, ALL_RIGHTS)
            return await self._named(claims, new=new)
        except SessionRefused as refused:
            if refused.reason != "missing":
                self._log.warning("a session is refused", machine=machine, reason=refused.reason)
                with contextlib.suppress(NotKeptError):
                    await self._events.record(
                        "session_refused", machine=machine, details={"reason": refused.reason}
                    )
            raise

    def at_hand(self, token: str | None, machine: str) -> Admitted | None:
        """Who asks, as `admit` finds it without asking anybody; None for all others."""
        protection = self._options.current.protection
        if protection == "none":
            return _ANYBODY
        claims = token and self._verifier.at_hand(token, machine, protection)
        if not claims:
            return None
        if protection not in _NAMED:
            return Admitted(protection, None, ALL_RIGHTS)
        return self._by_name(claims)

    def rights(self, protection: Protection, name: str | None) -> Rights:
        """What somebody may deploy who was admitted under a protection by this name."""
        if protection not in _NAMED:
            return ALL_RIGHTS
        return self._rights_of(technician_key(protection, name or ""))

    async def _named(self, claims: Claims, *, new: bool) -> Admitted:
        key = technician_key(claims.protection, claims.username or "")
        if new or key not in self._technicians:
            # What the auth service has written at the sign-in may be ahead of the watch.
            try:
                await self._people.fetch(key)
            except (nats.errors.Error, TimeoutError) as error:
                self._log.warning("a technician cannot be asked for", error=type(error).__name__)
        admitted = self._by_name(claims)
        if admitted is None:
            raise SessionRefused("session_expired", "account changed")
        return admitted

    def _by_name(self, claims: Claims) -> Admitted | None:
        key = technician_key(claims.protection, claims.username or "")
        technician = self._technician(key)
        if technician is None or technician.generation != claims.generation:
            return None
        return Admitted(claims.protection, claims.username, self._rights_of(key))

    def _rights_of(self, key: str) -> Rights:
        administrators = self._options.current.administrators
        found = self._rights.get((key, administrators))
        if found is None:
            found = rights_of(self._rules, self._technician(key), administrators)
            self._rights[key, administrators] = found
        return found

    def _technician(self, key: str) -> Technician | None:
        if key not in self._known and key in self._technicians:
            self._known[key] = self._read(key)
        return self._known.get(key)

    def _read(self, key: str) -> Technician | None:
        try:
            return technician_decoder.decode(self._technicians[key])
        except ValueError:
            self._log.exception("a technician cannot be read", key=key)
            return None

    def _people_changed(self, values: Mapping[str, bytes]) -> None:
        self._technicians = values
        self._known.clear()
        self._rights.clear()

    def _rules_changed(self, values: Mapping[str, bytes]) -> None:
        try:
            self._rules = tuple(rule_decoder.decode(value) for value in values.values())
        except ValueError:
            # It may be the one that denies.
            self._log.exception("an access rule cannot be read, so none allows anything")
            self._rules = ()
        self.ruled_jobs = jobs_in(self._rules)
        self._rights.clear()
