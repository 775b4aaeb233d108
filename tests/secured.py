"""A real NATS server that trusts nobody: operator mode, TLS, a callout for boot clients.

An estate of one site, made anew for each server: its keys are at hand, so that a test can make
whatever users it likes, good ones and bad ones.
"""

import asyncio
import ipaddress
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct
from nats.aio.msg import Msg

from bus import credentials, subjects
from bus.claims import (
    NO_LIMIT,
    VERSION,
    WITH_STREAMS,
    Account,
    AuthorizationRequest,
    AuthorizationResponse,
    Callout,
    Claims,
    Limits,
    Operator,
    Permissions,
    Reader,
    Role,
    Subjects,
    User,
    UserOfRole,
    sign,
)
from bus.connection import Connection, connect
from bus.contract import LOGIN, SCHEDULE, SHOW, STATUS, WELCOME
from bus.credentials import Credentials
from bus.door import Door
from bus.nkeys import KeyPair
from tests.buses import BusServer

HERE: Final = ("127.0.0.1", "localhost")
"""The names of a server on this machine."""
DAY: Final = timedelta(days=1)
_ASK: Final = "$SYS.REQ.USER.AUTH"
_ASKED: Final = (WELCOME, SHOW, LOGIN, SCHEDULE, STATUS)
"""What a boot client may ask."""


class Issued(Struct, frozen=True):
    """A server's certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "The tests' own CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        now = datetime.now(UTC)
        self.certificate: Final = (
            self._begun(self._name, self._key.public_key(), now - 3650 * DAY, now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, names: Sequence[str] = HERE, *, since: timedelta = -DAY, until: timedelta = 90 * DAY
    ) -> Issued:
        """A server's certificate, good from ``since`` to ``until``, both counted from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = (
            self._begun(name, key.public_key(), now + since, now + until)
            .add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _begun(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(ours, critical=False)
        )


class SecuredServer(BusServer):
    """A site's server in operator mode, with TLS unless told otherwise; not started yet.

    ``site`` is the site's account as well, and JetStream's domain. ``account``, ``auth`` and
    ``system`` are the keys of the accounts, ``boot`` is the signing key whose users are boot
    clients, ``callout`` the user of ``auth`` whom the server asks who may come in.
    """

    def __init__(
        self,
        folder: Path,
        *,
        site: str = "main",
        authority: Authority | None = None,
        certificate: Issued | None = None,
        tls: bool = True,
        with_callout: bool = True,
        limits: Limits = WITH_STREAMS,
        more: str = "",
    ) -> None:
        super().__init__(folder)
        self.folder = folder
        self.site = site
        self.authority = authority or Authority()
        self.operator = KeyPair.generate("operator")
        self.system = KeyPair.generate("account")
        self.account = KeyPair.generate("account")
        self.auth = KeyPair.generate("account")
        self.boot = KeyPair.generate("account")
        self.callout = KeyPair.generate("user")
        self.ca = folder / "ca.pem"
        """The file with the CA's certificate."""
        self._tls = tls
        self._with_callout = with_callout
        self._limits = limits
        self._more = more
        self._revoked: dict[str, int] = {}
        # Signed once: a server that runs takes no other operator, and no other sentinel.
        operator = Operator(version=VERSION, system_account=self.system.public)
        self._operator_token = sign(self.operator, self.operator.public, operator, name="estate")
        nothing = Subjects(deny=(">",))
        nobody = _user(pub=nothing, sub=nothing, bearer_token=True)
        sentinel = KeyPair.generate("user").public
        self._sentinel_token = sign(self.auth, sentinel, nobody, name="sentinel")
        self.ca.write_bytes(self.authority.pem)
        self.certify(certificate or self.authority.issue())
        self.configure()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'tls' if self._tls else 'nats'}://127.0.0.1:{self.port}"

    def certify(self, certificate: Issued) -> None:
        """Gives it another certificate, which it takes when it starts or reads its settings."""
        (self.folder / "server.pem").write_bytes(certificate.certificate)
        (self.folder / "server.key").write_bytes(certificate.key)

    def configure(self) -> None:
        """Writes its settings, which it takes when it starts or reads them."""
        settings = [
            f'listen: "127.0.0.1:{self.port}"',
            f"server_name: {self.site}",
            f"operator: {self._operator_token}",
            f"system_account: {self.system.public}",
            "resolver: MEMORY",
            "resolver_preload {",
            *(f"  {key}: {token}" for key, token in self._accounts().items()),
            "}",
            f'jetstream {{ store_dir: "{self.folder / "store"}", domain: "{self.site}" }}',
            self._more,
        ]
        if self._with_callout:
            settings.append(f"default_sentinel: {self._sentinel_token}")
        if self._tls:
            files = self.folder / "server.pem", self.folder / "server.key"
            settings.append(f'tls {{ cert_file: "{files[0]}", key_file: "{files[1]}" }}')
        self._settings.write_text("\n".join(settings))

    def reload(self) -> None:
        """Has it read its settings and certificates while it runs; it takes a moment."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def revoke(self, key: KeyPair) -> None:
        """Has it refuse a user from now on, also where it is connected."""
        self._revoked[key.public] = int(time.time()) + 1
        self.configure()
        self.reload()

    def user(
        self,
        name: str,
        *,
        publish: Subjects = Subjects(),
        subscribe: Subjects = Subjects(),
        subscriptions: int = NO_LIMIT,
        expires_in: float | None = None,
        key: KeyPair | None = None,
    ) -> Credentials:
        """A user of the site's account, who may do everything unless told otherwise."""
        key = key or KeyPair.generate("user")
        body = msgspec.structs.replace(_user(pub=publish, sub=subscribe), subs=subscriptions)
        return self._made(self.account, key, body, name, expires_in)

    def credentials(
        self,
        name: str,
        *,
        publish: Subjects = Subjects(),
        subscribe: Subjects = Subjects(),
        expires_in: float | None = None,
    ) -> Path:
        """The file with the credentials of a new user of the site's account."""
        file = self.folder / f"{name}.creds"
        user = self.user(name, publish=publish, subscribe=subscribe, expires_in=expires_in)
        credentials.write(file, user)
        return file

    def callout_credentials(self) -> Path:
        """The file with the credentials of who decides who comes in."""
        file = self.folder / "callout.creds"
        credentials.write(file, self._made(self.auth, self.callout, _user(), "callout", None))
        return file

    def door(self, name: str = "tester") -> Door:
        """The way in for a user who may do everything on the site's account."""
        file = self.folder / f"{name}.creds"
        return Door(
            ca=self.ca if self._tls else None,
            credentials=file if file.exists() else self.credentials(name),
        )

    def _made(
        self, signer: KeyPair, key: KeyPair, body: User, name: str, expires_in: float | None
    ) -> Credentials:
        expires_at = 0 if expires_in is None else int(time.time() + expires_in)
        return Credentials.of(sign(signer, key.public, body, name=name, expires_at=expires_at), key)

    def _accounts(self) -> dict[str, str]:
        machine = "{{name()}}"
        template = Permissions(
            pub=Subjects(
                allow=tuple(
                    subjects.endpoint(self.site, each.service, each.verb, machine)
                    for each in _ASKED
                )
            ),
            sub=Subjects(
                allow=(
                    f"{subjects.inbox(machine)}.>",
                    subjects.event(self.site, machine),
                )
            ),
            subs=10,
            payload=65_536,
            data=NO_LIMIT,
            allowed_connection_types=("STANDARD",),
        )
        open_to_all: dict[str, dict[str, str]] = {"pub": {}, "sub": {}}
        made = {
            self.system: ("SYS", Account(
                version=VERSION, limits=Limits(), default_permissions=open_to_all,
            )),
            self.account: (self.site, Account(
                version=VERSION, limits=self._limits, default_permissions=open_to_all,
                signing_keys=(Role(key=self.boot.public, role="boot", template=template),),
                revocations=self._revoked,
            )),
            self.auth: ("AUTH", Account(
                version=VERSION, limits=Limits(), default_permissions=open_to_all,
                authorization=Callout((self.callout.public,), (self.account.public,))
                if self._with_callout else None,
            )),
        }  # fmt: skip
        return {
            key.public: sign(self.operator, key.public, account, name=name)
            for key, (name, account) in made.items()
        }


