"""Who may publish and subscribe to what on the buses of an estate: one table, and nothing else.

Each credential is allowed what its program does, subject by subject, and nothing beyond. What
nobody is allowed here, nobody can do: no stream or bucket can be deleted, no other program's inbox
can be read, and only the system's own account sees ``$SYS``.

An answer goes to whatever subject a question names. So a service may publish to it once, within
seconds, because it was asked (``resp``), and looks itself whether that is the inbox of the machine
that asks (``bus/service.py``).
"""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from msgspec import Struct

from bus import hub, subjects
from bus.claims import NO_LIMIT, ConnectionType, Permissions, Responses, Subjects
from bus.events import Kind

Service = Literal["menu", "auth", "scheduler", "monitor"]
Holder = Service | Literal["operator"]
"""Who holds a credential of a site's own account."""

HubHolder = Literal["monitor", "operator"]
"""Who holds a credential of the hub's account."""

SERVICES: Final[tuple[Service, ...]] = get_args(Service)
HOLDERS: Final[tuple[Holder, ...]] = (*SERVICES, "operator")
HUB_HOLDERS: Final[tuple[HubHolder, ...]] = get_args(HubHolder)
HUB: Final = hub.DOMAIN
"""Stands where a site would for what is the hub's own."""

BOOT_PAYLOAD: Final = 32 * 1024
"""Bytes of a message that a boot client publishes, at most."""
BOOT_SUBSCRIPTIONS: Final = 10

_SUBSCRIPTIONS: Final = 1_000
_ANSWERED_WITHIN: Final = 30
"""Seconds in which a question is answered; a service that leaves takes twenty for it."""
_TOLD_WITHIN: Final = 2
"""Seconds in which one tells that it is there, who is asked nothing else. A server remembers each
message for so long, since it might be a question; the monitor is sent every event."""
_NANOSECONDS: Final = 1_000_000_000

_COMMANDS: Final = ("command", "doctor")
"""The names by which the command line comes on the bus."""
_REPLAYS: Final = "replay"
"""Whose inbox hears what becomes of requests that are replayed."""
_TOLD_BY: Final[dict[Holder, tuple[Kind, ...]]] = {
    "menu": ("portal_opened", "menu_shown", "session_refused"),
    "auth": (
        "login_succeeded",
        "login_failed",
        "login_locked",
        "option_changed",
        "connection_refused",
    ),
    "scheduler": (
        "session_refused",
        "request_accepted",
        "request_refused",
        "computer_created",
        "computer_renamed",
        "jobs_replaced",
        "jobs_scheduled",
        "request_rejected",
    ),
    "monitor": ("job_started", "job_finished", "job_failed", "deployment_finished"),
    "operator": (
        "login_unlocked",
        "request_replayed",
        "option_changed",
        "access_changed",
        "account_changed",
    ),
}
"""Which events whose program tells."""

_STREAMS: Final = (subjects.REQUESTS, subjects.REJECTED, subjects.EVENTS)
_BUCKETS: Final = (
    subjects.OPTIONS,
    subjects.KEYS,
    subjects.TRIES,
    subjects.ACCOUNTS,
    subjects.TECHNICIANS,
    subjects.LIVE,
    subjects.MENUS,
    subjects.MAILED,
    subjects.ACCESS,
)
_OF_THE_ESTATE: Final = (subjects.REVOKED, subjects.SITES, subjects.ESTATE_OPTIONS)
"""Buckets that the hub keeps, and a site mirrors."""
_DISCOVERED: Final = ("PING", "INFO", "STATS")
_API: Final = "$JS.API"
_NAME: Final = "{{name()}}"
"""NATS puts the name in a user's credentials here."""


class Rights(Struct, frozen=True):
    """Subjects to publish and to subscribe to."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    def __add__(self, other: "Rights") -> "Rights":
        return Rights(self.publish + other.publish, self.subscribe + other.subscribe)


def of(site: str, holder: Holder) -> Permissions:
    """What the credential of a service, or of the operators, of a site is allowed."""
    match holder:
        case "menu":
            rights = _menu(site)
        case "auth":
            rights = _auth(site)
        case "scheduler":
            rights = _scheduler(site)
        case "monitor":
            rights = _monitor(site)
        case "operator":
            return _permissions(_operator(site))
    within = _TOLD_WITHIN if holder == "monitor" else _ANSWERED_WITHIN
    return _permissions(rights + _service(site, holder) + _tells(site, holder), answers=within)


def of_hub(holder: HubHolder) -> Permissions:
    """What a credential of the hub's account is allowed."""
    if holder == "monitor":
        return _permissions(_hub_monitor(), answers=_TOLD_WITHIN)
    return _permissions(_hub_operator())


