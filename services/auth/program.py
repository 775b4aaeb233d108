"""The auth service: lets technicians in, and where it is told so, boot clients on the bus."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import nats.errors
import structlog

from bus import contract, subjects
from bus.buckets import Mirror
from bus.caller import Caller
from bus.connection import backoff
from bus.events import EventLog
from bus.messages import Protection
from bus.option_store import OptionStore
from bus.options import Options
from bus.sessions import PUBLISH_EVERY, Signer
from bus.waiting import end
from services.auth.accounts import Accounts
from services.auth.callout import CONNECTION_LIFETIME
from services.auth.callout_keys import CalloutKeys
from services.auth.domain import Domain
from services.auth.door import Door
from services.auth.entrance import entrance
from services.auth.lockout import Limits
from services.auth.metrics import LoginMetrics
from services.auth.own_accounts import OwnAccounts
from services.auth.passwords import Passwords
from services.auth.presences import Bounds, Presences
from services.auth.refusals import Refusals
from services.auth.shared_password import SharedPassword
from services.auth.tries import Tries
from services.auth.ways import WayIn
from services.auth.where import Whereabouts
from services.running import Program, Site

_LOOK: Final = 1.0
"""Seconds after which it is seen that a jump of the clock has ended the session key."""


@asynccontextmanager
async def program(site: Site) -> AsyncIterator[None]:
    """The auth service on a bus that lets everybody on, or only who has credentials."""
    async with _serving(site, None):
        yield


def with_callout(
    keys: CalloutKeys,
    server: str,
    bounds: Bounds = Bounds(),
    lifetime: float = CONNECTION_LIFETIME,
) -> Program:
    """The auth service that decides as well who comes on the bus as a boot client.

    ``server`` is where the bus is; a boot client stays for ``lifetime`` seconds at most, and shows
    its credential again then.
    """

    @asynccontextmanager
    async def serving(site: Site) -> AsyncIterator[None]:
        presences = Presences(bounds)
        async with (
            _serving(site, presences) as refusals,
            entrance(site, keys, server, presences, refusals, lifetime),
        ):
            yield

    return serving


@asynccontextmanager
async def _serving(site: Site, presences: Presences | None) -> AsyncIterator[Refusals]:
    """The service on the bus; with ``presences`` it knows from where machines have come."""
    stream = site.connection.jetstream()
    events = EventLog(site.connection, site.name)
    signer = Signer(site.name)
    await signer.publish(site.connection)
    metrics = LoginMetrics(site.registry, site.name)
    passwords = Passwords(metrics.hash)
    domain = Domain(
        site.options,
        await stream.key_value(subjects.TECHNICIANS),
        site.name,
        metrics.directory,
    )
    ways: Mapping[Protection, WayIn] = {
        "hash": SharedPassword(
            site.options, await OptionStore.open(site.connection, site.name), passwords, events
        ),
        "server": OwnAccounts(
            await Accounts.open(site.connection, site.name),
            passwords,
            await passwords.hash(secrets.token_urlsafe()),
        ),
        "domain": domain,
    }
    tries = Tries(
        await stream.key_value(subjects.TRIES),
        site.name,
        lambda: limits_of(site.options.current),
    )

    def address_of(caller: Caller) -> str | None:
        if presences:
            return presences.address_of(caller.machine)
        return caller.address if site.options.current.trust_request_info else None

    door = Door(site.options, ways, tries, signer, events, metrics, address_of)
    whereabouts = Whereabouts(site.name, address_of)
    sites = Mirror(site.connection, subjects.SITES, subjects.ESTATE, whereabouts.changed)
    service = site.service("auth", "Lets technicians in")
    service.serve(contract.LOGIN, door.login)
    service.serve(contract.WHERE, whereabouts.where)
    publishing = asyncio.create_task(_publish_again(site, signer))
    try:
        await sites.start()
        await service.start()
        yield Refusals(tries, events, metrics)
        await service.leave()
    finally:
        await end(publishing)
        await sites.stop()
        domain.close()
        await passwords.close()


def limits_of(options: Options) -> Limits:
    """How many failed sign-ins are borne."""
    return Limits(
        machine=options.tries_per_machine,
        account=options.tries_per_account,
        address=options.tries_per_address,
        window=options.tries_window,
        lock=options.lock_time,
    )


async def _publish_again(site: Site, signer: Signer) -> None:
    log = structlog.get_logger("auth").bind(site=site.name)
    clock = asyncio.get_running_loop().time
    published, attempt = clock(), 0
    while True:
        await asyncio.sleep(min(_LOOK, PUBLISH_EVERY))
        if signer.key_lasts and clock() - published < PUBLISH_EVERY:
            continue
        try:
            await signer.publish(site.connection)
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("the session key cannot be published", error=type(error).__name__)
            await asyncio.sleep(backoff(attempt))
            attempt += 1
        else:
            published, attempt = clock(), 0
