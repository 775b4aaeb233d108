"""What a service counts, as Prometheus reads it."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server


class AddressError(ValueError):
    """Metrics cannot be served where they should be; the text says why."""


@contextlib.contextmanager
def served(registry: CollectorRegistry, address: str | None) -> Iterator[None]:
    """Serves ``/metrics`` at ``HOST:PORT``, in a thread of its own; nowhere without an address.

    Raises:
        AddressError: this is no address, or nobody can listen there.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise AddressError(f"{address!r} is no address for metrics: say HOST:PORT")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise AddressError(f"metrics cannot be served at {address}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