def leaf() -> Permissions:
    """What passes between a site and the hub, seen from the hub: what is not here does not.

    NATS replaces ``{{name()}}`` with the name in the site's credentials, which is the site's.
    The site publishes its events, to the stream that sources them, and asks for what the hub keeps
    of the whole estate. It is sent that, and can be told nothing else: no question passes, so no
    site can forge an answer to somebody at the hub.
    """
    site = _NAME
    here, there = f"$JS.{HUB}.API.CONSUMER", f"$JS.{site}.API.CONSUMER"
    mirrored = tuple(map(_stream_of, _OF_THE_ESTATE))
    return _permissions(
        Rights(
            publish=(
                # What a source is answered and sent.
                "$JSC.R.*",
                "$JS.S.*",
                *_copied(here, *mirrored),
            ),
            subscribe=(
                *_copied(there, subjects.EVENTS),
                # What a mirror is answered and sent.
                "$JSC.R.*",
                "$JS.M.*",
            ),
        ),
        by=("LEAFNODE",),
    )


def callout(site: str) -> Permissions:
    """The auth service where it decides who comes in, in an account of its own."""
    admitted = subjects.admitted(site)
    rights = Rights(
        publish=(admitted,),
        subscribe=(subjects.CALLOUT, admitted, _inbox(f"callout-{site}")),
    )
    return _permissions(rights, answers=_ANSWERED_WITHIN)


def system(site: str, account: str) -> Permissions:
    """The auth service where it sees the site's boot clients come and go, and ends them."""
    return _permissions(
        Rights(
            publish=(subjects.connections(account), subjects.kick("*")),
            subscribe=(
                subjects.connected(account),
                subjects.disconnected(account),
                _inbox(f"system-{site}"),
            ),
        )
    )


def boot(site: str) -> Permissions:
    """What a boot client may do, whose name is its machine's key."""
    machine = _NAME
    asked = (
        ("menu", "welcome"),
        ("menu", "show"),
        ("auth", "login"),
        ("scheduler", "schedule"),
        ("scheduler", "status"),
    )
    return Permissions(
        pub=_only(
            (
                *(subjects.endpoint(site, service, verb, machine) for service, verb in asked),
                subjects.endpoint(subjects.ESTATE, "auth", "where", machine),
            )
        ),
        sub=_only((_inbox(machine), subjects.event(site, machine))),
        subs=BOOT_SUBSCRIPTIONS,
        payload=BOOT_PAYLOAD,
        data=NO_LIMIT,
        allowed_connection_types=("STANDARD",),
    )


def sentinel() -> Permissions:
    """Whoever has shown no credential yet: nothing at all."""
    nothing = _only(())
    return Permissions(pub=nothing, sub=nothing, subs=1, payload=0, data=NO_LIMIT)


def _menu(site: str) -> Rights:
    checked = subjects.menu_checked(site)
    return (
        _admits()
        + _gets(subjects.MENUS)
        + _writes(site, subjects.MENUS)
        + Rights(publish=(checked,), subscribe=(checked,))
    )


def _auth(site: str) -> Rights:
    where = subjects.endpoint(subjects.ESTATE, "auth", "where")
    written = (subjects.TRIES, subjects.TECHNICIANS, subjects.ACCOUNTS, subjects.OPTIONS)
    return (
        _gets(*written)
        + _writes(site, *written, subjects.KEYS)
        + _opens(subjects.KEYS)
        + _watches(subjects.REVOKED, subjects.SITES)
        + Rights(subscribe=(where,))
    )