class Gate:
    """Decides by one password who comes in as a boot client, as the auth service does by more."""

    def __init__(self, server: SecuredServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._reader = Reader(Claims[AuthorizationRequest])
        self.password = "let this machine in"
        """The one that opens."""
        self.expires_in = 3600
        """Seconds for which a boot client may stay."""
        self.asked: list[str] = []
        """The users who wanted to come in."""

    async def decide(self, message: Msg) -> None:
        """Answers the server."""
        asked = self._reader.read(message.data.decode()).nats
        presented = asked.connect_opts
        self.asked.append(presented.user)
        answer = AuthorizationResponse(version=VERSION, error="refused")
        if presented.password == self.password:
            token = sign(
                self._server.boot,
                asked.user_nkey,
                UserOfRole(version=VERSION, issuer_account=self._server.account.public),
                name=presented.user,
                expires_at=int(time.time()) + self.expires_in,
            )
            answer = AuthorizationResponse(version=VERSION, jwt=token)
        signed = sign(self._server.auth, asked.user_nkey, answer, audience=asked.server_id.id)
        await self._connection.publish(message.reply, signed.encode())


@asynccontextmanager
async def gate(server: SecuredServer) -> AsyncIterator[Gate]:
    """The gate of a server that runs, open for boot clients that know its password."""
    door = Door(ca=server.ca, credentials=server.callout_credentials())
    connection = await asyncio.wait_for(connect(server.url, "gate", door=door), 10)
    gate = Gate(server, connection)
    await connection.subscribe(_ASK, queue="auth", cb=gate.decide)
    await connection.flush()
    try:
        yield gate
    finally:
        await connection.close()


def _user(
    *, pub: Subjects = Subjects(), sub: Subjects = Subjects(), bearer_token: bool = False
) -> User:
    return User(
        version=VERSION, pub=pub, sub=sub, subs=NO_LIMIT, payload=NO_LIMIT, data=NO_LIMIT,
        bearer_token=bearer_token,
    )  # fmt: skip


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
