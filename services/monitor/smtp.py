"""A mail server as the options name it, and how a mail gets there: over TLS, or not at all."""

import asyncio
import re
import socket
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Final

import aiosmtplib
from msgspec import Struct

from services.monitor.credentials import Credentials

_STARTTLS_PORT: Final = 587
_TLS_PORT: Final = 465
_SERVER: Final = re.compile(
    r"(?:(?P<scheme>smtps?)://)?(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<host>[a-z0-9_.-]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?/?",
    re.IGNORECASE,
)


class MailError(Exception):
    """A mail was not taken; the text says why, and holds no secret."""


class MailServer(Struct, frozen=True, kw_only=True):
    """Where mail is handed in; ``tls`` from the first byte on, else by STARTTLS."""

    host: str
    port: int
    tls: bool


def mail_server(text: str) -> MailServer:
    """The server that ``HOST[:PORT]``, ``smtp://HOST[:PORT]`` or ``smtps://HOST[:PORT]`` names.

    Raises:
        ValueError: it names none.
    """
    match = _SERVER.fullmatch(text.strip())
    if not match or int(match["port"] or 1) > 65_535:
        raise ValueError(f"{text!r} is no mail server (HOST[:PORT] or smtps://HOST[:PORT])")
    tls = (match["scheme"] or "").lower() == "smtps"
    port = int(match["port"] or (_TLS_PORT if tls else _STARTTLS_PORT))
    return MailServer(host=match["v6"] or match["host"], port=port, tls=tls)


async def send(
    message: EmailMessage,
    sender: str,
    recipients: Sequence[str],
    server: MailServer,
    *,
    known: Credentials | None,
    trust: ssl.SSLContext,
    seconds: float,
) -> Sequence[str]:
    """Hands a mail in; returns those recipients that the server refused, if it took others.

    Args:
        message: the mail.
        sender: where what cannot be delivered goes back to.
        recipients: who gets it.
        server: who takes it; it must speak TLS, and its certificate must be for its name.
        known: the credentials to sign in with.
        trust: the authorities that are believed.
        seconds: how long all of it may take.

    Raises:
        MailError: nobody gets it, as far as can be known.
    """
    try:
        async with asyncio.timeout(seconds):
            refused, _ = await aiosmtplib.send(
                message,
                sender=sender,
                recipients=list(recipients),
                hostname=server.host,
                port=server.port,
                use_tls=server.tls,
                start_tls=not server.tls,
                tls_context=trust,
                username=known.user if known else None,
                password=known.password if known else None,
                # Else it is asked of the name service, which may take its time.
                local_hostname=socket.gethostname(),
                timeout=seconds,
            )
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = sorted({each.code for each in error.recipients})
        raise MailError(f"all recipients are refused {codes}") from None
    except aiosmtplib.SMTPResponseException as error:
        # The server's own words may repeat what it was told.
        raise MailError(f"{type(error).__name__} {error.code}") from None
    except (TimeoutError, aiosmtplib.SMTPTimeoutError):
        raise MailError(f"no answer within {seconds:g} s") from None
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise MailError(f"its certificate is not good: {cause.verify_message}") from None
        raise MailError(f"{type(error).__name__}: {type(cause).__name__}") from None
    return list(refused)
