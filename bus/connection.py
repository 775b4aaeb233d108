"""Connect to the bus, reconnect for ever with jitter, ask a question, leave without losing one."""

import asyncio
import contextlib
import math
import random
import ssl
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

import nats.errors
from nats.aio.client import PING_PROTO, Client, Server, Srv
from nats.aio.msg import Msg
from nats.protocol.parser import STALE_CONNECTION

from bus import subjects
from bus.contract import Endpoint, FromMachine
from bus.door import Door, DoorError, addresses_in, boot_credential, distrust, refusal
from bus.line import Line, Reader
from bus.messages import encode
from bus.problems import CODE_HEADER, from_wire
from bus.waiting import end

if TYPE_CHECKING:
    from bus.credentials import Credentials

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_CONNECT_TIMEOUT: Final = 4
"""Seconds for each step; a server of an estate waits for the auth service for 3."""
_SILENCE: Final = 10
"""Seconds between pings; a server that misses two is taken for gone."""
_HEADERS: Final = 16_384
"""Bytes of a message's headers that are read, at most; services send each other a few hundred."""
_SETTLED: Final = 10.0
"""Seconds after which a connection counts as one that holds."""
_IS_WEB: Final = frozenset({"ws", "wss"})
_STAYS: Final = (
    "permissions violation",
    "maximum subscriptions exceeded",
    "invalid subject",
    "invalid publish subject",
)
"""What a server complains of without hanging up."""

Asked = TypeVar("Asked", bound=FromMachine)
Answered = TypeVar("Answered")
Read = TypeVar("Read")
Report = Callable[[Exception], Awaitable[None]]


class BusUnavailableError(Exception):
    """Nobody answered in time: no connection, no such service, or a service too busy to say so."""


