"""The options of a site: their types, bounds, defaults and meaning, each in one declaration."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from bus.machines import normal_mac
from bus.messages import MenuType, Protection
from bus.names import NETBIOS_LENGTH, check_rule
from bus.texts import TEXTS

_DAY = 86_400
_FIELD = re.compile(r"\{(\w*)\}")
_HOST = re.compile(r"(?!.{254})(?:(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!\Z)|\Z))+")
_CONTROLLER = re.compile(
    r"(?:ldaps?://)?(?:\[([0-9a-f:.]+)\]|([^/:\[\]]+))(?::([1-9][0-9]{0,4}))?/?\Z"
)
_MAIL_SERVER = re.compile(
    r"(?:smtps?://)?(?:\[([0-9a-f:.]+)\]|([^/:\[\]]+))(?::([1-9][0-9]{0,4}))?"
)
_MAILBOX = re.compile(r"[^\s@<>,;\"()\[\]:\\]{1,64}@[^\s@<>,;\"()\[\]:\\]{1,253}")
_NONE = frozenset({"", "none"})
_NOTHING: Final[dict[str, frozenset[str]]] = {
    "root_folder": _NONE | {"/"},
    "administrators": _NONE,
    "domain": _NONE,
    "domain_ca": _NONE,
    "mail_from": _NONE,
    "mail_server": _NONE,
}
"""How an operator says that an option is to have no value."""

TEXT_PREFIX: Final = "text."
DEFAULT: Final = "default"
"""The layer of the estate's options that hold where a site has none of its own."""
ENFORCED: Final = "enforced"
"""The layer of those that hold whatever a site says."""
PASSWORD: Final = "password_hash"  # noqa: S105 (the name of a key)
"""The shared password, kept as a hash beside the options; it is set, never shown."""


class Options(Struct, frozen=True, kw_only=True):
    """What an operator decides for a site."""

    timeout: Annotated[
        int, Meta(ge=0, le=_DAY, description="seconds of countdown; 0 waits for ever")
    ] = 5
    idle_timeout: Annotated[
        int,
        Meta(
            ge=0,
            le=_DAY,
            description="seconds without a key until an opened portal gives up; 0 never",
        ),
    ] = 0
    menu_type: Annotated[
        MenuType, Meta(description="flat (one list) or folders (the job tree)")
    ] = "flat"
    root_folder: Annotated[
        str | None,
        Meta(description="id or path (Deploy/Staff) of the only job folder looked at"),
    ] = None
    tag: Annotated[
        str,
        Meta(
            pattern=r"\S",
            max_length=32,
            description="the text that makes a menu item; upper and lower case matter",
        ),
    ] = "(MI)"
    may_rename: Annotated[bool, Meta(description="may known machines be renamed")] = True
    naming: Annotated[
        str, Meta(max_length=128, description="the rule for the names of unknown machines")
    ] = "%SERIAL%"
    name_max_length: Annotated[int, Meta(ge=1, le=63, description="longest computer name")] = (
        NETBIOS_LENGTH
    )
    new_computer_group: Annotated[
        str,
        Meta(min_length=1, max_length=64, description="where computers of unknown machines go"),
    ] = "New Computers"
    shared_macs: Annotated[
        tuple[str, ...],
        Meta(max_length=10_000, description="hardware addresses that identify nothing"),
    ] = ()
    protection: Annotated[
        Protection,
        Meta(
            description="none, hash (one shared password), server (accounts of this site) or "
            "domain (Active Directory)"
        ),
    ] = "none"
    administrators: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(description="the group whose members may deploy everything"),
    ] = "ImageInvoker Administrators"
    session_lifetime: Annotated[
        int, Meta(ge=60, le=_DAY, description="seconds that a technician stays signed in")
    ] = 3600
    tries_per_machine: Annotated[
        int, Meta(ge=1, le=100, description="failed sign-ins at one machine that lock it")
    ] = 3
    tries_per_account: Annotated[
        int, Meta(ge=1, le=100, description="failed sign-ins to one account that lock it")
    ] = 10
    tries_per_address: Annotated[
        int,
        Meta(ge=1, le=1000, description="failed sign-ins from one network address that lock it"),
    ] = 30
    tries_window: Annotated[
        int, Meta(ge=1, le=_DAY, description="seconds that a failed sign-in counts")
    ] = 600
    lock_time: Annotated[
        int,
        Meta(ge=1, le=_DAY, description="seconds of a first lock; each further one is doubled"),
    ] = 60
    trust_request_info: Annotated[
        bool,
        Meta(description="count failed sign-ins by the network address the bus tells of a client"),
    ] = False
    domain: Annotated[
        Annotated[str, Meta(max_length=255)] | None,
        Meta(description="DNS name of the Active Directory domain (lab.example)"),
    ] = None
    domain_controllers: Annotated[
        tuple[str, ...],
        Meta(
            max_length=32,
            description="domain controllers: HOST (LDAPS) or ldap://HOST (StartTLS); else by DNS",
        ),
    ] = ()
    domain_ca: Annotated[
        Annotated[str, Meta(max_length=1024)] | None,
        Meta(description="file, beside the auth service, of the CA of the domain controllers"),
    ] = None
    send_domain_passwords_in_clear_text: Annotated[
        bool, Meta(description="ldap:// without TLS: whoever listens reads the passwords")
    ] = False
    retention_days: Annotated[
        int,
        Meta(ge=1, le=3650, description="days that events, rejected requests and logs are kept"),
    ] = 90
    history_days: Annotated[
        int,
        Meta(ge=1, le=36_500, description="days that single deployments are kept in the history"),
    ] = 730
    mail_to: Annotated[
        tuple[str, ...],
        Meta(max_length=32, description="who is told by mail of rejected requests"),
    ] = ()
    mail_from: Annotated[str | None, Meta(description="the sender of these mails")] = None
    mail_server: Annotated[
        str | None,
        Meta(description="HOST[:PORT] of the mail server (STARTTLS), or smtps://HOST[:PORT]"),
    ] = None
    detailed_logging: Annotated[bool, Meta(description="log every step")] = False
    text: Annotated[dict[str, str], Meta(description="texts of the portal, changed")] = {}

    @property
    def shared(self) -> frozenset[str]:
        """The shared hardware addresses in their normal form."""
        return frozenset(self.shared_macs)


