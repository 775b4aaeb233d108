"""Signing in with Active Directory: the password is used for one bind, and kept nowhere.

The rights are those of the account that was bound, whatever name was typed: after the bind the
controller itself is asked who that is and in which groups.
"""

import asyncio
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final, Literal, TypeVar

import ldap3
from ldap3.core.results import (
    RESULT_INAPPROPRIATE_AUTHENTICATION,
    RESULT_INVALID_CREDENTIALS,
    RESULT_INVALID_DN_SYNTAX,
    RESULT_NO_SUCH_OBJECT,
    RESULT_SUCCESS,
)
from ldap3.utils.conv import escape_bytes
from ldap3.utils.dn import escape_rdn
from msgspec import Struct

from bus.technicians import Technician, folded
from services.auth.controllers import (
    Controller,
    Controllers,
    Line,
    Nameserver,
    UnavailableError,
)
from services.auth.ways import (
    LONGEST_NAME,
    LONGEST_PASSWORD,
    DirectoryUnavailable,
    SignInRefused,
)

BUDGET: Final = 2.5
"""Seconds that a sign-in may take, with all controllers that are tried."""

_REACH: Final = 1.0
"""Seconds until a controller has shown its certificate; after that the next one is tried."""
_TALK: Final = 1.4
"""Seconds that are left to it for all the rest."""
_CONVERSATIONS: Final = 8
"""How many conversations run at once; more wait for their turn."""
_SIDS_AT_ONCE: Final = 50

Reason = Literal[
    "malformed",
    "other_realm",
    "unknown_account",
    "wrong_password",
    "not_now",
    "not_here",
    "password_expired",
    "disabled",
    "expired",
    "must_change_password",
    "locked",
    "refused",
]

_REASONS: Final[dict[str, Reason]] = {
    "525": "unknown_account",
    "52e": "wrong_password",
    "530": "not_now",
    "531": "not_here",
    "532": "password_expired",
    "533": "disabled",
    "701": "expired",
    "773": "must_change_password",
    "775": "locked",
}
_NO_SUCH_NAME: Final = {
    RESULT_NO_SUCH_OBJECT,
    RESULT_INVALID_DN_SYNTAX,
    RESULT_INAPPROPRIATE_AUTHENTICATION,
}
"""Results that are about the name, so that no odd name makes a controller look ill."""
_ATTRIBUTES: Final = ["objectSid", "objectClass", "sAMAccountName", "displayName"]

_Entry = Mapping[str, Sequence[bytes]]
_T = TypeVar("_T")


class DirectorySettings(Struct, frozen=True):
    """Which domain technicians sign in to, and how its controllers are reached.

    ``controllers`` are named as ``parse_controller`` reads them; without any, DNS is asked.
    ``ca_file`` (PEM) holds whom to trust; without it, those whom the system trusts. Only
    ``clear_text`` makes ``ldap://`` go without TLS.
    """

    domain: str
    controllers: tuple[str, ...] = ()
    ca_file: str | None = None
    clear_text: bool = False


class Examined(Struct, frozen=True, kw_only=True):
    """A controller, and why it cannot be used; None if it can."""

    controller: str
    trouble: str | None


