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

DEFAULT_SITE = "main"
"""The site that is meant where nobody names one."""

_ROOT = "imaging"
_SITE = re.compile(r"[a-z0-9-]{1,32}\Z")


def valid_site(site: str) -> bool:
    """Whether ``site`` is a site token: 1 to 32 of ``a-z``, ``0-9`` and ``-``."""
    return _SITE.match(site) is not None


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


def carrier(site: str) -> str:
    """The durable consumer by which all copies of a site's scheduler share its requests."""
    return f"scheduler-{site}"


def inbox(owner: str) -> str:
    """The prefix of an owner's reply subjects; a client may listen on no other."""
    return f"_INBOX_{owner}"


def site_key(site: str, name: str = ">") -> str:
    """A site's key in a bucket; without a name, all of them."""
    return f"{site}.{name}"