class Connection(Client):
    """A connection to the bus whose ``flush`` is a fence: it returns when the server has seen all.

    nats-py 2.16 writes a ping straight to the socket, ahead of what waits in its buffer, so that
    its ``flush`` and ``drain`` may return before a SUB, UNSUB or PUB has left. Queueing the ping
    behind the buffer mends both. And it reads no more once the answer comes to a ping for which
    nobody waits any longer: a ``flush`` that was given up. And what it does beside publishing a
    question costs as much again as the question itself, half of it for names that nobody guesses.

    Whatever a client sends, this connection goes on: nats-py would read nothing more after headers
    or a reply subject that it cannot read, which are the sender's to choose.

    Whatever a server says as it hangs up, this connection comes again: nats-py would end for good
    when credentials expire. And it asks a server for encryption where the address does; nats-py
    would leave that to the server.
    """

    def __init__(self, door: Door = Door()) -> None:
        super().__init__()
        self._ps = Reader(self)
        self.door: Final = door
        self._shown: Credentials | None = None
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._questions = count(1)
        self._up_since = math.inf
        self._thrown_out = 0

    @property
    def certificate_ends(self) -> float | None:
        """When the server's certificate expires, in seconds since 1970; None without encryption."""
        return self._transport.certificate_ends if isinstance(self._transport, Line) else None

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Asked for by nats-py for each line."""
        return self.door.context()

    def sign(self, nonce: str) -> bytes:
        """Asked for by nats-py for each line, before the token."""
        # Only here: a boot client starts without what signing needs.
        from bus.credentials import read  # noqa: PLC0415

        self._shown = read(self.door.credentials) if self.door.credentials else None
        return self._shown.sign(nonce) if self._shown else b""

    def token(self) -> bytes:
        """Asked for by nats-py for each line."""
        return self._shown.token.encode() if self._shown else b""

    def password(self) -> str:
        """Asked for by nats-py for each line."""
        return boot_credential(self.door.boot.credential) if self.door.boot else ""

    def next_server(self, pool: list[Server], _info: dict[str, object]) -> tuple[Server, float]:
        """Asked for by nats-py when the connection is lost: whom to try, in how many seconds."""
        server = min(pool, key=lambda each: each.reconnects)
        return server, backoff(max(server.reconnects, self._thrown_out))

    def on_reconnect(self, action: Callable[[], None]) -> None:
        """Calls ``action`` whenever a lost connection is up again."""
        self._on_reconnect.append(action)

    def on_disconnect(self, action: Callable[[], None]) -> None:
        """Calls ``action`` whenever the connection is lost."""
        self._on_disconnect.append(action)

    def up(self) -> None:
        """Told whenever it is up."""
        self._up_since = asyncio.get_running_loop().time()

    async def reconnected(self) -> None:
        """Told by nats-py."""
        self.up()
        for action in self._on_reconnect:
            action()

    async def disconnected(self) -> None:
        """Told by nats-py."""
        # Whoever is thrown out as soon as it is in must not come back at once each time.
        if asyncio.get_running_loop().time() - self._up_since >= _SETTLED:
            self._thrown_out = 0
        self._up_since = math.inf
        for action in self._on_disconnect:
            action()

    async def close(self) -> None:
        """Closes for good; what could not be sent, the line being down, is dropped.

        nats-py would write it to the lost connection and fail; and it would not wait for the end of
        an attempt to come back, which might still succeed then.
        """
        coming_back = self._reconnection_task
        try:
            if coming_back and coming_back is not asyncio.current_task():
                await end(coming_back)
            if not self.is_connected:
                self._pending = []
                self._pending_data_size = 0
            with contextlib.suppress(OSError):
                await super().close()
        finally:
            # Whoever does not wait for the end leaves no line open either.
            self.give_up()

    def give_up(self) -> None:
        """Ends the line at once, as of a connection that was not made."""
        if isinstance(self._transport, Line):
            self._transport.abort()

    async def answer(self, question: Msg, data: bytes, headers: dict[str, str] | None) -> None:
        """Answers a question of the bus.

        As `publish` does, but for a look at the subject, which would find nothing: the server wrote
        it, and it was read from one line. The answer must not be larger than the bus carries.
        """
        if self.is_connected:
            await self._send_publish(question.reply, "", data, len(data), headers)
        else:
            await self.publish(question.reply, data, headers=headers)

    async def _request_new_style(
        self,
        subject: str,
        payload: bytes,
        timeout: float = 1,  # noqa: ASYNC109 (the library's name)
        headers: dict[str, str] | None = None,
    ) -> Msg:
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self._resp_sub_prefix:
            await self._init_request_sub()
        prefix = (self._resp_sub_prefix or b"").decode()
        # The prefix is nobody else's: a number tells the questions of one connection apart.
        token = str(next(self._questions))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._resp_map[token] = answer
        try:
            await self.publish(subject, payload, reply=prefix + token, headers=headers)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            self._resp_map.pop(token, None)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        if not headers or len(headers) > _HEADERS:
            return None
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg | None:
        try:
            message: Msg = super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            # Nobody listens there for an answer.
            return None
        return message

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _connect_to_server(self, s: Srv) -> None:
        # Of an attempt before this one; nats-py would leave its line open.
        self.give_up()
        if s.uri.scheme not in _IS_WEB:
            self._transport = Line()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await super()._process_connect_init()
        except ssl.SSLCertVerificationError as error:
            raise distrust(error) from error
        except DoorError:
            raise
        except nats.errors.Error as error:
            raise refusal(str(error), self._shown, clock() - began) or error from None

    def _connect_command(self) -> bytes:
        if isinstance(self._transport, Line) and self._current_server:
            scheme = self._current_server.uri.scheme
            self.door.check_line(scheme, self._transport.peer, encrypted=self._transport.encrypted)
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        if STALE_CONNECTION in err_msg:
            await super()._process_err(err_msg)
            return
        error = refusal(err_msg, self._shown) or nats.errors.Error("nats: " + err_msg.strip("'"))
        self._err = error
        await self._error_cb(error)
        if any(each in err_msg for each in _STAYS):
            return
        self._thrown_out += 1
        await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        task = self._reconnection_task
        if self.is_connected and task and not task.done():
            # Thrown out on the last step of coming back; nats-py would mistake one try for another.
            task.cancel()
            await asyncio.wait({task})
        await super()._process_op_err(e)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt number ``attempt`` (from 0) to reach somebody who is away."""
    return jittered(attempt, _FIRST_DELAY, _LONGEST_DELAY)


