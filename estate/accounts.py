"""The accounts and users of an estate: keys in, signed claims out.

An estate has one operator, whom every server believes. A site's server has three accounts: the
system's, the site's own, and the one in which it is decided who comes in as a boot client. At the
hub there are the system's and the hub's. No account is believed at more than one of these places,
the system's neither: whatever is stolen at one site opens no other.

What a user may do stands in its account, as the role that has signed it. So credentials stay short
(a server reads 4 kB of them), and who gets other permissions need not get other credentials.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from bus.claims import (
    NO_LIMIT,
    VERSION,
    WITH_STREAMS,
    Account,
    Callout,
    Limits,
    Operator,
    Permissions,
    Role,
    User,
    UserOfRole,
    sign,
)
from bus.credentials import Credentials
from bus.nkeys import KeyPair
from estate import permissions
from estate.permissions import HOLDERS, HUB_HOLDERS

Revocations = Mapping[str, int]
"""Users by public key, each with the second until which its claims were issued."""

BOOT: Final = "boot"
LEAF: Final = "leaf"
SITE_ROLES: Final = (*HOLDERS, BOOT)
HUB_ROLES: Final = (*HUB_HOLDERS, LEAF)

_OPEN: Final[dict[str, dict[str, str]]] = {"pub": {}, "sub": {}}


class EstateKeys(Struct, frozen=True, kw_only=True):
    """What the estate signs with: its operator, the accounts of the hub, boot credentials.

    ``roles`` are signing keys of the hub's account, by who they let in: its holders, and ``leaf``.
    ``believed`` is what the operator says of itself, once for all: no server takes another while it
    runs.
    """

    operator: KeyPair
    believed: str
    system: KeyPair
    hub: KeyPair
    boot: KeyPair
    roles: dict[str, KeyPair]

    @classmethod
    def generate(cls, estate: str) -> "EstateKeys":
        """New ones, for the estate of this name."""
        operator, system = KeyPair.generate("operator"), KeyPair.generate("account")
        return cls(
            operator=operator,
            believed=_believed(estate, operator, system),
            system=system,
            hub=KeyPair.generate("account"),
            boot=KeyPair.generate("user"),
            roles={name: KeyPair.generate("account") for name in HUB_ROLES},
        )


class SiteKeys(Struct, frozen=True, kw_only=True):
    """What a site signs with: its accounts, and the roles of those that it lets in.

    ``callout`` is the user who decides about boot clients: the account ``auth`` names it. ``roles``
    are signing keys of the site's account, by who they let in: its holders, and ``boot`` clients.
    ``believed`` is what the operator says of itself here, and ``sentinel`` who a boot client is
    until the callout has decided: nobody, and there is no secret to it.
    """

    believed: str
    sentinel: str
    system: KeyPair
    account: KeyPair
    auth: KeyPair
    callout: KeyPair
    roles: dict[str, KeyPair]

    @classmethod
    def generate(cls, estate: str, operator: KeyPair) -> "SiteKeys":
        """New ones, for a site of the estate that has this name and operator."""
        system, auth = KeyPair.generate("account"), KeyPair.generate("account")
        nobody = _user(permissions.sentinel(), bearer_token=True)
        return cls(
            believed=_believed(estate, operator, system),
            sentinel=sign(auth, KeyPair.generate("user").public, nobody, name="sentinel"),
            system=system,
            account=KeyPair.generate("account"),
            auth=auth,
            callout=KeyPair.generate("user"),
            roles={name: KeyPair.generate("account") for name in SITE_ROLES},
        )


class Trust(Struct, frozen=True, kw_only=True):
    """Whom a server believes: its operator's claims and its accounts', by their public keys."""

    operator: str
    system_account: str
    accounts: dict[str, str]


def site_trust(keys: EstateKeys, site: str, own: SiteKeys, gone: Revocations) -> Trust:
    """Whom a site's server believes; ``gone`` are users of any of its accounts."""
    allowed: dict[str, Permissions] = {
        **{name: permissions.of(site, name) for name in HOLDERS},
        BOOT: permissions.boot(site),
    }
    account = Account(
        version=VERSION,
        limits=WITH_STREAMS,
        default_permissions=_OPEN,
        signing_keys=_roles(own.roles, allowed),
        revocations=dict(gone),
    )
    auth = Account(
        version=VERSION,
        limits=Limits(),
        default_permissions=_OPEN,
        authorization=Callout((own.callout.public,), (own.account.public,)),
        revocations=dict(gone),
    )
    accounts = {own.account: (site, account), own.auth: ("AUTH", auth)}
    return _trust(keys.operator, own.believed, own.system, accounts, gone)


def hub_trust(keys: EstateKeys, gone: Revocations) -> Trust:
    """Whom the servers of the hub believe; ``gone`` are users of any of its accounts."""
    allowed: dict[str, Permissions] = {
        **{name: permissions.of_hub(name) for name in HUB_HOLDERS},
        LEAF: permissions.leaf(),
    }
    account = Account(
        version=VERSION,
        limits=WITH_STREAMS,
        default_permissions=_OPEN,
        signing_keys=_roles(keys.roles, allowed),
        revocations=dict(gone),
    )
    accounts = {keys.hub: ("HUB", account)}
    return _trust(keys.operator, keys.believed, keys.system, accounts, gone)


def of_role(account: KeyPair, role: KeyPair, name: str, expires_at: int) -> Credentials:
    """Credentials of a new user, who may do what stands in the account for the role.

    ``expires_at`` is in seconds since 1970.
    """
    key = KeyPair.generate("user")
    user = UserOfRole(version=VERSION, issuer_account=account.public)
    token = sign(role, key.public, user, name=name, expires_at=expires_at)
    return Credentials.of(token, key)


def with_permissions(
    account: KeyPair, key: KeyPair, name: str, allowed: Permissions, expires_at: int
) -> Credentials:
    """Credentials of a user of an account, who may do what stands in them."""
    token = sign(account, key.public, _user(allowed), name=name, expires_at=expires_at)
    return Credentials.of(token, key)


def _roles(keys: Mapping[str, KeyPair], allowed: Mapping[str, Permissions]) -> tuple[Role, ...]:
    return tuple(
        Role(key=keys[name].public, role=name, template=template)
        for name, template in allowed.items()
    )


def _believed(estate: str, operator: KeyPair, system: KeyPair) -> str:
    claims = Operator(version=VERSION, system_account=system.public)
    return sign(operator, operator.public, claims, name=estate)


def _trust(
    operator: KeyPair,
    believed: str,
    system: KeyPair,
    accounts: Mapping[KeyPair, tuple[str, Account]],
    gone: Revocations,
) -> Trust:
    watching = Account(
        version=VERSION, limits=Limits(), default_permissions=_OPEN, revocations=dict(gone)
    )
    return Trust(
        operator=believed,
        system_account=system.public,
        accounts={
            key.public: sign(operator, key.public, account, name=name)
            for key, (name, account) in {system: ("SYS", watching), **accounts}.items()
        },
    )


def _user(allowed: Permissions, *, bearer_token: bool = False) -> User:
    return User(
        version=VERSION,
        pub=allowed.pub,
        sub=allowed.sub,
        subs=allowed.subs,
        payload=allowed.payload,
        data=NO_LIMIT,
        resp=allowed.resp,
        allowed_connection_types=allowed.allowed_connection_types,
        bearer_token=bearer_token,
    )
