"""Tells operators by mail when requests are rejected: a digest, never a flood.

What has been mailed stands in a bucket, the rejected requests stand in the events. So nothing is
held in memory, a monitor that dies loses no mail, and any number of copies send at most one mail a
minute and site: whoever is to send one takes that minute in the bucket first, by compare-and-set. A
mail server that does not take a mail is asked again with growing pauses, for all that has come
meanwhile. Each rejection is mailed once, and again only if a copy, or its line to the bus, dies
between the mail server's answer and the bucket's.

Where no mail is set up (`mail_to`, `mail_server`), nothing is remembered either: whoever sets it up
is told from then on, and of the last ten minutes.
"""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import nats.js.errors
import structlog
from msgspec import Struct
from nats.js.kv import KeyValue

from bus import subjects
from bus.connection import Connection
from bus.event_stream import BATCH, Placed, reader
from bus.events import Kind
from bus.messages import Time, encode
from bus.options import Options
from bus.pulling import first_since
from services.monitor.credentials import Credentials
from services.monitor.digest import Rejections, digest
from services.monitor.metrics import MailMetrics
from services.monitor.part import Loop, Part
from services.monitor.smtp import MailError, MailServer, mail_server, send

INTERVAL: Final = timedelta(minutes=1)
"""From the sending of one mail to that of the next."""
LONGEST_PAUSE: Final = timedelta(minutes=15)
"""The longest pause after mails that were not taken."""
MOST: Final = 10_000
"""Rejected requests that one mail tells of; what is left is the next one's."""
PATIENCE: Final = 30.0
"""Seconds that a mail server gets; less than the interval, in which no other copy sends."""

_KIND: Final[Kind] = "request_rejected"
_LOOK_BACK: Final = timedelta(minutes=10)
_COLLECTING: Final = 5.0
"""Seconds from a rejection to its mail, in which others may join it."""
_LOOK: Final = 60.0
"""Seconds after which a copy looks by itself: the one that set out to send a mail may be dead, the
options may be others."""


class Mailed(Struct, frozen=True, kw_only=True):
    """How far operators have been told, as the bucket keeps it for a site."""

    through: int
    """The sequence of the last event that a mail has told of."""
    at: Time
    """When a copy last set out to send one."""
    failures: int = 0
    """Mails in a row that were not taken, or whose sender has died."""

    @property
    def pause(self) -> timedelta:
        """How long to wait after that."""
        return min(INTERVAL * 2.0 ** min(max(self.failures - 1, 0), 8), LONGEST_PAUSE)


class _Setup(Struct, frozen=True, kw_only=True):
    """The options of mail, where they make sense together."""

    server: MailServer
    sender: str
    recipients: tuple[str, ...]