def _scheduler(site: str) -> Rights:
    carrier = subjects.carrier(site)
    requests = subjects.REQUESTS
    return _admits() + Rights(
        publish=(
            subjects.request(site),
            subjects.rejected(site),
            f"{_API}.CONSUMER.DURABLE.CREATE.{requests}.{carrier}",
            f"{_API}.CONSUMER.MSG.NEXT.{requests}.{carrier}",
            f"{_API}.CONSUMER.INFO.{requests}.{carrier}",
            f"{_API}.DIRECT.GET.{requests}",
            f"{_API}.STREAM.MSG.GET.{subjects.REJECTED}",
            f"{_API}.STREAM.MSG.GET.{subjects.EVENTS}",
            *_acknowledged(site, requests, carrier),
            # The outcome, to whoever put the request there: another copy, or who replays it.
            _inbox(f"scheduler-{site}"),
            _inbox(_REPLAYS),
        )
    )


def _monitor(site: str) -> Rights:
    kept = (subjects.EVENTS, subjects.REJECTED)
    return (
        _gets(subjects.LIVE, subjects.MAILED, subjects.OPTIONS)
        + _writes(site, subjects.LIVE, subjects.MAILED)
        + _pulls(*kept)
        + Rights(
            publish=(
                *(f"{_API}.STREAM.PURGE.{stream}" for stream in kept),
                *(f"{_API}.STREAM.UPDATE.{stream}" for stream in kept),
                f"{_API}.STREAM.MSG.GET.{subjects.EVENTS}",
                f"{_API}.STREAM.MSG.GET.{subjects.REQUESTS}",
            )
        )
    )


def _operator(site: str) -> Rights:
    decided = (
        subjects.OPTIONS,
        subjects.ACCOUNTS,
        subjects.TECHNICIANS,
        subjects.ACCESS,
        subjects.TRIES,
    )
    return (
        _gets(*decided, *_OF_THE_ESTATE)
        + _opens(subjects.LIVE)
        + _watches(*decided, *_OF_THE_ESTATE, subjects.LIVE)
        + _writes(site, *decided)
        # Where a hub keeps them these are mirrors, which nobody can write to.
        + _writes(subjects.ESTATE, *_OF_THE_ESTATE)
        + _pulls(subjects.EVENTS, subjects.REJECTED)
        + _tells(site, "operator")
        + _looks()
        + Rights(
            publish=(
                subjects.request(site),
                f"{_API}.DIRECT.GET.{subjects.REQUESTS}",
                f"{_API}.STREAM.INFO.{subjects.REQUESTS}",
                *(f"{_API}.DIRECT.GET.{_stream_of(bucket)}.>" for bucket in _OF_THE_ESTATE),
            ),
            subscribe=(_inbox(_REPLAYS),),
        )
    )


def _hub_monitor() -> Rights:
    """Gathers the events of all sites in one stream, and keeps history and live view of them."""
    events = subjects.EVENTS
    made = (events, *map(_stream_of, (*_OF_THE_ESTATE, subjects.LIVE, subjects.OPTIONS)))
    return (
        _answers(subjects.ESTATE, "monitor")
        + _knows_options()
        + _pulls(events)
        + _gets(subjects.LIVE)
        + _opens(*_OF_THE_ESTATE)
        + _watches(subjects.SITES)
        + _writes("*", subjects.LIVE)
        + Rights((*map(_made, made), f"{_API}.STREAM.UPDATE.{events}"))
    )


def _hub_operator() -> Rights:
    """Looks at the whole estate, and decides for all of its sites."""
    decided = (subjects.OPTIONS, *_OF_THE_ESTATE)
    return (
        _pulls(subjects.EVENTS)
        + _gets(*decided)
        + _opens(subjects.LIVE)
        + _watches(*decided, subjects.LIVE)
        + _writes(subjects.ESTATE, *_OF_THE_ESTATE)
        + Rights((subjects.event(subjects.ESTATE, kind="option_changed"),))
        + _looks()
    )


def _service(site: str, name: Service) -> Rights:
    """What every service of a site does: it makes what is not there, and knows the options."""
    made = (*_STREAMS, *map(_stream_of, (*_BUCKETS, *_OF_THE_ESTATE)))
    return (
        _answers(site, name)
        + _knows_options()
        + _opens(*_OF_THE_ESTATE)
        # Of a stream that is there, nothing can be changed by making it.
        + Rights(tuple(map(_made, made)))
    )


def _answers(site: str, name: Service) -> Rights:
    """Answers questions, and tells that it is there."""
    return Rights(
        subscribe=(
            _inbox(f"{name}-{site}"),
            subjects.endpoint(site, name, "*"),
            *(
                f"$SRV.{verb}{suffix}"
                for verb in _DISCOVERED
                for suffix in ("", f".{name}", f".{name}.*")
            ),
        )
    )