class Directory:
    """An Active Directory domain that technicians sign in to."""

    def __init__(
        self, settings: DirectorySettings, *, nameserver: Nameserver | None = None
    ) -> None:
        """Contacts nobody yet; ``nameserver`` is asked instead of the system's, if given."""
        self._settings = settings
        self._controllers = Controllers(
            settings.domain,
            settings.controllers,
            clear_text=settings.clear_text,
            nameserver=nameserver,
        )
        self._threads = ThreadPoolExecutor(_CONVERSATIONS, "directory")
        self._free = asyncio.Semaphore(_CONVERSATIONS)

    def close(self) -> None:
        """Lets the threads end; who is still waiting for a turn finds the directory unavailable."""
        self._threads.shutdown(wait=False)

    async def sign_in(self, username: str, password: str) -> Technician:
        """Who this is: ``user``, ``DOMAIN\\user`` or ``user@domain``, with the right password.

        Raises:
            SignInRefused: the directory, or already the form of what was typed, forbids it.
            DirectoryUnavailable: no controller could answer within ``BUDGET`` seconds.
        """
        name = bind_name(username, self._settings)
        secret = _secret(password)
        trouble: list[str] = []

        def talk(line: Line) -> Technician:
            return _technician(line, name, secret, self._settings.domain)

        try:
            async with asyncio.timeout(BUDGET):
                for controller in await self._controllers.in_order():
                    try:
                        return await self._converse(controller, talk)
                    except UnavailableError as error:
                        trouble.append(f"{controller}: {error}")
        except UnavailableError as error:
            trouble.append(str(error))
        except TimeoutError:
            trouble.append(f"no answer within {BUDGET:g} seconds")
        raise DirectoryUnavailable("; ".join(trouble) or "there is no domain controller")

    async def examine(self) -> list[Examined]:
        """For each controller, whether it is reached with a good certificate; binds nobody."""
        try:
            controllers = await self._controllers.in_order()
        except UnavailableError as error:
            return [Examined(controller=self._settings.domain, trouble=str(error))]
        return await asyncio.gather(*(self._examine(each) for each in controllers))

    async def _examine(self, controller: Controller) -> Examined:
        trouble = None
        try:
            await self._converse(controller, lambda _line: None)
        except UnavailableError as error:
            trouble = str(error)
        return Examined(controller=str(controller), trouble=trouble)

    async def _converse(self, controller: Controller, talk: Callable[[Line], _T]) -> _T:
        """Reaches a controller and talks with it, in a thread.

        Raises:
            UnavailableError: it does not answer, or not as a controller should.
        """
        try:
            return await self._on_a_line(controller, talk)
        except UnavailableError:
            self._controllers.failed(controller)
            raise

    async def _on_a_line(self, controller: Controller, talk: Callable[[Line], _T]) -> _T:
        loop = asyncio.get_running_loop()
        opened = loop.create_future()
        came = time.monotonic()
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._free)
            if self._controllers.failed_since(controller, came):
                raise UnavailableError("it has just failed")
            address = await self._controllers.address(controller)
            line = Line(controller, address, self._settings.ca_file)

            def work() -> _T:
                try:
                    line.open()
                    loop.call_soon_threadsafe(opened.set_result, None)
                    return talk(line)
                finally:
                    line.close()

            try:
                job = loop.run_in_executor(self._threads, work)
            except RuntimeError as error:
                raise UnavailableError("sign-ins are over") from error
            # The turn ends with the thread, perhaps long after whoever waits has given up.
            turn.pop_all()
            job.add_done_callback(self._end_turn)
        try:
            await _in_time(job, opened)
            return job.result()
        finally:
            line.cut()
            # Else an exception would hold itself by way of the job, and what its frames know.
            del job

    def _end_turn(self, job: asyncio.Future[_T]) -> None:
        self._free.release()
        if not job.cancelled():
            job.exception()  # or asyncio complains that nobody has looked at it


async def _in_time(job: asyncio.Future[Any], opened: asyncio.Future[Any]) -> None:
    """Waits until the job is done, or one of its times is up.

    Raises:
        UnavailableError: it has not opened its line by then, or is not done.
    """
    reached, _ = await asyncio.wait(
        {job, opened}, timeout=_REACH, return_when=asyncio.FIRST_COMPLETED
    )
    if not reached:
        raise UnavailableError(f"it is not reached within {_REACH:g} s")
    done, _ = await asyncio.wait({job}, timeout=_TALK)
    if not done:
        raise UnavailableError(f"it does not finish within {_TALK:g} s")


def _technician(line: Line, name: str, password: bytes, domain: str) -> Technician:
    """Binds, and asks who that is.

    Raises:
        SignInRefused: the controller refuses.
        UnavailableError: it says something that no controller of the domain says.
    """
    try:
        _bind(line, name, password)
        return _bound(line, domain)
    except (SignInRefused, UnavailableError):
        raise
    except Exception as error:  # noqa: BLE001 (whatever ldap3 makes of a broken answer)
        # Its text is left out: it might quote what was said.
        raise UnavailableError(type(error).__name__) from None


def _bind(line: Line, name: str, password: bytes) -> None:
    connection = line.connection
    connection.user, connection.authentication = name, ldap3.SIMPLE
    line.check()
    # As bytes, since ldap3 rewrites texts (RFC 4013), and Active Directory does not.
    connection.password = password
    try:
        connection.bind(read_server_info=False)
    finally:
        connection.password = connection.request = None
    code = int(connection.result["result"])
    if code == RESULT_INVALID_CREDENTIALS:
        raise SignInRefused(refusal(str(connection.result["message"])))
    if code in _NO_SUCH_NAME:
        raise SignInRefused("refused")
    if code != RESULT_SUCCESS:
        raise UnavailableError(f"bind: {connection.result['description']}")


