"""Ports that a site keeps for its parts."""

import socket

import pytest

from cli.ports import HOST, held_port, port_of


def listening(port: int) -> socket.socket:
    return socket.create_server((HOST, port))


def test_whom_a_port_is_kept_for_may_listen_there_again_and_again() -> None:
    with held_port() as holder:
        for _ in range(2):
            with listening(port_of(holder)) as server:
                socket.create_connection(server.getsockname()).close()


def test_a_port_that_is_kept_is_refused_to_a_stranger() -> None:
    with (
        held_port() as holder,
        socket.socket() as stranger,
        pytest.raises(OSError, match="in use"),
    ):
        stranger.bind((HOST, port_of(holder)))


def test_nobody_is_promised_a_port_where_somebody_listens() -> None:
    with listening(0) as server, pytest.raises(OSError, match="in use"):
        held_port(server.getsockname()[1])


def test_a_port_that_is_kept_no_longer_is_free() -> None:
    with held_port() as holder:
        port = port_of(holder)
    with socket.socket() as stranger:
        stranger.bind((HOST, port))
