"""A real Active Directory domain controller for tests: Samba, in a scratch folder.

The fixture ``controller`` is one for the whole test run; it is made in about ten seconds. It has an
address of its own in 127.0.0.0/8 and listens there on the standard ports (LDAP, LDAPS, DNS), so
that several test runs can live side by side. A test that stops or hangs it starts or resumes it.

Its certificate is for ``dc1.lab.example`` and for its address, by an authority of the test run.
"""

import contextlib
import datetime
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import ldap3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.auth.directory import DirectorySettings

DOMAIN: Final = "lab.example"
NETBIOS: Final = "LAB"
HOST: Final = f"dc1.{DOMAIN}"

ALICE: Final = "alice"
"""Alice Ng; in "Imaging Techs", which is in "Deploy Staff", which is in "Everybody"."""
BOB: Final = "bob"
"""In no group of ours."""
ERIN: Final = "erin"
"""Her primary group is "Imaging Crew", which is in "Deploy Staff"."""
ROBERT: Final = "rfox"
"""His user principal name is ``robert.fox@lab.example``."""
DISABLED: Final = "dora"
EXPIRED: Final = "ed"
MUST_CHANGE: Final = "mia"
LOCKED: Final = "luke"
NEVER_NOW: Final = "nick"
"""May sign in at no hour of the week."""
ODD: Final = ("o'neil", "ümit", "pat (it)", "dash-dot.x")
"""Names with characters that mean something elsewhere."""
ODD_GROUP: Final = "Röntgen (3. OG) & Co"
"""A group that all of the odd ones are in."""

_USERS: Final = (
    ALICE, BOB, ERIN, ROBERT, DISABLED, EXPIRED, MUST_CHANGE, LOCKED, NEVER_NOW, *ODD,
)  # fmt: skip
_MEMBERS: Final = {
    "Imaging Techs": [ALICE],
    "Imaging Crew": [ERIN],
    "Deploy Staff": ["Imaging Techs", "Imaging Crew"],
    "Everybody": ["Deploy Staff"],
    "Nobody At All": [],
    ODD_GROUP: list(ODD),
}
"""The members of each group."""
LOCKS_AFTER: Final = 50
"""Wrong passwords until the domain itself locks an account: more than the tests of a run need."""

_FAILURES: Final = "badPwdCount"
_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 10.0
_PYTHON: Final = "/usr/bin/python3"
"""Debian's own, since Samba's modules are installed for it alone."""

_POPULATE: Final = r"""
import json, sys, time
import ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

plan = json.load(sys.stdin)
lp = LoadParm(plan["smb_conf"])
sam = SamDB(session_info=system_session(), lp=lp)
base = sam.domain_dn()

def change(user, **values):
    message = ldb.Message()
    found = sam.search(base, expression="(sAMAccountName=%s)" % ldb.binary_encode(user), attrs=[])
    message.dn = found[0].dn
    for name, value in values.items():
        message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
    sam.modify(message)

sam.transaction_start()
domain = ldb.Message(ldb.Dn(sam, base))
for name, value in plan["domain"].items():
    domain[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
sam.modify(domain)
for user, password in plan["users"].items():
    sam.newuser(user, password, useusernameascn=True)
for group in plan["groups"]:
    sam.newgroup(group)
for group, members in plan["groups"].items():
    if members:
        sam.add_remove_group_members(group, members)
for user, values in plan["changes"].items():
    change(user, **values)
for user, group in plan["primary"].items():
    rid = sam.search(base, expression="(sAMAccountName=%s)" % group, attrs=["objectSid"])
    rid = int.from_bytes(rid[0]["objectSid"][0][-4:], "little")
    change(user, primaryGroupID=str(rid))
for user in plan["disabled"]:
    change(user, userAccountControl="514")
for user in plan["never_now"]:
    change(user, logonHours=bytes(21))
sam.transaction_commit()
"""


