"""A site's own accounts (protection `server`): who they are, their passwords' hashes, their groups.

The bucket ``imaging_accounts`` holds the truth, a record for each account. What the menu service
and the scheduler need of it is copied to the bucket ``imaging_technicians``, without the hash. No
write spans two buckets, so each change is made in this order:

1. Where it ends sessions (a new password, a removal), the technician is deleted. A session whose
   technician is missing is worthless, at once and whatever follows.
2. The record is changed, if nobody has changed it since it was read; else all begins anew.
3. The technician is written from the record as it is then, if nobody has written the technician
   since before the record was read; else this step begins anew.

So after the last change of a record, whoever made it, the last technician written is made from that
record: nobody's change is lost, and no older copy lands after a newer one. If the command dies on
the way, some sessions are worthless that need not be, or groups are as they were before; nobody has
more rights than before and after. Every further change of the account ends with step 3, and so
mends it. An account without a technician can sign in, but has no rights.
"""

import asyncio
import contextlib
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from typing import Final

import nats.js.errors
import structlog
from msgspec import Struct
from msgspec.structs import replace
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from bus import subjects
from bus.buckets import watch
from bus.connection import Connection
from bus.messages import Protection, Time, decoder, encode
from bus.technicians import Technician, folded, key_of, technician_decoder, technician_key

_PROTECTION: Final[Protection] = "server"
_LONGEST_NAME: Final = 104  # as long as a Windows logon name
_LONGEST_GROUP: Final = 256
_MOST_GROUPS: Final = 256
_NOT_IN_NAMES: Final = r'\/@:*?"<>|'
"""What would make a name look like ``DOMAIN\\user``, ``user@realm``, a rule's ``user:`` or a
pattern."""
_WRONG_SEQUENCE: Final = 10071
"""JetStream's error code for a key that somebody else has written meanwhile."""
_READ_TIMEOUT: Final = 5.0


class AccountError(ValueError):
    """A change of accounts that cannot be made; the text is fit for an operator."""


class BadAccountError(AccountError):
    """The name of an account or group, or a display name, breaks the rule that the text names."""


class AccountExistsError(AccountError):
    """There is an account of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is an account {name!r} already.")


class NoSuchAccountError(AccountError):
    """There is no account of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no account {name!r}.")


class Account(Struct, frozen=True, kw_only=True):
    """An account as the bucket keeps it.

    ``generation`` changes with the password. A session carries that of the record whose hash the
    password was verified with, and is void once the technician has another.
    """

    name: str
    password_hash: str
    display_name: str | None
    created_at: Time
    generation: int = 1
    groups: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Account(name={self.name!r}, generation={self.generation}, groups={self.groups!r})"


_account = decoder(Account)


def account_name(text: str) -> str:
    """The name of an account from what an operator typed.

    Raises:
        BadAccountError: it is none.
    """
    name = text.strip()
    # Names compare in this form, in which a full-width "＠" is an "@".
    compared = unicodedata.normalize("NFKC", name)
    if (
        not folded(name)
        or max(len(name), len(compared)) > _LONGEST_NAME
        or not name.isprintable()
        or not set(compared).isdisjoint(_NOT_IN_NAMES)
    ):
        raise BadAccountError(
            f"An account's name has 1 to {_LONGEST_NAME} printable characters, "
            f"and none of {' '.join(_NOT_IN_NAMES)}"
        )
    return name


