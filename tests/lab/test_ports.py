"""Ports of labs: free, and nobody else's."""

from __future__ import annotations

import resource
import socket
from collections import deque

import pytest

from luff.errors import LabError
from luff.lab.ports import LOOPBACK, Ports


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    ports = Ports()
    found = ports.take()
    ports.close()
    return found


def test_a_port_that_waits_for_its_program_is_no_other_labs(port: int) -> None:
    one, another = Ports([port]), Ports([port])
    assert one.take() == port
    one.release(port)
    assert another.take() != port
    with socket.socket() as program:
        program.bind((LOOPBACK, port))
    one.close()
    assert another.take() == port
    another.close()


def test_a_port_on_which_somebody_listens_is_not_taken(port: int) -> None:
    with socket.socket() as envoy:
        envoy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        envoy.bind((LOOPBACK, port))
        envoy.listen()
        one, another = Ports([port]), Ports([port])
        assert one.take() != port
    # What was looked at and not taken is not claimed either.
    assert another.take() == port
    one.close()
    another.close()


def test_a_port_that_is_held_can_be_listened_on_by_an_envoy(port: int) -> None:
    ports = Ports([port])
    assert ports.take() == port
    with socket.socket() as envoy:
        envoy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        envoy.bind((LOOPBACK, port))
        envoy.listen()
    ports.close()


def test_a_limit_on_open_files_is_not_taken_for_a_lack_of_ports() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ports = Ports()
    with socket.socket() as newest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (newest.fileno() + 5, hard))
    try:
        with pytest.raises(LabError, match="no more may be open") as refused:
            deque(iter(ports.take, None), maxlen=0)
        assert "ulimit -n" in str(refused.value.next_step)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        ports.close()
