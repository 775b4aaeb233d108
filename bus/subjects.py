"""Every subject, stream, bucket and queue name of the bus; nothing else builds one by hand."""

import re

VERSION = 1
"""Version of the wire contract."""

REQUESTS = "IMAGING_REQUESTS"
"""Stream (work queue) of accepted requests that are still to be carried out."""

REJECTED = "IMAGING_REJECTED"
"""Stream of requests that were rejected, whole, kept for replay."""

EVENTS = "IMAGING_EVENTS"
"""Stream of what happened: ``imaging.<site>.event.<machine>.<kind>``."""

OPTIONS = "imaging_options"
"""Bucket of the options, one key an option: ``<site>.<option>``."""

KEYS = "imaging_keys"
"""Bucket of the public keys that sessions are verified with: ``<site>.<key id>``."""

TRIES = "imaging_tries"
"""Bucket of the failed logins: ``<site>.<machine, account or address>.<its key>``."""

ACCOUNTS = "imaging_accounts"
"""Bucket of a site's own accounts, with the hashes of their passwords: ``<site>.<account>``."""

TECHNICIANS = "imaging_technicians"
"""Bucket of who has signed in, and in which groups they are: ``<site>.<protection>.<account>``."""

ACCESS = "imaging_access"
"""Bucket of the access rules: ``<site>.<rule>``."""

LIVE = "imaging_live"
"""Bucket of what each machine is doing now: ``<site>.<machine>``."""

MENUS = "imaging_menus"
"""Bucket of the rows that menus are made of, packed, in parts: ``<site>.head``, ``<site>.<part>``.
"""

MAILED = "imaging_mailed"
"""Bucket of how far operators have been told by mail: ``<site>.mail``."""

REVOKED = "imaging_revoked"
"""Bucket of the boot images whose credentials are good no longer: ``estate.<image>``."""

SITES = "imaging_sites"
"""Bucket of the sites of the estate, with their servers and subnets: ``estate.<site>``."""

ESTATE_OPTIONS = "imaging_estate_options"
"""Bucket of the options that hold for all sites: ``estate.default.<option>`` where a site says
nothing of its own, and ``estate.enforced.<option>`` whatever it says."""

ESTATE = "estate"
"""Stands where a site would in what is asked of, or kept for, the whole estate; no site is called
so."""

CALLOUT = "$SYS.REQ.USER.AUTH"
"""Where a server asks whether a client may come in (NATS, "Auth Callout")."""

DEFAULT_SITE = "main"
"""The site that is meant where nobody names one."""

_ROOT = "imaging"
_SITE = re.compile(r"[a-z0-9-]{1,32}\Z")


def valid_site(site: str) -> bool:
    """Whether ``site`` is a site token: 1 to 32 of ``a-z``, ``0-9`` and ``-``, but not `ESTATE`."""
    return site != ESTATE and _SITE.match(site) is not None


def endpoint(site: str, service: str, verb: str, machine: str = "*") -> str:
    """The subject a service answers on; without a machine, the one it subscribes to."""
    return f"{_ROOT}.{site}.{service}.{verb}.{machine}"


def machine_of(subject: str) -> str:
    """The machine key, the last token of every subject that a machine speaks on."""
    return subject.rpartition(".")[2]


def request(site: str, machine: str = "*") -> str:
    """Where an accepted request waits in the stream ``IMAGING_REQUESTS``."""
    return f"{_ROOT}.{site}.request.{machine}"


def rejected(site: str, machine: str = "*") -> str:
    """Where a rejected request is kept in the stream ``IMAGING_REJECTED``."""
    return f"{_ROOT}.{site}.rejected.{machine}"


def event(site: str, machine: str = "*", kind: str = "*") -> str:
    """Where an event is kept in the stream ``IMAGING_EVENTS``."""
    return f"{_ROOT}.{site}.event.{machine}.{kind}"


def menu_checked(site: str) -> str:
    """Where the copies of a site's menu service ask one another for the state of the job tree."""
    return f"{_ROOT}.{site}.menu-checked"


def admitted(site: str) -> str:
    """Where the copies of a site's auth service tell one another whom they have let in."""
    return f"{_ROOT}.{site}.admitted"


def connected(account: str) -> str:
    """Where a server tells that a client of an account has come (NATS, "System Events")."""
    return f"$SYS.ACCOUNT.{account}.CONNECT"


def disconnected(account: str) -> str:
    """Where a server tells that a client of an account has gone."""
    return f"$SYS.ACCOUNT.{account}.DISCONNECT"


def connections(account: str) -> str:
    """Where every server is asked for the connections of an account."""
    return f"$SYS.REQ.ACCOUNT.{account}.CONNZ"


def kick(server: str) -> str:
    """Where a server is told to end a connection."""
    return f"$SYS.REQ.SERVER.{server}.KICK"


def carrier(site: str) -> str:
    """The durable consumer by which all copies of a site's scheduler share its requests."""
    return f"scheduler-{site}"


def inbox(owner: str) -> str:
    """The prefix of an owner's reply subjects; a client may listen on no other."""
    return f"_INBOX_{owner}"


def site_key(site: str, name: str = ">") -> str:
    """A site's key in a bucket; without a name, all of them."""
    return f"{site}.{name}"
