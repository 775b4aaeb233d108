"""Ports that are kept for those who are to listen there."""

import socket
from typing import Final

HOST: Final = "127.0.0.1"


def held_port(port: int = 0) -> socket.socket:
    """A socket that keeps a port of 127.0.0.1 for as long as it is open; 0 takes a free one.

    Linux lets several bind to one address who all say SO_REUSEADDR, as NATS and the services do,
    while one of them listens at most; and it gives a port that is bound to nobody who asks for any.

    Raises:
        OSError: somebody listens there, or holds it without SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        raise
    return holder


def port_of(holder: socket.socket) -> int:
    """The port that it keeps."""
    return int(holder.getsockname()[1])
