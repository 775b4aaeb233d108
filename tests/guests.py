"""A site whose bus trusts nobody, and the machines that boot there with a boot credential."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import nats.errors

from bus import credentials, subjects
from bus.boot_credential import BootCredential
from bus.boot_signing import issue
from bus.buckets import prepare
from bus.claims import NO_LIMIT, VERSION, Account, Role, User, sign
from bus.connection import Connection, connect
from bus.credentials import Credentials
from bus.door import BootLogin, Door
from bus.machines import machine_key
from bus.messages import Machine
from bus.nkeys import KeyPair
from bus.option_store import LiveOptions
from estate import permissions
from services.auth.callout import CONNECTION_LIFETIME
from services.auth.callout_keys import CalloutKeys, read_callout_keys
from services.auth.presences import Bounds
from services.auth.program import with_callout
from services.running import Program, Site
from tests.secured import SecuredServer
from tests.site import new_machine

ESTATE: Final = "north"
DAY: Final = 86_400
MAX_PAYLOAD: Final = 1_048_576
MAX_SUBSCRIPTIONS: Final = 1_000
"""Those of a site's server, for each connection: nats-server 2.15 does not keep to what a role says
of them for those whom a callout lets in (its issue 5002)."""
_COMES_WITHIN: Final = 10.0


class GuardedServer(SecuredServer):
    """A secured server whose boot clients have the permissions that an estate gives them."""

    def _accounts(self) -> dict[str, str]:
        accounts = super()._accounts()
        role = Role(key=self.boot.public, role="boot", template=permissions.boot(self.site))
        account = Account(
            version=VERSION,
            limits=self._limits,
            default_permissions={"pub": {}, "sub": {}},
            signing_keys=(role,),
        )
        name = self.account.public
        return accounts | {name: sign(self.operator, name, account, name=self.site)}

    @property
    def pid(self) -> int:
        """The id of its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self._log.read_text()


class Entry:
    """A site that is guarded: its server, its keys, and credentials of any kind."""

    def __init__(self, server: GuardedServer) -> None:
        self.server = server
        self.site = server.site
        self.boot_key = KeyPair.generate("account")
        self.folder = server.folder / "keys"
        self._files = 0
        self._write()

    @property
    def keys(self) -> CalloutKeys:
        return read_callout_keys(self.folder)

    def program(self, bounds: Bounds = Bounds(), lifetime: float = CONNECTION_LIFETIME) -> Program:
        """The auth service that decides who comes in."""
        return with_callout(self.keys, self.server.url, bounds, lifetime)

    def issue(self, image: str = "win11", **changes: object) -> str:
        """A boot credential that is good, but for the changes."""
        now = int(time.time())
        usual: dict[str, object] = {
            "estate": ESTATE, "image": image, "issued": now, "expires": now + 90 * DAY,
        }  # fmt: skip
        return issue(self.boot_key, BootCredential(**(usual | changes)))  # type: ignore[arg-type]

    def door(self, machine: str, token: str) -> Door:
        """The way in for a machine with a boot credential."""
        self._files += 1
        file = self.server.folder / f"boot-{self._files}"
        file.write_text(token)
        return Door(ca=self.server.ca, boot=BootLogin(machine, file))

    @asynccontextmanager
    async def open(
        self,
        copies: int = 1,
        bounds: Bounds = Bounds(),
        lifetime: float = CONNECTION_LIFETIME,
    ) -> AsyncIterator[list[Site]]:
        """The auth service is there, in as many copies."""
        async with AsyncExitStack() as stack:
            program = self.program(bounds, lifetime)
            yield [await stack.enter_async_context(self.running(program)) for _ in range(copies)]

    @asynccontextmanager
    async def running(self, program: Program) -> AsyncIterator[Site]:
        """A service of the site, which holds the credentials of one who may do everything."""
        async with self.insider() as connection:
            await prepare(connection.jetstream())
            options = LiveOptions(connection, self.site)
            await options.start()
            try:
                site = Site(self.site, connection, options)
                async with program(site):
                    yield site
            finally:
                await options.stop()

    @asynccontextmanager
    async def insider(self) -> AsyncIterator[Connection]:
        """Somebody who may do everything in the site's account."""
        connection = await connect(self.server.url, "insider", door=self.server.door())
        try:
            yield connection
        finally:
            await connection.close()

    def violations(self) -> list[str]:
        """What the server has complained of: permissions that were not enough."""
        return [line for line in self.server.log.splitlines() if "Violation" in line]

    def _write(self) -> None:
        self.folder.mkdir(mode=0o700)
        server = self.server
        system = permissions.system(server.site, server.account.public)
        for name, signer, key, allowed in (
            ("callout", server.auth, server.callout, permissions.callout(server.site)),
            ("system", server.system, KeyPair.generate("user"), system),
        ):
            user = User(
                version=VERSION, pub=allowed.pub, sub=allowed.sub, subs=NO_LIMIT,
                payload=NO_LIMIT, data=NO_LIMIT, resp=allowed.resp,
            )  # fmt: skip
            made = Credentials.of(sign(signer, key.public, user, name=name), key)
            credentials.write(self.folder / f"{name}.creds", made)
        for name, text in {
            "account.pub": server.account.public,
            "auth.seed": server.auth.seed,
            "boot-signing.seed": server.boot.seed,
            "boot.pub": self.boot_key.public,
            "estate": ESTATE,
        }.items():
            file = self.folder / name
            file.write_text(f"{text}\n")
            file.chmod(0o600)


