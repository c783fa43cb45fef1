"""Events on the VirtualService, and ownership given back, as kubectl shows them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.story.conftest import Live, Shell, until


def test_kubectl_describe_shows_who_did_what(shell: Shell, quick: Path) -> None:
    done = shell.luff("run", "--lab", quick, "--json", "out.json")
    assert done.code == 0, done
    run = shell.outcome()["run"]

    described = shell.kubectl("describe", "virtualservice", "ratings", "-n", "bookinfo")

    assert described.code == 0, described
    said = [line for line in described.out.splitlines() if run in line]
    assert sorted(word for line in said for word in line.split() if word.startswith("Luff")) == [
        "LuffFaultInjected",
        "LuffFaultRemoved",
    ], described
    [injected] = [line for line in said if "LuffFaultInjected" in line]
    assert "runs quick" in injected
    assert "abort with HTTP 503" in injected
    assert "until 20" in injected


def test_the_events_hold_no_secret(shell: Shell, live: Live) -> None:
    running = live()
    routes = shell.virtual_service("ratings")["spec"]["http"]
    secrets = {
        match["headers"]["x-luff-run"]["prefix"]
        for route in routes
        for match in route.get("match") or []
        if "prefix" in match.get("headers", {}).get("x-luff-run", {})
    }
    assert secrets
    until(lambda: "LuffFaultInjected" in shell.kubectl("get", "events", "-n", "bookinfo").out)
    running.terminate()
    shell.finish(running)

    events = shell.kubectl("get", "events", "-n", "bookinfo", "-o", "json").out

    assert "LuffFaultRemoved" in events
    assert not [secret for secret in secrets if secret in events]


def test_after_a_run_luff_owns_no_route(shell: Shell, quick: Path) -> None:
    done = shell.luff("run", "--lab", quick, "--json", "out.json")

    assert done.code == 0, done
    found = shell.kubectl("get", "vs", "ratings", "-n", "bookinfo", "-o", "json", "--show-managed-fields")
    entries = json.loads(found.out)["metadata"]["managedFields"]
    owners = [entry["manager"] for entry in entries if "f:http" in entry["fieldsV1"].get("f:spec", {})]
    assert "luff" not in owners
    timeline = shell.outcome()["timeline"]
    [note] = [step["note"] for step in timeline if step["phase"] == "ownership"]
    assert note.startswith("returned")