def jittered(attempt: int, first: float, longest: float) -> float:
    """Seconds to wait before attempt number ``attempt`` (from 0): doubling, bounded, with jitter.

    Full jitter spreads a crowd best (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    limit = min(longest, first * 2 ** min(attempt, 10))
    return random.uniform(limit / 4, limit)  # noqa: S311 (no secret)


async def connect(
    server: str,
    name: str,
    *,
    inbox: str | None = None,
    report: Report | None = None,
    door: Door | None = None,
) -> Connection:
    """A connection to the bus; waits for the bus as long as it takes.

    Args:
        server: one address or several, separated by commas.
        name: what the server's monitoring shows of us.
        inbox: the only prefix replies come to; a bus that trusts no client allows no other.
        report: told of every error of the connection, failed attempts included; a `DoorError`
            says what keeps us out.
        door: how we come in, where not everybody may.

    Raises:
        UnprotectedError: a secret would go in the clear to one of the addresses.
    """
    addresses = addresses_in(server)
    door = door or Door()
    door.check(addresses)
    heard = report or _unheard
    attempt = 0
    while True:
        connection = Connection(door)
        try:
            await connection.connect(
                addresses,
                name=name,
                inbox_prefix=inbox or subjects.inbox(name),
                error_cb=heard,
                reconnected_cb=connection.reconnected,
                disconnected_cb=connection.disconnected,
                connect_timeout=_CONNECT_TIMEOUT,
                ping_interval=_SILENCE,
                max_outstanding_pings=2,
                # One round through the servers; the waiting between rounds is ours, with jitter.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                # What is sent while the line is down fails at once instead of waiting unseen.
                pending_size=-1,
                reconnect_to_server_handler=connection.next_server,
                signature_cb=connection.sign if door.credentials else None,
                user_jwt_cb=connection.token if door.credentials else None,
                user=door.boot.machine if door.boot else None,
                password=connection.password if door.boot else None,
            )
        except asyncio.CancelledError:
            connection.give_up()
            raise
        except (nats.errors.Error, OSError, TimeoutError) as error:
            connection.give_up()
            if _called_off():
                raise asyncio.CancelledError from error
            await heard(error)
            await asyncio.sleep(backoff(attempt))
            attempt += 1
        else:
            if _called_off():
                await connection.close()
                raise asyncio.CancelledError
            connection.options["max_reconnect_attempts"] = -1
            connection.up()
            return connection


async def ask(
    connection: Connection,
    site: str,
    endpoint: Endpoint[Asked, Answered],
    machine: str,
    question: Asked,
    *,
    timeout: float = 5,  # noqa: ASYNC109 (the bus's own time-out)
) -> Answered:
    """Asks a service for a machine and waits for its answer.

    Raises:
        Problem: the service's answer was a problem.
        BusUnavailableError: no answer within ``timeout`` seconds, or nobody to ask.
    """
    return await ask_reading(
        connection,
        site,
        endpoint,
        machine,
        question,
        lambda reply: endpoint.answered_decoder.decode(reply.data),
        timeout=timeout,
    )


async def ask_reading(
    connection: Connection,
    site: str,
    endpoint: Endpoint[Asked, Answered],
    machine: str,
    question: Asked,
    read: Callable[[Msg], Read],
    *,
    timeout: float = 5,  # noqa: ASYNC109 (the bus's own time-out)
) -> Read:
    """As `ask`, for an answer that is more than its body: gives what ``read`` makes of it.

    ``read`` says by a ValueError that it is no answer.

    Raises:
        Problem: the service's answer was a problem.
        BusUnavailableError: no answer within ``timeout`` seconds, or nobody to ask.
    """
    subject = subjects.endpoint(site, endpoint.service, endpoint.verb, machine)
    try:
        reply = await connection.request(subject, encode(question), timeout=timeout)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BusUnavailableError(f"{endpoint.service} did not answer") from error
    if reply.headers and CODE_HEADER in reply.headers:
        raise from_wire(reply.data)
    try:
        return read(reply)
    except ValueError as error:
        raise BusUnavailableError(f"{endpoint.service} gave an answer that is none") from error


def _called_off() -> bool:
    """Whether this task was cancelled: Python 3.11's wait_for, within nats-py, may forget it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _unheard(_error: Exception) -> None:
    """For who has nobody to tell."""