DEFAULTS: Final = Options()


class OptionError(ValueError):
    """An option that does not exist, or a value that does not fit; the text names the cure."""


def in_force(own: Mapping[str, bytes], estate: Mapping[str, bytes]) -> dict[str, bytes]:
    """A site's values, with those of the estate around them.

    What the estate enforces wins, then what the site says, then the estate's default. The estate's
    names begin with ``default.`` or ``enforced.``.
    """
    return _of(estate, DEFAULT) | dict(own) | _of(estate, ENFORCED)


def _of(estate: Mapping[str, bytes], layer: str) -> dict[str, bytes]:
    """The values of one layer, by the option's name."""
    start = f"{layer}."
    return {name[len(start) :]: value for name, value in estate.items() if name.startswith(start)}


def names() -> list[str]:
    """The name of every option, the texts of the portal last."""
    own = [field.name for field in msgspec.structs.fields(Options) if field.name != "text"]
    return own + [TEXT_PREFIX + name for name in TEXTS]


def meaning(name: str) -> str:
    """What an option does, in one line."""
    if name.startswith(TEXT_PREFIX):
        return "a text of the portal"
    hint = {f.name: f.type for f in msgspec.structs.fields(Options)}[name]
    info = msgspec.inspect.type_info(hint)
    described = info.extra_json_schema if isinstance(info, msgspec.inspect.Metadata) else None
    return str((described or {}).get("description", ""))


def parse(name: str, text: str) -> bytes:
    """An option's value as the bucket keeps it (JSON), from what an operator typed.

    Raises:
        OptionError: no such option, or not a value of its type.
    """
    text = text.strip()
    if name.startswith(TEXT_PREFIX):
        return msgspec.json.encode(_portal_text(name.removeprefix(TEXT_PREFIX), text))
    field = {f.name: f for f in msgspec.structs.fields(Options)}.get(name)
    if field is None or name == "text":
        raise OptionError(f"There is no option {name!r}; `imageinvoker options show` lists them.")
    if text.lower() in _NOTHING.get(name, ()):
        return b"null"
    if name == "shared_macs":
        return msgspec.json.encode(_addresses(text))
    value: object = text
    if isinstance(getattr(DEFAULTS, name), bool):
        value = _truth(text)
    elif name in {"domain_controllers", "mail_to"}:
        value = [] if text.lower() in _NONE else re.split(r"[,;\s]+", text.strip(",; "))
    try:
        return msgspec.json.encode(_checked(name, msgspec.convert(value, field.type, strict=False)))
    except ValueError as error:
        raise OptionError(f"{name}: {error}.") from error


