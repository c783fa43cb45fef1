"""The proxy of the tests misbehaves as it is told, and otherwise not at all."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.misbehaving_proxy import THREADS, MisbehavingProxy, Toxic, kubeconfig_through

WITHIN_S = 10.0
LATE_S = 0.05


class Upper:
    """This answers each line in capitals, and remembers what it was asked and what became of each connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked: queue.Queue[str] = queue.Queue()
        self.threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                for line in stream:
                    self.asked.put(line.decode().strip())
                    stream.write(line.upper())
                    stream.flush()
            self.asked.put("end")
        except OSError:
            self.asked.put("reset")

    def heard(self) -> str:
        return self.asked.get(timeout=WITHIN_S)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def upper() -> Iterator[Upper]:
    made = Upper()
    yield made
    made.close()


@pytest.fixture
def proxy() -> Iterator[MisbehavingProxy]:
    with MisbehavingProxy() as made:
        yield made


@pytest.fixture
def port(upper: Upper, proxy: MisbehavingProxy) -> int:
    return proxy.start(upper.listener.getsockname())


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WITHIN_S)


def _ask(connection: socket.socket, text: str) -> bytes:
    connection.sendall(text.encode() + b"\n")
    return connection.recv(100)


def test_what_nobody_troubles_goes_through_both_ways(port: int, upper: Upper) -> None:
    with _connected(port) as connection:
        assert [_ask(connection, text) for text in ("one", "two")] == [b"ONE\n", b"TWO\n"]

    assert [upper.heard() for _ in range(3)] == ["one", "two", "end"]


def test_latency_comes_and_goes_on_an_open_connection(port: int, proxy: MisbehavingProxy) -> None:
    with _connected(port) as connection:
        _ask(connection, "one")
        proxy.set(Toxic("latency", seconds=3600.0))
        connection.sendall(b"two\n")
        connection.settimeout(LATE_S)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert proxy.struck == 1


def test_a_late_answer_is_whole(port: int, proxy: MisbehavingProxy) -> None:
    proxy.set(Toxic("latency", seconds=LATE_S))

    with _connected(port) as connection:
        assert _ask(connection, "one") == b"ONE\n"


def test_a_reset_is_a_reset_at_both_ends(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("reset", after_bytes=2))

    with _connected(port) as connection:
        connection.sendall(b"one\n")
        with pytest.raises(ConnectionResetError), connection.makefile("rb") as stream:
            stream.read()

    assert [upper.heard(), upper.heard()] == ["one", "reset"]


def test_a_cut_lets_the_first_bytes_through_and_then_ends(port: int, proxy: MisbehavingProxy) -> None:
    proxy.set(Toxic("cut", after_bytes=6))

    with _connected(port) as connection:
        assert _ask(connection, "one") == b"ONE\n"
        assert _ask(connection, "two") == b"TW"
        assert connection.recv(100) == b""


def test_a_request_can_be_cut_before_it_arrives(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("cut", way="request", after_bytes=2))

    with _connected(port) as connection:
        assert _ask(connection, "one") == b""

    assert upper.heard() == "on"


def test_after_a_half_close_the_client_can_still_speak(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("half_close", after_bytes=4))

    with _connected(port) as connection:
        assert _ask(connection, "one") == b"ONE\n"
        assert connection.recv(100) == b""
        connection.sendall(b"two\n")
        assert [upper.heard(), upper.heard()] == ["one", "two"]


def test_a_black_hole_keeps_what_comes_until_it_is_taken_away(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("black_hole"))

    with _connected(port) as connection:
        connection.sendall(b"one\n")
        connection.settimeout(LATE_S)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert upper.asked.empty()
        proxy.set(None)
        connection.settimeout(WITHIN_S)
        assert connection.recv(100) == b"ONE\n"


def test_a_lost_reply_is_lost_after_the_request_was_heard(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("reply_lost", times=1))

    with _connected(port) as connection, pytest.raises(ConnectionResetError):
        _ask(connection, "one")
    with _connected(port) as connection:
        assert _ask(connection, "two") == b"TWO\n"

    assert upper.heard() == "one"


def test_a_refused_connection_reaches_nobody(port: int, proxy: MisbehavingProxy, upper: Upper) -> None:
    proxy.set(Toxic("refuse", times=1))

    with pytest.raises(ConnectionResetError), _connected(port) as connection:
        _ask(connection, "one")
    with _connected(port) as connection:
        assert _ask(connection, "two") == b"TWO\n"

    assert upper.heard() == "two"
    assert proxy.connections == 2


def test_what_is_open_can_be_closed_and_what_comes_next_goes_through(
    port: int, proxy: MisbehavingProxy, upper: Upper
) -> None:
    with _connected(port) as connection:
        _ask(connection, "one")
        proxy.drop()
        assert connection.recv(100) == b""
    # Each connection is heard by a thread of its own, so the first has to be over for this order.
    assert [upper.heard() for _ in range(2)] == ["one", "end"]
    with _connected(port) as connection:
        assert _ask(connection, "two") == b"TWO\n"

    assert upper.heard() == "two"


def test_what_earlier_toxics_struck_is_still_counted(port: int, proxy: MisbehavingProxy) -> None:
    for _ in range(2):
        proxy.set(Toxic("refuse"))
        with contextlib.suppress(ConnectionError), _connected(port) as connection:
            _ask(connection, "one")
        proxy.set(None)

    assert proxy.struck == 2


def test_an_upstream_that_is_not_there_is_a_reset(proxy: MisbehavingProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()
    port = proxy.start(nobody)

    with pytest.raises(ConnectionResetError), _connected(port) as connection:
        _ask(connection, "one")


@pytest.mark.parametrize("struck", [True, False], ids=["once it has struck", "at any moment"])
def test_stopping_leaves_neither_threads_nor_connections(upper: Upper, *, struck: bool) -> None:
    with MisbehavingProxy() as proxy:
        connection = _connected(proxy.start(upper.listener.getsockname()))
        proxy.set(Toxic("black_hole"))
        connection.sendall(b"one\n")
        end_s = time.monotonic() + WITHIN_S
        while struck and not proxy.struck and time.monotonic() < end_s:
            time.sleep(0.001)

    with connection, contextlib.suppress(ConnectionResetError):
        while connection.recv(100):
            pass
    assert [thread for thread in threading.enumerate() if thread.name == THREADS] == []


def test_a_kubeconfig_leads_through_it(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("clusters: [{name: lab, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: []\n")

    found = kubeconfig_through(7, tmp_path / "config", tmp_path / "through")

    assert yaml.safe_load(found.read_text())["clusters"][0]["cluster"] == {"server": "http://127.0.0.1:7"}