class Authority:
    """A certificate authority of a test."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, *names: str) -> tuple[Path, Path]:
        """Writes a server's certificate for host names and IP addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate_file, key_file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(issuer, False)
        )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class DomainController:
    """A Samba domain controller that is provisioned, not started yet."""

    domain = DOMAIN
    netbios = NETBIOS
    host = HOST

    def __init__(self) -> None:
        # A short path: those of Unix sockets end at 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ii-samba-", dir="/tmp"))
        self.address = _free_address()
        self.authority = Authority("ImageInvoker tests")
        self.ca_file = str(self._folder / "ca.pem")
        self._conf = self._folder / "etc" / "smb.conf"
        self._passwords = {user: f"{secrets.token_urlsafe(12)}-Pä5ß" for user in _USERS}
        self._process: subprocess.Popen[bytes] | None = None
        self._provision()
        self._populate()

    @property
    def settings(self) -> DirectorySettings:
        """How to sign in here: over LDAPS, with its authority trusted."""
        return DirectorySettings(domain=DOMAIN, controllers=(self.address,), ca_file=self.ca_file)

    @property
    def nameserver(self) -> tuple[str, int]:
        """Its own DNS, which knows the domain's services and hosts."""
        return self.address, 53

    def password_of(self, user: str) -> str:
        """The password of one of the accounts."""
        return self._passwords[user]

    def failures_of(self, user: str) -> int:
        """How many wrong passwords the domain has counted for an account."""
        server = ldap3.Server(self.address, get_info=ldap3.NONE)
        connection = ldap3.Connection(server, check_names=False, auto_bind=ldap3.AUTO_BIND_NONE)
        connection.user, connection.authentication = f"{ALICE}@{DOMAIN}", ldap3.SIMPLE
        connection.password = self.password_of(ALICE).encode()
        assert connection.bind(read_server_info=False)
        connection.search("DC=lab,DC=example", f"(sAMAccountName={user})", attributes=[_FAILURES])
        (found,) = [each for each in connection.response or () if "attributes" in each]
        connection.unbind()
        return int(found["raw_attributes"][_FAILURES][0])

    def start(self) -> None:
        """Starts it; returns when it takes connections."""
        assert self._process is None
        with (self._folder / "samba.out").open("ab") as out:
            # It ends when its standard input does: with the test run, however that ends.
            self._process = subprocess.Popen(
                ["samba", "-i", "--model=single", f"--configfile={self._conf}"],
                stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < until, self._said()
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it gently; one that has ended is left alone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, as a power failure does."""
        self._end(signal.SIGKILL)

    @contextmanager
    def stopped(self, *, gently: bool = True) -> Iterator[None]:
        """It is gone meanwhile."""
        if gently:
            self.stop()
        else:
            self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It does not answer meanwhile; connections to it still come about."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Ends it and removes everything of it."""
        self.kill()
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            process.wait(_STOP_TIMEOUT)
            assert process.stdin is not None
            process.stdin.close()

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=self.ca_file)
        try:
            with (
                socket.create_connection((self.address, 389), timeout=1),
                socket.create_connection((self.address, 53), timeout=1),
                socket.create_connection((self.address, 636), timeout=1) as raw,
                context.wrap_socket(raw, server_hostname=self.address),
            ):
                return True
        except OSError:
            return False

    def _said(self) -> str:
        return (self._folder / "samba.out").read_text(errors="replace")

    def _provision(self) -> None:
        # The administrator's password is made up by the command and never used.
        self._run(
            [
                "samba-tool", "domain", "provision", f"--targetdir={self._folder}",
                f"--realm={DOMAIN.upper()}", f"--domain={NETBIOS}", "--server-role=dc",
                "--dns-backend=SAMBA_INTERNAL", "--host-name=dc1", f"--host-ip={self.address}",
                f"--option=interfaces={self.address}/8", "--option=bind interfaces only=yes",
                "--configfile=/dev/null", "--quiet",
            ]
        )  # fmt: skip
        certificate, key = self.authority.issue(self._folder / "tls", HOST, self.address)
        Path(self.ca_file).write_bytes(self.authority.pem)
        settings = {
            "server services": "ldap, dns",
            "dns forwarder": "",
            "tls enabled": "yes",
            "tls certfile": certificate,
            "tls keyfile": key,
            "tls cafile": self.ca_file,
            # So that tests can show what happens without TLS.
            "ldap server require strong auth": "no",
            "log file": self._folder / "log",
            "pid directory": self._folder,
            "ncalrpc dir": self._folder / "ncalrpc",
            "ntp signd socket directory": self._folder / "ntp",
            "winbindd socket directory": self._folder / "winbindd",
        }
        with self._conf.open("a") as conf:
            conf.write("[global]\n")
            conf.writelines(f"\t{name} = {value}\n" for name, value in settings.items())

    def _populate(self) -> None:
        plan = {
            "smb_conf": str(self._conf),
            # Times that last are negative, in 100 ns; this is a day.
            "domain": {"lockoutThreshold": str(LOCKS_AFTER), "lockoutDuration": "-864000000000"},
            "users": self._passwords,
            "groups": _MEMBERS,
            "changes": {
                ALICE: {"displayName": "Alice Ng"},
                ROBERT: {"userPrincipalName": f"robert.fox@{DOMAIN}"},
                EXPIRED: {"accountExpires": _nt_time(datetime.timedelta(days=-30))},
                LOCKED: {"lockoutTime": _nt_time(datetime.timedelta())},
                MUST_CHANGE: {"pwdLastSet": "0"},
            },
            "primary": {ERIN: "Imaging Crew"},
            "disabled": [DISABLED],
            "never_now": [NEVER_NOW],
        }
        self._run([_PYTHON, "-c", _POPULATE], json.dumps(plan))

    def _run(self, command: list[str], text: str = "") -> None:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _nt_time(from_now: datetime.timedelta) -> str:
    """A moment as the directory keeps it: in 100 ns since 1601."""
    moment = datetime.datetime.now(datetime.UTC) + from_now
    since = moment - datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
    return str(since // datetime.timedelta(microseconds=1) * 10)


def _free_address() -> str:
    """A loopback address on which nobody listens for LDAP."""
    while True:
        address = f"127.{'.'.join(str(1 + secrets.randbelow(253)) for _ in range(3))}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, 636))
            return address


@contextmanager
def hanging_server() -> Iterator[int]:
    """The port of 127.0.0.1 on which connections come about and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield int(server.getsockname()[1])


@pytest.fixture(scope="session")
def controller() -> Iterator[DomainController]:
    """The domain controller of this test run."""
    assert shutil.which("samba"), "Samba is not installed (Debian: samba-ad-dc, samba-ad-provision)"
    server = DomainController()
    try:
        server.start()
        yield server
    finally:
        server.remove()