def assemble(values: Mapping[str, bytes]) -> tuple[Options, list[str]]:
    """The options from what the bucket holds, and a complaint for each value that does not fit.

    A value that does not fit leaves its option at the default, except the protection: one that
    cannot be read stays closed (``domain`` lets nobody in where no directory is set up).
    """
    known = {field.name: field.type for field in msgspec.structs.fields(Options)}
    fields: dict[str, object] = {}
    text: dict[str, str] = {}
    complaints: list[str] = []
    for name, raw in values.items():
        try:
            if name.startswith(TEXT_PREFIX):
                text[name.removeprefix(TEXT_PREFIX)] = msgspec.json.decode(raw, type=str)
            elif name in known:
                fields[name] = _checked(name, msgspec.json.decode(raw, type=known[name]))
        except ValueError as error:
            complaints.append(f"{name}: {error}")
            if name == "protection":
                fields[name] = "domain"
    return msgspec.convert({**fields, "text": text}, Options), complaints


def _truth(text: str) -> str:
    return {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(text.lower(), text)


def _checked(name: str, value: object) -> object:
    """A value of an option's type, if it also makes sense; in its usual spelling.

    Raises:
        ValueError: it makes no sense; the text says why.
    """
    match value:
        case str() if name in _CHECKS:
            return _CHECKS[name](value)
        case tuple() if name in _CHECKS_OF_EACH:
            return tuple(_CHECKS_OF_EACH[name](each) for each in value)
    return value


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be one line of printable characters")
    return text


def _domain(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not _HOST.fullmatch(name) or "." not in name:
        raise ValueError(f"{text!r} is no DNS name of a domain (lab.example)")
    return name


def _controller(text: str) -> str:
    match = _CONTROLLER.match(text.lower())
    if match and _is_host(match[1], match[2]) and int(match[3] or 1) < 65_536:
        return match[0].removesuffix("/")
    raise ValueError(
        f"{text!r} is no domain controller (dc1.lab.example, dc1.lab.example:636, "
        "ldaps://dc1.lab.example or ldap://dc1.lab.example)"
    )


def _mailbox(text: str) -> str:
    if not _MAILBOX.fullmatch(text) or not text.isprintable():
        raise ValueError(f"{text!r} is no mail address (desk@lab.example)")
    return text


def _mail_server(text: str) -> str:
    match = _MAIL_SERVER.fullmatch(text.lower())
    if match and _is_host(match[1], match[2]) and int(match[3] or 1) < 65_536:
        return match[0]
    raise ValueError(
        f"{text!r} is no mail server (mail.lab.example, mail.lab.example:587 or "
        "smtps://mail.lab.example)"
    )


def _is_host(ipv6: str | None, name: str | None) -> bool:
    if ipv6 is None:
        return _HOST.fullmatch(name or "") is not None
    try:
        ipaddress.IPv6Address(ipv6)
    except ValueError:
        return False
    return True


def _portal_text(name: str, text: str) -> str:
    usual = TEXTS.get(name)
    if usual is None:
        raise OptionError(
            f"The portal has no text {name!r}; `imageinvoker options show` lists them."
        )
    strange = set(_FIELD.findall(text)) - set(_FIELD.findall(usual))
    rest = _FIELD.sub("", text)
    if strange or "{" in rest or "}" in rest:
        allowed = ", ".join(f"{{{field}}}" for field in _FIELD.findall(usual)) or "no braces"
        raise OptionError(f"text.{name} may hold {allowed}.")
    if not text.isprintable():
        raise OptionError(f"text.{name} must be one line of printable characters.")
    return text


def _addresses(text: str) -> list[str]:
    if text.lower() in _NONE:
        return []
    addresses = []
    for part in re.split(r"[,;\s]+", text):
        address = normal_mac(part)
        if address is None:
            raise OptionError(
                f"shared_macs: {part!r} is not a hardware address (00:11:22:33:44:55)."
            )
        addresses.append(address)
    return addresses


_CHECKS: Final[Mapping[str, Callable[[str], str]]] = {
    "naming": check_rule,
    "administrators": _one_line,
    "domain": _domain,
    "domain_ca": _one_line,
    "mail_from": _mailbox,
    "mail_server": _mail_server,
}
_CHECKS_OF_EACH: Final[Mapping[str, Callable[[str], str]]] = {
    "domain_controllers": _controller,
    "mail_to": _mailbox,
}