class Mailer(Part):
    """Mails a site's rejected requests to its operators until it is stopped."""

    def __init__(
        self,
        connection: Connection,
        site: str,
        options: Callable[[], Options],
        metrics: MailMetrics,
        *,
        bucket: str,
        trust: ssl.SSLContext | None = None,
        known: Credentials | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        collecting: float = _COLLECTING,
        patience: float = PATIENCE,
        most: int = MOST,
    ) -> None:
        """Sends nothing yet.

        Args:
            connection: to the bus.
            site: whose requests.
            options: the options in force.
            metrics: counts the mails.
            bucket: where it stands how far operators have been told.
            trust: the authorities that are believed, else the system's.
            known: the credentials to sign in with, if any.
            now: the clock.
            collecting: seconds from a rejection to its mail.
            patience: seconds that the mail server gets.
            most: rejected requests that one mail tells of.
        """
        super().__init__(Loop("mail", site, self._look))
        self.kinds = frozenset[Kind]({_KIND})
        self._connection = connection
        self._stream = connection.jetstream()
        self._site = site
        self._options = options
        self._metrics = metrics
        self._bucket = bucket
        self._key = subjects.site_key(site, "mail")
        self._trust = trust or ssl.create_default_context()
        self._known = known
        self._now = now
        self._collecting = collecting
        self._patience = patience
        self._most = most
        self._tried: _Setup | None = None
        self._wait = 0.0
        """Seconds until the next look."""
        self._rejected = asyncio.Event()
        self._log = structlog.get_logger("mail").bind(site=site)

    async def tell(self) -> float | None:
        """Mails what is to be mailed now; the seconds until more can be, None when all is told.

        Raises:
            nats.errors.Error, OSError: the bus cannot be asked.
            TimeoutError: the bus does not answer.
        """
        bucket = await self._stream.key_value(self._bucket)
        setup = self._setup()
        entry = await _get(bucket, self._key)
        if setup is None:
            if entry:
                await bucket.delete(self._key)
            return None
        now = self._now()
        last = (await self._stream.stream_info(subjects.EVENTS)).state.last_seq
        mailed, known = _mailed(entry), entry.revision if entry else None
        # A stream that ends before what has been mailed is another than it was.
        if mailed is None or mailed.through > last:
            mailed = Mailed(through=await self._before(now - _LOOK_BACK, last), at=now - INTERVAL)
        # Other options may be better ones, so that these need not wait longer than ever.
        pause = mailed.pause if setup == self._tried else INTERVAL
        # Clocks of two copies differ a little. On one that was set back, the last mail is yet to
        # come for long: that must silence nobody.
        if -INTERVAL <= now - mailed.at < pause:
            return (mailed.at + pause - now).total_seconds()
        rejections, through, more = await self._read(mailed.through)
        if not rejections.count:
            seen = msgspec.structs.replace(mailed, through=through)
            if entry is None or seen != _mailed(entry):
                await self._keep(bucket, seen, known)
            return None
        claim = Mailed(through=mailed.through, at=now, failures=mailed.failures + 1)
        revision = await self._keep(bucket, claim, known)
        if revision is None:
            return None  # another copy was faster, and sends it
        self._tried = setup
        if not await self._send(setup, rejections, claim):
            return claim.pause.total_seconds()
        await self._keep(bucket, Mailed(through=through, at=now), revision)
        return INTERVAL.total_seconds() if more else None

    def hear(self, placed: Placed) -> None:
        """Looks soon: a request has been rejected."""
        self._rejected.set()

    def caught_up(self) -> None:
        """It looks anyway."""

    async def _look(self) -> None:
        # If it fails, it is done at once when it can be.
        wait, self._wait = self._wait, 0.0
        if await self._woken(wait):
            await asyncio.sleep(self._collecting)
        self._rejected.clear()
        wait_more = await self.tell()
        self._wait = _LOOK if wait_more is None else min(wait_more, _LOOK)

    async def _woken(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._rejected.wait()
        except TimeoutError:
            return False

    def _setup(self) -> _Setup | None:
        options = self._options()
        if not options.mail_to or not options.mail_server:
            return None
        try:
            server = mail_server(options.mail_server)
        except ValueError as error:
            self._log.error("no mail can be sent", why=str(error))
            return None
        domain = options.mail_to[0].rpartition("@")[2]
        sender = options.mail_from or f"imageinvoker@{domain}"
        return _Setup(server=server, sender=sender, recipients=options.mail_to)

    async def _before(self, moment: datetime, last: int) -> int:
        """The sequence after which what was kept since a moment stands."""
        subject = subjects.event(self._site, kind=_KIND)
        first = await first_since(self._connection, subjects.EVENTS, subject, moment)
        return last if first is None else first - 1

    async def _read(self, after: int) -> tuple[Rejections, int, bool]:
        """What was rejected since, the last sequence of it, and whether there is more."""
        rejections = Rejections()
        async with reader(self._connection, self._site, after=after, kinds=(_KIND,)) as events:
            while events.pending and rejections.count < self._most:
                room = min(self._most - rejections.count, BATCH)
                for placed in await events.batch(room):
                    rejections.add(placed.event)
            return rejections, events.position, events.pending > 0

    async def _send(self, setup: _Setup, rejections: Rejections, claim: Mailed) -> bool:
        log = self._log.bind(server=setup.server.host, rejections=rejections.count)
        try:
            message = digest(self._site, rejections, setup.sender, setup.recipients, claim.at)
            refused = await send(
                message,
                setup.sender,
                setup.recipients,
                setup.server,
                known=self._known,
                trust=self._trust,
                seconds=self._patience,
            )
        except (MailError, ValueError) as error:
            why = str(error) if isinstance(error, MailError) else "an address cannot be used"
            log.warning("no mail could be sent", why=why, again_in=claim.pause.total_seconds())
            self._metrics.ended("failed")
            return False
        self._metrics.ended("sent")
        if refused:
            log.warning("recipients of a mail are refused", refused=refused)
        log.info("operators are told by mail")
        return True

    async def _keep(self, bucket: KeyValue, mailed: Mailed, revision: int | None) -> int | None:
        """Writes how far operators are told; None when another copy has written meanwhile."""
        try:
            if revision is None:
                return await bucket.create(self._key, encode(mailed))
            return await bucket.update(self._key, encode(mailed), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return None


async def _get(bucket: KeyValue, key: str) -> KeyValue.Entry | None:
    try:
        return await bucket.get(key)
    except nats.js.errors.KeyNotFoundError:
        return None


def _mailed(entry: KeyValue.Entry | None) -> Mailed | None:
    try:
        return msgspec.json.decode(entry.value or b"", type=Mailed) if entry else None
    except msgspec.DecodeError:
        return None
