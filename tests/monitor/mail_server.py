"""A real mail server for tests: STARTTLS or TLS, with a certificate of a test's own authority."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Final

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.buses import free_port
from tests.samba import Authority

NAME: Final = "127.0.0.1"


class Postbox:
    """What a mail server has taken, and how it behaves."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.sessions: list[Session] = []
        self.refused_recipients: set[str] = set()
        self.refusal = ""
        """What it answers instead of taking a mail."""

    async def handle_RCPT(  # noqa: N802 (the library's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        if address in self.refused_recipients:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.refusal:
            return self.refusal
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        self.sessions.append(session)
        return "250 OK"


class _Server(Controller):
    def __init__(self, postbox: Postbox, starttls: ssl.SSLContext | None, **how: Any) -> None:
        self._starttls = starttls
        super().__init__(postbox, hostname=NAME, port=free_port(), **how)

    def factory(self) -> SMTP:
        return SMTP(
            self.handler,
            tls_context=self._starttls,
            require_starttls=self._starttls is not None,
            hostname="mail.test",
            **self.SMTP_kwargs,
        )


@contextmanager
def serving(
    postbox: Postbox,
    folder: Path,
    authority: Authority,
    how: str,
    *,
    name: str = NAME,
    accounts: dict[str, str] | None = None,
) -> Iterator[str]:
    """A mail server by ``starttls``, ``tls`` or ``plain``; its name for the option."""  # fmt: skip
    certificate, key = authority.issue(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def check(
        _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        known = (accounts or {}).get(data.login.decode())
        return AuthResult(success=known == data.password.decode(), handled=False)

    server = _Server(
        postbox,
        context if how == "starttls" else None,
        ssl_context=context if how == "tls" else None,
        # The library takes STARTTLS alone for TLS, and warns of the other.
        auth_required=accounts is not None and how == "starttls",
        authenticator=check,
        auth_require_tls=how == "starttls",
    )
    server.start()
    try:
        yield f"{'smtps://' if how == 'tls' else ''}{NAME}:{server.port}"
    finally:
        server.stop()