def group_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The names of groups from what an operator typed, each once.

    Raises:
        BadAccountError: one is none, or there are too many.
    """
    groups: dict[str, str] = {}
    for text in texts:
        name = text.strip()
        if not folded(name) or len(name) > _LONGEST_GROUP or not name.isprintable():
            raise BadAccountError(f"A group's name has 1 to {_LONGEST_GROUP} printable characters.")
        groups.setdefault(folded(name), name)
    if len(groups) > _MOST_GROUPS:
        raise BadAccountError(f"An account is in {_MOST_GROUPS} groups at most.")
    return tuple(groups.values())


def shown_name(text: str | None) -> str | None:
    """The name to show from what an operator typed; None for a blank one.

    Raises:
        BadAccountError: it is none.
    """
    name = (text or "").strip()
    if len(name) > _LONGEST_GROUP or not name.isprintable():
        raise BadAccountError(f"A display name has up to {_LONGEST_GROUP} printable characters.")
    return name or None


def technician_of(account: Account) -> Technician:
    """What the other services know of an account."""
    return Technician(
        name=account.name,
        groups=account.groups,
        display_name=account.display_name,
        generation=account.generation,
    )


class Accounts:
    """The accounts of a site; their names compare in any case.

    Every method raises ``nats.errors.Error`` or ``TimeoutError`` if the bus does not answer. What a
    change has come to is unknown then; made again, it is whole.
    """

    def __init__(
        self, stream: JetStreamContext, accounts: KeyValue, technicians: KeyValue, site: str
    ) -> None:
        self._stream = stream
        self._accounts = accounts
        self._technicians = technicians
        self._site = site
        self._log = structlog.get_logger("accounts").bind(site=site)

    @classmethod
    async def open(cls, connection: Connection, site: str) -> "Accounts":
        """The accounts of a site.

        Raises:
            nats.errors.Error: the bus does not keep accounts here.
        """
        stream = connection.jetstream()
        accounts = await stream.key_value(subjects.ACCOUNTS)
        return cls(stream, accounts, await stream.key_value(subjects.TECHNICIANS), site)

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        account, _ = await self._read(name)
        return account

    async def everybody(self) -> list[tuple[Account, Technician | None]]:
        """Every account by name, and what the other services know of it at this moment."""
        async with asyncio.timeout(_READ_TIMEOUT):
            records = await self._read_all(subjects.ACCOUNTS)
            known = await self._read_all(subjects.TECHNICIANS)
        accounts = [self._decode(key, value) for key, value in records.items()]
        return [
            (account, _technician(known.get(technician_key(_PROTECTION, account.name))))
            for account in sorted(filter(None, accounts), key=lambda each: folded(each.name))
        ]

    async def add(self, account: Account, groups: Iterable[str] = ()) -> Account:
        """Adds an account that is in these groups; as it is kept, with a generation of its own.

        Raises:
            AccountExistsError, BadAccountError
        """
        kept = replace(
            account,
            name=account_name(account.name),
            display_name=shown_name(account.display_name),
            groups=group_names(groups),
            # Random, and in the range that JSON numbers are exact in: if it began at 1, sessions of
            # an account that was removed would be good for one added later under its name. Unlike
            # the time, it does not come again when a clock is set back.
            generation=secrets.randbits(52) + 1,
        )
        while True:
            there, revision = await self._read(kept.name)
            added = not there and await _write(
                self._accounts, self._key(kept.name), encode(kept), revision
            )
            if there or added:
                await self.put_in_force(kept.name)
            if there:
                raise AccountExistsError(there.name)
            if added:
                return kept

    async def remove(self, name: str) -> Account:
        """Removes an account, as it was; its sessions are worthless at once.

        Raises:
            NoSuchAccountError
        """
        return await self._change(name, lambda _: None, ends_sessions=True)

    async def set_password(self, name: str, password_hash: str) -> Account:
        """Sets the hash of a new password; sessions made with the old one are worthless at once.

        Raises:
            NoSuchAccountError
        """

        def change(account: Account) -> Account:
            return replace(account, password_hash=password_hash, generation=account.generation + 1)

        return change(await self._change(name, change, ends_sessions=True))

    async def join(self, name: str, groups: Iterable[str]) -> tuple[Account, tuple[str, ...]]:
        """Puts an account into groups; as it is then, and those that it was not in before.

        Raises:
            NoSuchAccountError, BadAccountError
        """
        wanted = group_names(groups)

        def change(account: Account) -> Account:
            return replace(account, groups=group_names(account.groups + wanted))

        before = await self._change(name, change)
        return change(before), _without(wanted, before.groups)

    async def leave(self, name: str, groups: Iterable[str]) -> tuple[Account, tuple[str, ...]]:
        """Takes an account out of groups; as it is then, and those that it was in before.

        Raises:
            NoSuchAccountError, BadAccountError
        """
        left = group_names(groups)

        def change(account: Account) -> Account:
            return replace(account, groups=_without(account.groups, left))

        before = await self._change(name, change)
        after = change(before)
        return after, _without(before.groups, after.groups)

    async def put_in_force(self, name: str) -> None:
        """Lets the other services know what the record says (step 3); mends what was cut off."""
        key = self._technician_key(name)
        while True:
            # In this order; see above.
            _, revision = await _get(self._technicians, key)
            account, _ = await self._read(name)
            if account is None and not revision:
                return
            # Written even if nothing differs: a copy made from an older record must not land now.
            value = encode(technician_of(account)) if account else None
            if await _write(self._technicians, key, value, revision):
                return

    async def _change(
        self,
        name: str,
        change: Callable[[Account], Account | None],
        *,
        ends_sessions: bool = False,
    ) -> Account:
        """Changes a record, or deletes it where ``change`` says None; as it was before."""
        while True:
            account, revision = await self._read(name)
            if account is None:
                await self.put_in_force(name)
                raise NoSuchAccountError(name)
            changed = change(account)
            if ends_sessions:
                await self._technicians.delete(self._technician_key(name))
            value = encode(changed) if changed else None
            if await _write(self._accounts, self._key(name), value, revision):
                await self.put_in_force(name)
                return account

    async def _read(self, name: str) -> tuple[Account | None, int]:
        key = self._key(name)
        value, revision = await _get(self._accounts, key)
        return (self._decode(key, value) if value is not None else None), revision

    def _decode(self, key: str, value: bytes) -> Account | None:
        try:
            return _account.decode(value)
        except ValueError:
            # It lets nobody in, and whoever adds the account anew replaces it.
            self._log.exception("an account cannot be read", key=key)
            return None

    async def _read_all(self, bucket: str) -> dict[str, bytes]:
        async with contextlib.aclosing(watch(self._stream, bucket, self._site)) as states:
            return await anext(states)

    def _key(self, name: str) -> str:
        return subjects.site_key(self._site, key_of(name))

    def _technician_key(self, name: str) -> str:
        return subjects.site_key(self._site, technician_key(_PROTECTION, name))


def _without(groups: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    gone = set(map(folded, others))
    return tuple(group for group in groups if folded(group) not in gone)


def _technician(value: bytes | None) -> Technician | None:
    with contextlib.suppress(ValueError):
        return technician_decoder.decode(value or b"")
    return None


async def _get(bucket: KeyValue, key: str) -> tuple[bytes | None, int]:
    """What stands there, and the revision that the next writer must name."""
    try:
        entry = await bucket.get(key)
    except nats.js.errors.KeyNotFoundError as gone:
        return None, (gone.entry.revision or 0) if gone.entry else 0
    return entry.value or b"", entry.revision or 0


async def _write(bucket: KeyValue, key: str, value: bytes | None, revision: int) -> bool:
    """Writes, or deletes for None, what is still at this revision; whether it was."""
    try:
        if value is None:
            await bucket.delete(key, last=revision)
        else:
            await bucket.update(key, value, last=revision)
    except nats.js.errors.KeyWrongLastSequenceError:
        return False
    except nats.js.errors.APIError as error:
        # What nats-py 2.16 raises for a deletion.
        if error.err_code != _WRONG_SEQUENCE:
            raise
        return False
    return True
