"""A service that stops coping: history names the revisions between which it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.story.conftest import Shell

DOCUMENTS = """\
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {name: cart, namespace: shop}
spec: {service: cart, port: 80, run: [python, cart.py], env: {STOCK_URL: "${peer:stock:80}"}}
---
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {name: stock, namespace: shop, labels: {app.kubernetes.io/version: the-dependencys-own}}
spec: {service: stock, port: 80, run: [python, stock.py]}
---
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: cart-survives-slow-stock, namespace: shop}
spec:
  target: stock
  fault: {delay: 1500ms}
  traffic: {requests: [GET http://cart/], rate: 10/s, duration: 20s, warmup: 1s}
  expect: [{latency: {p50: 1s}}]
"""
SERVER = """\
import os, http.server, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = answer(self.headers)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100

def serve():
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
STOCK = SERVER + "\ndef answer(_):\n    return b'12'\n\nserve()\n"
CART = (
    SERVER
    + """
def answer(headers):
    asked = urllib.request.Request(os.environ["STOCK_URL"], headers={"x-luff-run": headers.get("x-luff-run", "")})
    try:
        return urllib.request.urlopen(asked, timeout=TIMEOUT_S).read()
    except OSError:
        return b"unknown"

serve()
"""
)


@pytest.mark.slow
def test_a_trend_names_the_revisions_around_the_first_broken_run(shell: Shell) -> None:
    (shell.folder / "shop.yaml").write_text(DOCUMENTS)
    (shell.folder / "stock.py").write_text(STOCK)

    good, bad = (_tried(shell, timeout_s) for timeout_s in (0.5, 5.0))
    [series] = json.loads(shell.luff("trend", good["experiment"], "-o", "json").out)["series"]
    said = shell.luff("trend", good["experiment"]).out

    assert [each["verdict"] for each in (good, bad)] == ["passed", "failed"]
    before, after = (each["context"]["revision"] for each in (good, bad))
    assert before != after
    assert good["context"]["image"].startswith(f"lab/cart@sha256:{before}")
    assert (series["broken"]["good_revision"], series["broken"]["revision"]) == (before, after)
    assert f"run {bad['run']} was the first to fail" in said
    assert f"revision {after}" in said
    assert f"revision {before}" in said


def _tried(shell: Shell, timeout_s: float) -> dict[str, Any]:
    """Return the outcome of the experiment against a cart that waits so long for stock."""
    (shell.folder / "cart.py").write_text(f"TIMEOUT_S = {timeout_s}\n{CART}")
    shell.luff("run", "shop.yaml", "--lab", "--json", "out.json")
    [outcome] = json.loads(Path(shell.folder / "out.json").read_text())["outcomes"]
    assert isinstance(outcome, dict)
    return outcome