def _knows_options() -> Rights:
    options = (subjects.OPTIONS, subjects.ESTATE_OPTIONS)
    return _opens(*options) + _watches(*options)


def _admits() -> Rights:
    """Looks whether a session is good, and what its technician may do."""
    watched = (subjects.KEYS, subjects.TECHNICIANS, subjects.ACCESS)
    return _gets(*watched) + _watches(*watched)


def _looks() -> Rights:
    """Finds out who and what is there, at the command line."""
    asked = tuple(f"$SRV.{verb}{more}" for verb in _DISCOVERED for more in ("", ".>"))
    return Rights(
        publish=(*asked, f"{_API}.INFO", f"{_API}.STREAM.LIST"),
        subscribe=tuple(map(_inbox, _COMMANDS)),
    )


def _made(stream: str) -> str:
    return f"{_API}.STREAM.CREATE.{stream}"


def _opens(*buckets: str) -> Rights:
    return Rights(tuple(f"{_API}.STREAM.INFO.{_stream_of(bucket)}" for bucket in buckets))


def _gets(*buckets: str) -> Rights:
    """Looks keys up in buckets."""
    return _opens(*buckets) + Rights(
        tuple(f"{_API}.STREAM.MSG.GET.{_stream_of(bucket)}" for bucket in buckets)
    )


def _watches(*buckets: str) -> Rights:
    """Follows buckets that it opens."""
    return Rights(
        tuple(
            subject
            for stream in map(_stream_of, buckets)
            for subject in (
                f"{_API}.CONSUMER.CREATE.{stream}",
                f"{_API}.CONSUMER.INFO.{stream}.*",
                f"$JS.FC.{stream}.>",
            )
        )
    )


def _writes(site: str, *buckets: str) -> Rights:
    """Puts and deletes a site's keys in buckets."""
    return Rights(tuple(f"$KV.{bucket}.{subjects.site_key(site)}" for bucket in buckets))


def _pulls(*streams: str) -> Rights:
    """Reads streams, and acknowledges nothing (`bus/pulling.py`)."""
    return Rights(
        tuple(
            subject
            for stream in streams
            for subject in (
                f"{_API}.STREAM.INFO.{stream}",
                f"{_API}.CONSUMER.CREATE.{stream}",
                f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
                f"{_API}.CONSUMER.INFO.{stream}.*",
                f"{_API}.CONSUMER.DELETE.{stream}.*",
            )
        )
    )


def _copied(api: str, *streams: str) -> tuple[str, ...]:
    """Where a server asks another for a copy of streams, and says how far it has come."""
    return tuple(
        subject
        for stream in streams
        for subject in (
            f"{api}.CREATE.{stream}",
            f"{api}.CREATE.{stream}.>",
            f"{api}.DELETE.{stream}.>",
            f"$JS.FC.{stream}.>",
        )
    )


def _tells(site: str, holder: Holder) -> Rights:
    return Rights(tuple(subjects.event(site, kind=kind) for kind in _TOLD_BY[holder]))


def _acknowledged(site: str, stream: str, consumer: str) -> tuple[str, ...]:
    """Where messages of a consumer are acknowledged: servers may name the domain, too."""
    return (f"$JS.ACK.{stream}.{consumer}.>", f"$JS.ACK.{site}.*.{stream}.{consumer}.>")


def _permissions(
    rights: Rights, *, answers: int = 0, by: tuple[ConnectionType, ...] = ("STANDARD",)
) -> Permissions:
    return Permissions(
        pub=_only(rights.publish),
        sub=_only(rights.subscribe),
        subs=_SUBSCRIPTIONS,
        payload=NO_LIMIT,
        data=NO_LIMIT,
        resp=Responses(max=1, ttl=answers * _NANOSECONDS) if answers else None,
        allowed_connection_types=by,
    )


def _only(allowed: Iterable[str]) -> Subjects:
    """These and no others: where nothing is listed, NATS allows everything."""
    allow = tuple(sorted(set(allowed)))
    return Subjects(allow=allow) if allow else Subjects(deny=(">",))


def _inbox(owner: str) -> str:
    return f"{subjects.inbox(owner)}.>"


def _stream_of(bucket: str) -> str:
    return f"KV_{bucket}"
