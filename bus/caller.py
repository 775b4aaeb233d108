"""Who asks a service."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from bus.messages import decoder

REQUEST_INFO: Final = "Nats-Request-Info"
"""The header in which a server tells a service of who asks."""


class RequestInfo(Struct, frozen=True):
    """What the server tells, as far as it matters here."""

    host: str | None = None


_request_info: Final = decoder(RequestInfo)


class Caller(Struct, frozen=True):
    """The machine's key, and the headers of the message if it has any."""

    machine: str
    headers: Mapping[str, str] | None = None

    @property
    def address(self) -> str | None:
        """The network address that the bus tells of the caller, if it does.

        A server tells it of questions that come from another account through a service import with
        ``share``. Within one account the header is whatever the caller wrote.
        """
        told = (self.headers or {}).get(REQUEST_INFO)
        try:
            return _request_info.decode(told).host if told else None
        except ValueError:
            return None
