"""The domain controllers: which there are, which is asked first, and a verified line to one.

Nothing here knows a password: a line is open once the controller has shown a good certificate.
"""

import contextlib
import ipaddress
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rrset
import ldap3
from dns.rdtypes.IN.SRV import SRV
from msgspec import Struct

Security = Literal["LDAPS", "StartTLS", "clear text"]
Nameserver = tuple[str, int]
"""Address and port of a DNS server."""

_STEP: Final = 1
"""Seconds of silence, at most, in each step of a conversation; ldap3 wants a whole number."""
_DNS_LIFETIME: Final = 1.0
_LAST_FOR: Final = 30.0
"""Seconds that a controller which failed is asked after all others."""
_KEPT_AT_LEAST: Final = 10.0
_KEPT_AT_MOST: Final = 300.0
"""Seconds that what DNS has said is kept, whatever it says itself."""

_ADDRESS: Final = re.compile(
    r"(?:(?P<scheme>ldaps?)://)?"
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<host>[\w](?:[\w.-]*[\w])?))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?/?\Z",
    re.IGNORECASE,
)


class UnavailableError(Exception):
    """No controller can be named, or one cannot be asked; the text says why, for a log."""


class Controller(Struct, frozen=True, kw_only=True):
    """A domain controller; ``found`` means that DNS named it, and is asked for its address."""

    host: str
    port: int
    security: Security
    found: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({self.security})"


def parse_controller(text: str, *, clear_text: bool = False) -> Controller:
    """The controller that an operator named: HOST, HOST:PORT, ``ldaps://`` or ``ldap://``.

    ``ldap://`` means StartTLS, and only with ``clear_text`` no TLS at all; all else is LDAPS.

    Raises:
        ValueError: this is no address; the text says what is.
    """
    match = _ADDRESS.match(text.strip())
    if not match or int(match["port"] or 1) > 65_535 or not _is_ipv6(match["v6"] or "::"):
        raise ValueError(f"{text!r} is no domain controller: say HOST, HOST:PORT or ldap://HOST")
    upgraded = (match["scheme"] or "ldaps").lower() == "ldap"
    return Controller(
        host=match["v6"] or match["host"],
        port=int(match["port"] or (389 if upgraded else 636)),
        security=("clear text" if clear_text else "StartTLS") if upgraded else "LDAPS",
    )


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


