"""Exit codes, whatever stdin, stdout and stderr are: closed, full, or without a reader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

LUFF = str(Path(sys.executable).parent / "luff")
FULL = "/dev/full"

needs_full = pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full")


class _Refusal(BaseHTTPRequestHandler):
    """This is an API server that allows nothing."""

    def do_GET(self) -> None:  # the name that http.server calls
        """Say no."""
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of http.server
        """Say nothing."""


@contextmanager
def _forbidding() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _luff(arguments: str, redirected: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {arguments} {redirected}', LUFF],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "HOME": str(folder), "KUBECONFIG": str(folder / "none")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


SPEECHLESS = [">&-", "2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=needs_full)]


@pytest.mark.parametrize("redirected", SPEECHLESS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [("version", 0), ("schema experiment", 0), ("run nosuch.yaml", 2), ("", 2), ("nosuch", 2), ("status", 5)],
)
def test_what_cannot_be_said_changes_no_exit_code(arguments: str, code: int, redirected: str, tmp_path: Path) -> None:
    found, _, err = _luff(arguments, redirected, tmp_path)

    assert found == code, err
    assert "Traceback" not in err
    assert "internal error" not in err


@pytest.mark.parametrize("redirected", SPEECHLESS)
def test_that_a_fault_may_be_live_is_an_exit_code_even_where_it_cannot_be_said(
    redirected: str, tmp_path: Path, kubeconfig: str
) -> None:
    with _forbidding() as address:
        loaded = yaml.safe_load(Path(kubeconfig).read_text())
        loaded["clusters"][0]["cluster"]["server"] = address
        Path(kubeconfig).write_text(yaml.safe_dump(loaded))

        found, _, err = _luff(f"restore --kubeconfig {kubeconfig}", redirected, tmp_path)

    assert found == 7, err


@needs_full
def test_what_is_told_to_a_full_disk_ends_nothing() -> None:
    code = """
import sys
from luff.cli import tell

for _ in range(2):
    tell("one", err=True)
    tell("two")
sys.exit(7)
"""
    with Path(FULL).open("w", encoding="utf-8") as full:
        assert subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, check=False).returncode == 7


def test_a_disk_that_is_full_for_a_moment_silences_nobody_for_good(tmp_path: Path) -> None:
    code = """
import resource, signal
from luff.cli.streams import make_usable, tell

make_usable()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
for err in (False, True):
    tell("meanwhile", err=err)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for err in (False, True):
    tell("afterwards", err=err)
"""
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=stderr, check=False)

    assert done.returncode == 0
    assert out.read_text().splitlines()[-1] == "afterwards"
    assert err.read_text() == "afterwards\n"


def test_a_child_has_all_three_streams_where_its_parent_had_none() -> None:
    code = """
import subprocess, sys
from luff.cli.streams import make_usable

make_usable()
sys.exit(subprocess.run(["/bin/sh", "-c", "cat && echo out && echo err >&2"]).returncode)
"""
    closed = ["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]

    assert subprocess.run(closed, check=False).returncode == 0


@needs_full
@pytest.mark.parametrize("arguments", ["version", "schema experiment", "--help"])
def test_data_that_could_not_be_written_is_said_and_is_no_success(arguments: str, tmp_path: Path) -> None:
    code, _, err = _luff(arguments, "> /dev/full", tmp_path)

    assert (code, err) == (5, "luff: not all could be written to stdout: No space left on device\n")


@pytest.mark.parametrize("arguments", ["schema experiment", "--help"])
def test_data_whose_reader_has_left_is_no_success_and_no_failure_of_a_service(arguments: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [LUFF, *arguments.split()], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (141, b"")
