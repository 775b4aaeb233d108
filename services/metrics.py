"""Where a service is watched: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz``.

They are answered in threads beside the service's event loop, so that what it counts can be read
even when it hangs.
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from services.health import Health

AT_ONCE: Final = 16
"""Questions that are answered side by side, each in a thread."""
_TURN: Final = 1.0
"""Seconds that one more waits for its turn before its connection is closed."""
_PLAIN: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))


class AddressError(ValueError):
    """Metrics cannot be served where they should be; the text says why."""


@contextlib.contextmanager
def served(registry: CollectorRegistry, address: str | None, health: Health) -> Iterator[None]:
    """Serves the three at ``HOST:PORT``, in threads; nowhere without an address.

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
        server = _Server(host.strip("[]"), int(port))
    except OSError as error:
        raise AddressError(f"metrics cannot be served at {address}: {error.strerror}") from error
    server.set_app(_application(registry, health))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _application(registry: CollectorRegistry, health: Health) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case _, "/metrics":
                return metrics(environ, start)
            case "GET", "/healthz":
                alive = health.alive()
                status = "200 OK" if alive else "503 Service Unavailable"
                text = "alive" if alive else "the service does not answer"
            case "GET", "/readyz":
                missing = health.missing()
                status = "503 Service Unavailable" if missing else "200 OK"
                text = "; ".join(missing) or "ready"
            case _, "/healthz" | "/readyz":
                status, text = "405 Method Not Allowed", "ask with GET"
            case _:
                status, text = "404 Not Found", "there are /metrics, /healthz and /readyz"
        start(status, list(_PLAIN))
        return [f"{text}\n".encode()]

    return answer


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds after which whoever connects and asks nothing is left."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Says nothing: Prometheus asks every few seconds."""


_Connection = socket.socket | tuple[bytes, socket.socket]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def process_request(self, request: _Connection, client_address: object) -> None:
        """Answers in a thread, unless all of them are busy."""
        if self._turns.acquire(timeout=_TURN):
            try:
                super().process_request(request, client_address)
            except RuntimeError:
                # There is no room for a thread; nor, then, for whoever ends one's turn.
                self._turns.release()
                self.shutdown_request(request)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: _Connection, client_address: object) -> None:
        """Answers, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._turns.release()

    def server_bind(self) -> None:
        # That of HTTPServer asks the name service for this machine's full name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        log = structlog.get_logger("metrics")
        log.warning("a question about health failed", error=type(sys.exception()).__name__)
