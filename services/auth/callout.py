"""Decides who comes on the bus as a boot client: the other end of NATS's auth callout.

A client says its machine key as its user name and the boot credential of its image as its password.
Whoever has a good one becomes a user with the permissions of the site's boot role for that machine,
for at most an hour; then the server ends the connection and the client comes again.

What a decision needs is at hand, so that each takes a fraction of a millisecond: nothing is asked
of anybody meanwhile. Those who wait are taken address by address, one at a time.
"""

import asyncio
import base64
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus import subjects
from bus.boot_credential import BootCredential, CredentialRefused
from bus.boot_signing import BootVerifier
from bus.claims import (
    VERSION,
    AuthorizationRequest,
    AuthorizationResponse,
    Claims,
    UserOfRole,
    sign,
)
from bus.connection import Connection
from bus.machines import valid_key
from bus.messages import decoder, encode
from bus.waiting import end
from services.auth.callout_keys import CalloutKeys
from services.auth.metrics import CalloutMetrics, Reason
from services.auth.presences import Line, Presences
from services.auth.refusals import Refusals
from services.auth.turns import Turns

CONNECTION_LIFETIME: Final = 3600.0
"""Seconds that a boot client stays connected, at most; then it shows its credential again."""
_EARLIEST: Final = 0.9
"""Of the lifetime: those who came together are not to come again together."""
WAITING: Final = 4000
"""How many wait to be let in, at most, and of one address a part of them."""
WAITING_OF_EACH: Final = 2000
PATIENCE: Final = 2.5
"""Seconds after which it is too late: a server of an estate waits for 3."""
_PASSING: Final[frozenset[Reason]] = frozenset({"too_many", "locked_out", "overloaded"})
"""Of these nobody is told: a client hears only that it may not come in, and would blame its
credential. Without an answer it comes again in a few seconds, as it does without this service."""
_GROUP: Final = "auth"
_BACKLOG: Final = 65_536
_CREDENTIALS: Final = 1000
"""Good credentials that are remembered: all machines of an image have the same."""
_LEAVE_TIMEOUT: Final = 2.0


class Admitted(Struct, frozen=True):
    """Tells the other copies who was let in."""

    line: Line
    machine: str
    image: str
    address: str


class _Waiting(Struct, frozen=True):
    """Somebody who waits ``since`` then, by the clock that nobody sets."""

    message: Msg
    claims: Claims[AuthorizationRequest]
    since: float


class Refused(Exception):
    """Somebody is not let in."""

    def __init__(self, reason: Reason, image: str | None = None) -> None:
        super().__init__(reason)
        self.reason: Final = reason
        self.image = image


_request = decoder(Claims[AuthorizationRequest])
_admitted = decoder(Admitted)