class Controllers:
    """The controllers of a domain, as listed or as DNS names them."""

    def __init__(
        self,
        domain: str,
        listed: Sequence[str],
        *,
        clear_text: bool = False,
        nameserver: Nameserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._domain = domain
        self._listed = listed
        self._clear_text = clear_text
        self._nameserver = nameserver
        self._clock = clock
        self._services: dns.rrset.RRset | None = None
        self._kept_until = 0.0
        self._failed_at: dict[Controller, float] = {}

    async def in_order(self) -> list[Controller]:
        """All controllers, the one to ask first at the front.

        The order is the one listed, or by DNS (priority, and chance by weight); one that has
        failed lately comes last. Of those in DNS only the ones below the domain's name count.

        Raises:
            UnavailableError: DNS names none, or what is listed is no address.
        """
        if self._listed:
            try:
                all_of_them = [
                    parse_controller(text, clear_text=self._clear_text) for text in self._listed
                ]
            except ValueError as error:
                raise UnavailableError(str(error)) from None
        else:
            all_of_them = await self._find()
        now = self._clock()
        return sorted(
            all_of_them,
            key=lambda each: max(self._failed_at.get(each, -math.inf), now - _LAST_FOR),
        )

    def failed(self, controller: Controller) -> None:
        """This one is asked last for a while."""
        self._failed_at[controller] = self._clock()

    def failed_since(self, controller: Controller, moment: float) -> bool:
        """Whether this one has failed after a moment of the clock."""
        return self._failed_at.get(controller, -math.inf) > moment

    async def address(self, controller: Controller) -> str:
        """What to connect to: the IP address, or the host name if the system is to resolve it.

        Raises:
            UnavailableError: DNS does not know.
        """
        if not controller.found:
            return controller.host
        try:
            answers = await self._resolver().resolve_name(controller.host, lifetime=_DNS_LIFETIME)
        except (dns.exception.DNSException, OSError) as error:
            raise UnavailableError(f"DNS has no address: {type(error).__name__}") from error
        # Many controllers have an IPv6 address that not every site can reach.
        return min(answers.addresses(), key=lambda address: ":" in address)

    async def _find(self) -> list[Controller]:
        try:
            domain = dns.name.from_text(self._domain)
        except dns.exception.DNSException as error:
            raise UnavailableError(f"{self._domain!r} is no domain's name") from error
        if self._services is None or self._clock() >= self._kept_until:
            try:
                name = dns.name.from_text("_ldap._tcp.dc._msdcs", domain)
                answer = await self._resolver().resolve(name, "SRV", lifetime=_DNS_LIFETIME)
                self._services = answer.rrset
                kept = min(max(answer.chaining_result.minimum_ttl, _KEPT_AT_LEAST), _KEPT_AT_MOST)
            except (dns.exception.DNSException, OSError) as error:
                # What DNS said before is better than nothing.
                if self._services is None:
                    raise UnavailableError(
                        f"DNS names no domain controller of {self._domain}: {type(error).__name__}"
                    ) from error
                kept = _KEPT_AT_LEAST
            self._kept_until = self._clock() + kept
        return [
            Controller(
                host=record.target.to_text(omit_final_dot=True),
                port=record.port,
                security="StartTLS",
                found=True,
            )
            for record in (self._services.processing_order() if self._services else ())
            # Whoever forges DNS shall not choose the name that the certificate must show.
            if isinstance(record, SRV) and record.port and record.target.is_subdomain(domain)
        ]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        if self._nameserver is None:
            return dns.asyncresolver.Resolver()
        resolver = dns.asyncresolver.Resolver(configure=False)
        address, resolver.port = self._nameserver
        resolver.nameservers = [address]
        return resolver


class Line:
    """A line to one controller for one conversation, in one thread; any thread may cut it."""

    def __init__(self, controller: Controller, address: str, ca_file: str | None) -> None:
        server = ldap3.Server(
            address,
            port=controller.port,
            use_ssl=controller.security == "LDAPS",
            tls=_VerifiedTls(controller.host, ca_file),
            get_info=ldap3.NONE,
            connect_timeout=_STEP,
            mode=ldap3.IP_SYSTEM_DEFAULT,
        )
        self.connection: Final = ldap3.Connection(
            server,
            auto_bind=ldap3.AUTO_BIND_NONE,
            auto_referrals=False,
            check_names=False,
            read_only=True,
            receive_timeout=_STEP,
        )
        self._security = controller.security
        self._is_cut = False

    def open(self) -> None:
        """Connects and starts TLS, unless clear text is what was asked for; binds nobody.

        Raises:
            UnavailableError: it cannot be reached, or shows no good certificate.
        """
        try:
            self.connection.open(read_server_info=False)
            if self._security == "StartTLS":
                self.connection.start_tls(read_server_info=False)
            self.check()
        except UnavailableError:
            raise
        except Exception as error:  # whatever ldap3 makes of what is no directory
            raise UnavailableError(self.connection.last_error or type(error).__name__) from error

    def check(self) -> None:
        """To be called before anything secret is said.

        Raises:
            UnavailableError: the line is not secured as it should be, or nobody waits any more.
        """
        secured = isinstance(self.connection.socket, ssl.SSLSocket)
        # ldap3 would open a closed connection anew, and forget StartTLS.
        if self.connection.closed or secured == (self._security == "clear text"):
            raise UnavailableError("the connection is not secured")
        if self._is_cut:
            raise UnavailableError("given up")

    def cut(self) -> None:
        """Ends whatever the thread waits for."""
        self._is_cut = True
        connected = self.connection.socket
        if connected is not None:
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which would go on in clear text.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def close(self) -> None:
        """Hangs up; to be called by the thread that talks."""
        with contextlib.suppress(Exception):
            self.connection.unbind()
        if self.connection.socket is not None:
            self.connection.socket.close()


class _VerifiedTls(ldap3.Tls):
    """TLS by the standard library's rules: chain and host name are verified in the handshake.

    ldap3's own asks for the name afterwards, by a function that newer Pythons lack.
    """

    def __init__(self, host: str, ca_file: str | None) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._host = host
        self._ca_file = ca_file

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Secures the socket; its time-out holds for the handshake as a whole."""
        context = ssl.create_default_context(cafile=self._ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Else the bind waits 40 ms for the controller to acknowledge the end of the handshake.
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The line holds the socket before the handshake, so that it can be cut meanwhile.
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=self._host, do_handshake_on_connect=False
        )
        connection.socket.do_handshake()
