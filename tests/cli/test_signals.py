"""Ctrl-C and SIGTERM while routes are put back: that is finished, and the exit code says whether they are."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import asyncio, os, sys
from luff.cli.signals import to_the_end
from luff.clock import SystemClock
from luff.errors import LuffError, NothingSelected
from luff.mesh import Ref
from luff.restore import find_injected, put_back
from luff.testing import EPOCH_S, Cluster, SimMesh, Trouble

number, trouble, ends_with = int(sys.argv[1]), Trouble[sys.argv[2]], sys.argv[3]
cluster = Cluster()
name = f"luff.1.0123456789abcdef.{int(EPOCH_S) - 900}.{int(EPOCH_S) - 300}.0"
there = cluster.add({
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "stock", "namespace": "shop"},
    "spec": {"hosts": ["stock"], "http": [{"name": name, "match": [], "route": []}]},
})
asked = []

def answer(verb, ref):
    if verb != "patch":
        return Trouble.NONE
    asked.append(verb)
    if len(asked) < 3:
        os.kill(os.getpid(), number)
    return trouble if len(asked) < 3 or trouble is Trouble.DENIED else Trouble.NONE

async def restore():
    mesh = SimMesh(cluster, trouble=answer)
    found, _ = await find_injected(mesh, None)
    [result] = await put_back(mesh, found, clock=SystemClock(), patience_s=2)
    if isinstance(result, BaseException):
        raise result
    print([route["name"] for route in cluster.objects[Ref.of(there)]["spec"]["http"]])
    if ends_with == "error":
        raise NothingSelected("there was no such run")
    return 0

try:
    code = asyncio.run(to_the_end(restore()))
except LuffError as error:
    code = error.exit_code
os.kill(os.getpid(), number)
sys.exit(code)
"""
FIRST = "finishing what is under way, until every route is known to be back"
LAST = "luff: ending; what was under way is finished\n"


def _restored(number: int, *, trouble: str = "NONE", ends_with: str = "nothing") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(number), trouble, ends_with],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_restore_that_is_interrupted_is_finished_and_says_so(number: signal.Signals, code: int) -> None:
    done = _restored(number)

    assert (done.returncode, done.stdout) == (code, "[]\n"), done.stderr
    assert done.stderr.startswith(f"luff: {number.name}: {FIRST}\n")
    assert done.stderr.endswith(LAST)


def test_a_second_signal_does_not_skip_a_restore() -> None:
    done = _restored(signal.SIGINT, trouble="ERROR")

    assert done.stderr == f"luff: SIGINT: {FIRST}\nluff: restoring; this is not skipped\n{LAST}"


def test_what_a_signal_interrupts_and_cannot_be_verified_is_7() -> None:
    assert _restored(signal.SIGINT, trouble="DENIED").returncode == 7


def test_an_error_beside_a_signal_is_said_and_the_code_is_the_signals() -> None:
    done = _restored(signal.SIGTERM, ends_with="error")

    assert done.returncode == 143
    assert "luff: there was no such run\n" in done.stderr
