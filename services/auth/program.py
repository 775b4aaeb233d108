"""The auth service: lets technicians in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
import structlog

from bus import contract, subjects
from bus.connection import backoff
from bus.messages import Details, Login, Session
from bus.option_store import LiveOptions, OptionStore
from bus.options import PASSWORD
from bus.problems import Problem
from bus.service import RETRY_AFTER
from bus.sessions import Signer
from bus.waiting import end
from services.auth.passwords import OLD, Passwords
from services.auth.tries import LOCKED_FOR, Tries
from services.running import Site


@asynccontextmanager
async def program(site: Site) -> AsyncIterator[None]:
    """The auth service on the bus."""
    stream = site.connection.jetstream()
    signer = Signer(site.name)
    await signer.publish(site.connection)
    passwords = Passwords()
    door = Door(
        site.options,
        await OptionStore.open(site.connection, site.name),
        Tries(await stream.key_value(subjects.TRIES), site.name),
        passwords,
        signer,
    )
    service = site.service("auth", "Lets technicians in")
    service.serve(contract.LOGIN, door.login)
    publishing = asyncio.create_task(_publish_again(site, signer))
    try:
        await service.start()
        yield
        await service.leave()
    finally:
        await end(publishing)
        passwords.close()


class Door:
    """Decides who comes in."""

    def __init__(
        self,
        options: LiveOptions,
        store: OptionStore,
        tries: Tries,
        passwords: Passwords,
        signer: Signer,
    ) -> None:
        self._options = options
        self._store = store
        self._tries = tries
        self._passwords = passwords
        self._signer = signer
        self._log = structlog.get_logger("auth")

    async def login(self, asked: Login, machine: str) -> Session:
        """A session for who knows the password.

        Raises:
            Problem: ``login_failed``, ``locked_out`` or ``directory_unavailable``.
        """
        protection = self._options.current.protection
        if protection in {"server", "domain"}:
            raise Problem("directory_unavailable", "Sign-in is not set up at this site.")
        try:
            if protection == "hash":
                await self._check(asked.password, machine)
        except (nats.errors.Error, TimeoutError) as error:
            self._log.warning("tries cannot be counted", error=type(error).__name__)
            raise Problem("overloaded", details=Details(retry_after=RETRY_AFTER)) from error
        self._log.info("login succeeded", machine=machine)
        return self._signer.session(machine, protection, None)

    async def _check(self, password: str, machine: str) -> None:
        known = self._options.password_hash
        left = await self._tries.take(machine)
        if known is None:
            self._log.error("the site is protected by a password that nobody has set")
        if known is None or not await self._passwords.verify(known, password):
            self._log.warning("login failed", machine=machine, attempts_left=left)
            wait = None if left else LOCKED_FOR
            raise Problem("login_failed", details=Details(attempts_left=left, retry_after=wait))
        await self._tries.forget(machine)
        if known.startswith(OLD):
            # An old hash has served once; whoever changed the password meanwhile is right.
            fresh = await self._passwords.hash(password)
            await self._store.replace(PASSWORD, fresh.encode(), known.encode())


async def _publish_again(site: Site, signer: Signer) -> None:
    log = structlog.get_logger("auth").bind(site=site.name)
    attempt = 0
    wait = signer.publish_every
    while True:
        await asyncio.sleep(wait)
        try:
            await signer.publish(site.connection)
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("the session key cannot be published", error=type(error).__name__)
            wait = backoff(attempt)
            attempt += 1
        else:
            wait, attempt = signer.publish_every, 0