class Callout:
    """One copy of it, on a connection of its own; `start` it, and `leave` when it is to end.

    In its account, where nobody else is, the copies tell one another whom they have let in.
    ``revoked`` are the ids of images, and when each was revoked.
    """

    def __init__(
        self,
        connection: Connection,
        site: str,
        keys: CalloutKeys,
        presences: Presences,
        refusals: Refusals,
        revoked: Callable[[], Mapping[str, float]],
        metrics: CalloutMetrics,
        *,
        lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._site = site
        self._keys = keys
        self._presences = presences
        self._refusals = refusals
        self._revoked = revoked
        self._metrics = metrics
        self._lifetime = lifetime
        self._clock = clock
        self._verifier = BootVerifier(keys.estate, keys.boot_key)
        self._good: dict[str, BootCredential] = {}
        self._turns: Turns[_Waiting] = Turns(WAITING, WAITING_OF_EACH)
        self._some_wait = asyncio.Event()
        self._asked: Subscription | None = None
        self._working: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("callout").bind(site=site)

    async def start(self) -> None:
        """Returns when the server asks this copy."""
        await self._connection.subscribe(subjects.admitted(self._site), cb=self._heard)
        self._working = asyncio.create_task(self._work())
        self._asked = await self._connection.subscribe(
            subjects.CALLOUT, queue=_GROUP, cb=self._receive, pending_msgs_limit=_BACKLOG
        )
        await self._connection.flush()

    async def leave(self) -> None:
        """Is asked no more, and returns when all who have asked are answered."""
        try:
            async with asyncio.timeout(_LEAVE_TIMEOUT):
                if self._asked and self._connection.is_connected:
                    await self._asked.drain()  # type: ignore[no-untyped-call]
                while self._turns:
                    await self._answer(self._turns.take())
                if self._connection.is_connected:
                    await self._connection.flush()
        except (nats.errors.Error, TimeoutError) as error:
            self._log.warning("some who asked are not answered", error=type(error).__name__)
        finally:
            if self._working:
                await end(self._working)

    async def sign_of_life(self) -> None:
        """Raises if the server cannot ask.

        Raises:
            nats.errors.Error: the line is down.
        """
        if not self._connection.is_connected or self._working is None or self._working.done():
            raise nats.errors.ConnectionClosedError

    async def _heard(self, message: Msg) -> None:
        try:
            told = _admitted.decode(message.data)
        except ValueError:
            return
        self._presences.admitted(told.line, told.machine, told.image, told.address, self._clock())

    async def _receive(self, message: Msg) -> None:
        try:
            claims = _request.decode(_payload(message.data))
        except (ValueError, RecursionError):
            self._log.warning("a server has asked what cannot be read")
            return
        waiting = _Waiting(message, claims, time.monotonic())
        left_out = self._turns.put(claims.nats.client_info.host, waiting)
        self._some_wait.set()
        if left_out:
            await self._refuse(left_out, Refused("overloaded"))

    async def _work(self) -> None:
        while True:
            await self._some_wait.wait()
            self._some_wait.clear()
            while self._turns:
                await self._answer(self._turns.take())
                # Those who sign in are served by the same loop.
                await asyncio.sleep(0)

    async def _answer(self, waiting: _Waiting) -> None:
        if time.monotonic() - waiting.since > PATIENCE:
            await self._refuse(waiting, Refused("overloaded"))
            return
        try:
            user, admitted = self._decide(waiting.claims.nats)
        except Refused as refused:
            await self._refuse(waiting, refused)
        except Exception:  # noqa: BLE001 (whatever it is, the next one is decided on)
            self._log.exception("a decision failed")
            await self._refuse(waiting, Refused("overloaded"))
        else:
            self._presences.admitted(
                admitted.line, admitted.machine, admitted.image, admitted.address, self._clock()
            )
            await self._send(waiting, AuthorizationResponse(version=VERSION, jwt=user), admitted)
            self._metrics.decided("ok", time.monotonic() - waiting.since)

    def _decide(self, asked: AuthorizationRequest) -> tuple[str, Admitted]:
        """The user that a client is to be.

        Raises:
            Refused: it is let in as nobody.
        """
        now = self._clock()
        self._presences.forget_awaited(now)
        address = asked.client_info.host
        machine = asked.connect_opts.user
        credential = self._credential(asked.connect_opts.password, address, now)
        image = credential.image
        if image in self._revoked():
            raise Refused("revoked", image)
        if not valid_key(machine):
            raise Refused("bad_machine", image)
        if not self._presences.has_room(machine, image):
            raise Refused("too_many", image)
        stays = self._lifetime * random.uniform(_EARLIEST, 1)  # noqa: S311 (no secret)
        user = sign(
            self._keys.signing,
            asked.user_nkey,
            UserOfRole(version=VERSION, issuer_account=self._keys.account),
            name=machine,
            expires_at=int(min(now + stays, credential.expires)),
        )
        line = Line(asked.server_id.id, asked.client_info.id)
        return user, Admitted(line, machine, image, address)

    def _credential(self, token: str, address: str, now: float) -> BootCredential:
        known = self._good.get(token)
        if known and now < known.expires:
            return known
        # Nobody guesses what is known, so whoever else guesses there does not keep it out.
        if not self._refusals.may_be_looked_at(address):
            raise Refused("locked_out")
        try:
            credential = self._verifier.verify(token, now)
        except CredentialRefused as refused:
            raise Refused(refused.reason) from None
        if len(self._good) >= _CREDENTIALS:
            del self._good[next(iter(self._good))]
        self._good[token] = credential
        return credential

    async def _refuse(self, waiting: _Waiting, refused: Refused) -> None:
        asked = waiting.claims.nats
        machine = asked.connect_opts.user
        self._metrics.decided(refused.reason, time.monotonic() - waiting.since)
        self._refusals.refused(
            refused.reason,
            asked.client_info.host,
            machine if valid_key(machine) else None,
            refused.image,
        )
        if refused.reason not in _PASSING:
            # The server writes it to its log.
            await self._send(waiting, AuthorizationResponse(version=VERSION, error=refused.reason))

    async def _send(
        self, waiting: _Waiting, answer: AuthorizationResponse, admitted: Admitted | None = None
    ) -> None:
        asked = waiting.claims.nats
        signed = sign(self._keys.auth, asked.user_nkey, answer, audience=asked.server_id.id)
        try:
            if admitted:
                # First: whatever the client asks then, another copy knows from where it comes.
                told = encode(admitted)
                await self._connection.publish(subjects.admitted(self._site), told)
            await self._connection.answer(waiting.message, signed.encode(), None)
        except nats.errors.Error as error:
            # The line is down: the client comes again.
            self._log.warning("an answer could not be sent", error=type(error).__name__)


def _payload(token: bytes) -> bytes:
    """What a server says; in its own account nobody else can ask, so nobody need have signed it."""
    said = token.split(b".")
    if len(said) != 3:
        raise ValueError("this is no token")
    return base64.urlsafe_b64decode(said[1] + b"=" * (-len(said[1]) % 4))