def _bound(line: Line, domain: str) -> Technician:
    """Who is bound, by the SIDs of the line's security context (``tokenGroups`` of the root DSE).

    They are the account's own, those of its primary group and of every group it is in, however
    deep, and some that belong to no entry, such as everybody's (MS-ADTS 3.1.1.3.2).
    """
    (root,) = _search(line, "", ldap3.BASE, "(objectClass=*)", ["tokenGroups"])
    sids = root.get("tokenGroups", ())
    if not sids:
        raise UnavailableError("it does not say who is bound")
    base = ",".join(f"DC={escape_rdn(label)}" for label in domain.split("."))
    accounts: dict[bytes, _Entry] = {}
    groups = []
    for start in range(0, len(sids), _SIDS_AT_ONCE):
        wanted = "".join(
            f"(objectSid={escape_bytes(sid)})" for sid in sids[start : start + _SIDS_AT_ONCE]
        )
        for entry in _search(line, base, ldap3.SUBTREE, f"(|{wanted})", _ATTRIBUTES):
            classes = {each.lower() for each in entry["objectClass"]}
            if b"group" in classes:
                groups.append(entry["sAMAccountName"][0].decode())
            elif b"user" in classes:
                accounts[entry["objectSid"][0]] = entry
    # There may be a second one: an account of the past (sIDHistory), which never comes first.
    account = next((accounts[sid] for sid in sids if sid in accounts), None)
    if account is None:
        # A controller also binds accounts of the domains that its own one trusts.
        raise SignInRefused("other_realm")
    return Technician(
        name=account["sAMAccountName"][0].decode(),
        groups=tuple(sorted(groups)),
        display_name=next((name.decode() for name in account.get("displayName", ())), None),
    )


def _search(
    line: Line, base: str, scope: Literal["BASE", "SUBTREE"], wanted: str, attributes: list[str]
) -> list[_Entry]:
    connection = line.connection
    connection.search(
        base, wanted, scope, ldap3.DEREF_NEVER, attributes=attributes, auto_escape=False
    )
    if connection.result["result"] != RESULT_SUCCESS:
        raise UnavailableError(f"{base or 'root'}: {connection.result['description']}")
    return [
        found["raw_attributes"]
        for found in connection.response or ()
        if found["type"] == "searchResEntry"
    ]


def refusal(message: str) -> Reason:
    """Why a bind was refused (result 49), by the sub-code in the controller's message.

    The codes are Windows errors in hexadecimal (Microsoft, "LDAP Result 49" and "System Error
    Codes"): 525 no such user, 52e bad user name or password, 530 not at this hour, 531 not from
    this workstation, 532 password expired, 533 account disabled, 701 account expired, 773 password
    must be changed, 775 account locked out.
    """
    match = re.search(r"\bdata ([0-9a-f]+)\b", message, re.IGNORECASE)
    return _REASONS.get(match[1].lower(), "refused") if match else "refused"


def _secret(password: str) -> bytes:
    """The password as it is sent. An empty one would make an anonymous bind of it, with success."""
    if not password or "\0" in password or len(password) > LONGEST_PASSWORD:
        raise SignInRefused("malformed")
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise SignInRefused("malformed") from None


def account_name(username: str, settings: DirectorySettings) -> str:
    """The one name under which the tries of an account are counted, before it is known.

    It is one for every way of typing the same name: with and without the domain, in any case.
    Accents are left out, since Active Directory compares names without them (MS-ADTS, the syntax
    String(Unicode): NORM_IGNORENONSPACE), and so is any NetBIOS domain: it need not be the realm's
    first label.
    """
    _, account, realm = _parts(username)
    if realm is not None and folded(realm) != folded(settings.domain):
        account = f"{account}@{realm}"
    bare = "".join(
        each
        for each in unicodedata.normalize("NFKD", folded(account))
        if not unicodedata.category(each).startswith("M")
    )
    return folded(bare)


def bind_name(username: str, settings: DirectorySettings) -> str:
    """The name to bind as: a user principal name, or ``DOMAIN\\user`` as it was typed.

    A bare name is never used as it is: controllers would also take it for a display name, a SID
    or a service. Whether DOMAIN is this domain is what the controller knows.

    Raises:
        SignInRefused: ``malformed``, or ``other_realm``.
    """
    domain, account, realm = _parts(username)
    if not username.isprintable() or len(username) > LONGEST_NAME or not account:
        raise SignInRefused("malformed")
    if domain is not None and (not domain or realm is not None or "\\" in account):
        raise SignInRefused("malformed")
    if realm is not None and folded(realm) != folded(settings.domain):
        raise SignInRefused("other_realm")
    if domain is None or folded(domain) == folded(settings.domain):
        return f"{account}@{settings.domain}"
    return f"{domain}\\{account}"


def _parts(username: str) -> tuple[str | None, str, str | None]:
    """The NetBIOS domain, the account and the realm of what was typed."""
    domain, backslash, rest = username.strip().partition("\\")
    if not backslash:
        domain, rest = "", domain
    account, at, realm = rest.rpartition("@")
    if not at:
        account, realm = realm, ""
    return domain if backslash else None, account.strip(), realm if at else None