class Guest:
    """A machine on the bus by its boot credential, and what the server has complained of."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.key = machine_key(machine)
        self.complaints: list[str] = []
        self.connection: Connection

    async def heard(self, error: Exception) -> None:
        """Told by the connection."""
        self.complaints.append(str(error).lower())

    async def complained(self, of: str, seconds: float = 5) -> None:
        """Returns when the server has complained of it."""
        await soon(lambda: any(of in each for each in self.complaints), seconds)

    async def is_on(self) -> None:
        """Returns when the server answers."""
        await self.connection.flush()


@asynccontextmanager
async def guest(
    entry: Entry, number: int = 1, *, token: str | None = None, url: str | None = None
) -> AsyncIterator[Guest]:
    """A machine that has come in; another one for each number."""
    guest = Guest(new_machine(number))
    door = entry.door(guest.key, token or entry.issue())
    async with asyncio.timeout(_COMES_WITHIN):
        guest.connection = await connect(
            url or entry.server.url,
            guest.key,
            inbox=subjects.inbox(guest.key),
            report=guest.heard,
            door=door,
        )
    try:
        yield guest
    finally:
        await guest.connection.close()


async def plain_guest(
    entry: Entry, number: int, token: str, *, key: str | None = None
) -> Connection:
    """A machine on a connection that does not come again, and complains of nothing.

    ``key`` is what it says to be, where that is not the key of a machine.

    Raises:
        nats.errors.Error: it is not let in.
    """
    key = machine_key(new_machine(number)) if key is None else key
    client = Connection(Door(ca=entry.server.ca))
    try:
        await client.connect(
            entry.server.url,
            user=key,
            password=token,
            inbox_prefix="_INBOX_guest",
            allow_reconnect=False,
            connect_timeout=5,
            error_cb=_unheard,
        )
    except BaseException:
        client.give_up()
        raise
    return client


async def refused(entry: Entry, token: str, *, number: int = 1, key: str | None = None) -> None:
    """Returns when the server has not let one in; fails where it does."""
    try:
        client = await plain_guest(entry, number, token, key=key)
    except nats.errors.Error:
        return
    await client.close()
    raise AssertionError("it has come in")


async def _unheard(_error: Exception) -> None:
    """The tests go too far on purpose."""


async def soon(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Returns when it has become true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what is waited for happens elsewhere)
            await asyncio.sleep(0.01)


def secured(folder: Path, site: str = "main") -> Entry:
    """A server that is not started yet, and its entry."""
    bounds = f"max_payload: {MAX_PAYLOAD}\nmax_subscriptions: {MAX_SUBSCRIPTIONS}"
    return Entry(GuardedServer(folder, site=site, more=bounds))
