"""
More bad days of real processes: webhooks, roles, controllers, clocks and leaks.

The numbers are those of the list of scenarios in docs/scenarios.md.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luff.lab.state import read_state
from tests.story.conftest import Api, Live, Shell, until

Told = Callable[[str, object], None]
HOUR_S = 3600
TARGET = ("vs", "ratings", "-n", "bookinfo")
SHIFTED = """\
import time
_time, _time_ns, _shift_s = time.time, time.time_ns, {shift_s}
time.time = lambda: _time() + _shift_s
time.time_ns = lambda: _time_ns() + _shift_s * 10**9
"""
"""Python reads this before anything else; what reads the clock past it is not shifted."""


@pytest.mark.slow
def test_27_an_api_that_hangs_at_the_restore_is_given_up_and_asked_again(shell: Shell, api: Api, live: Live) -> None:
    running = live()
    # Both hang for an hour: it is luff that has to give up.
    api.misbehave(plural="virtualservices", verb="read", action="hang")
    api.misbehave(plural="virtualservices", verb="patch", action="hang")

    running.send_signal(15)
    done = shell.finish(running)

    assert done.code == 143, done
    assert api.behave() == 0
    assert not api.twins()
    assert shell.outcome()["restore"]["api"] == "verified"


@pytest.fixture
def lever_off(shell: Shell) -> Iterator[None]:
    """See that the lever that a run pulled itself is off afterwards."""
    yield
    shell.luff("lever", "off", "--lab", "-n", "bookinfo")
    shell.kubectl("delete", "configmap", "luff-lever", "-n", "bookinfo", "--ignore-not-found")


@pytest.mark.slow
@pytest.mark.usefixtures("lever_off")
def test_29_a_role_that_is_taken_away_in_mid_run_is_7_and_the_guard_goes_on(
    shell: Shell, api: Api, live: Live, record_property: Told
) -> None:
    running = live()
    [run] = api.twins()
    api.misbehave(plural="virtualservices", verb="patch", action="forbid")

    running.send_signal(15)
    done = shell.finish(running)

    assert done.code == 7, done
    assert f"luff restore {run} -n bookinfo --lab" in done.out + done.err
    assert api.twins() == {run}
    api.client.delete("/luff/misbehave")
    given_s = time.monotonic()
    until(lambda: not api.twins())
    record_property("cleaned_by", "guard")
    record_property("seconds", time.monotonic() - given_s)


def test_34_a_webhook_that_takes_names_away_is_refused_before_anything_is_sent(
    shell: Shell, quick: Path, api: Api
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    api.misbehave(plural="virtualservices", action="mutate", routes="luff.", change={"name": None}, times=1000)

    done = shell.luff("run", "--lab", quick, "--json", "out.json")

    assert done.code == 5, done
    outcome = shell.outcome()
    assert outcome["reason"] == "plan_refused:renamed_by_server"
    assert "let the webhook leave routes alone" in outcome["next"]["do"]
    assert shell.virtual_service("ratings")["spec"] == before


def test_47_what_flagger_does_to_an_object_leaves_nothing_for_long(
    shell: Shell, api: Api, endless: Path, live: Live, record_property: Told
) -> None:
    """It keeps the spec that it found in an annotation, overwrites it at each step, and puts the kept one back at the end."""
    original = shell.virtual_service("ratings")["spec"]
    note = "flagger.kubernetes.io/original-configuration"
    canary = {**original["http"][-1], "name": "canary"}
    try:
        running = live()
        # Flagger comes while the twins are there, and keeps them for later.
        kept = shell.virtual_service("ratings")["spec"]
        assert kept != original
        shell.kubectl("annotate", *TARGET, f"{note}={json.dumps(kept)}")
        _replace(shell, {**original, "http": [canary, *original["http"]]})
        ended = shell.finish(running)
        in_between = api.routes()
        # revertOnDeletion: the canary is deleted, and what was kept comes back, with the twins in it.
        _replace(shell, kept)
        came_back = api.twins()
        swept = shell.luff("reaper", "--lab", "--once")
        if api.twins():
            # Their time is not over: the reaper that stays sees that the Lease stands still.
            swept = shell.luff("restore", "--lab")
        planned = shell.luff("plan", "--lab", endless)
        after = shell.virtual_service("ratings")["spec"]
    finally:
        shell.kubectl("annotate", *TARGET, f"{note}-")
        _replace(shell, original)

    assert ended.code == 3, ended
    assert shell.outcome()["reason"] == "fault_removed"
    assert "canary" in in_between
    assert came_back
    assert swept.code == 0, swept
    assert after == original
    assert "flagger_owns_it" in planned.out + planned.err, planned
    record_property("cleaned_by", "luff restore")


def _replace(shell: Shell, spec: dict[str, Any]) -> None:
    patch = json.dumps([{"op": "replace", "path": "/spec", "value": spec}])
    done = shell.kubectl("patch", *TARGET, "--type=json", "-p", patch)
    assert done.code == 0, done


def _shifted(folder: Path, shift_s: int) -> str:
    """Return a folder with which a Python is that many seconds ahead."""
    clock = folder / f"clock{shift_s}"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(SHIFTED.format(shift_s=shift_s))
    return str(clock)


@pytest.mark.slow
@pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S])
def test_54_a_run_whose_clock_is_an_hour_off_is_like_any_other(
    shell: Shell, quick: Path, api: Api, shift_s: int
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    # A reaper with the right clock is there all the time, and must see nothing wrong.
    reaper = shell.start("reaper", "--lab", "--every", "500ms")

    done = shell.luff("run", "--lab", quick, "--json", "out.json", PYTHONPATH=_shifted(shell.folder, shift_s))
    reaper.terminate()
    reaped = shell.finish(reaper)

    assert done.code == 0, done
    outcome = shell.outcome()
    assert outcome["verdict"] == "passed"
    assert outcome["restore"]["api"] == "verified"
    assert reaped.code == 0, reaped
    assert outcome["run"] not in reaped.out, reaped
    assert shell.virtual_service("ratings")["spec"] == before


@pytest.mark.slow
@pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S])
def test_54_a_reaper_whose_clock_is_an_hour_off_takes_what_is_left_and_nothing_else(
    shell: Shell, api: Api, live: Live, record_property: Told, shift_s: int
) -> None:
    running = live()
    [run] = api.twins()
    now_s = int(time.time())
    expired = f"luff.1.{'e' * 16}.{now_s - 7200}.{now_s - 6600}.0"
    twin = next(
        each for each in shell.virtual_service("ratings")["spec"]["http"] if each.get("name", "").startswith("luff.")
    )
    patch = json.dumps([{"op": "add", "path": "/spec/http/0", "value": {**twin, "name": expired}}])
    assert shell.kubectl("patch", *TARGET, "--type=json", "-p", patch).code == 0

    swept = shell.luff("reaper", "--lab", "--once", PYTHONPATH=_shifted(shell.folder, shift_s))
    left = api.twins()
    running.send_signal(15)
    done = shell.finish(running)

    assert swept.code == 0, swept
    assert "it has expired" in swept.out
    assert left == {run}, "the live one stays, the expired one goes, by the API server's clock"
    assert done.code == 143, done
    record_property("cleaned_by", "reaper")


@pytest.mark.slow
def test_57_who_sends_the_secret_is_hit_for_as_long_as_the_run_lasts_and_no_longer(
    shell: Shell, api: Api, live: Live
) -> None:
    state = read_state(Path(shell.environment["LUFF_LAB_DIR"]))
    assert state is not None
    running = live()
    twins = [each for each in shell.virtual_service("ratings")["spec"]["http"] if each.get("name", "")[:5] == "luff."]
    [prefix] = {
        match["headers"]["traceparent"]["prefix"] for match in twins[0]["match"] if "traceparent" in match["headers"]
    }

    with httpx.Client(proxy=f"http://{state.sidecar}", trust_env=False, timeout=15.0) as user:

        def has_stars(trace: str) -> bool:
            headers = {"end-user": "jason", "traceparent": f"{trace}-{secrets.token_hex(8)}-01"}
            answer = user.get("http://reviews.bookinfo:9080/reviews/0", headers=headers)
            return '"stars"' in answer.text

        leaked = prefix + secrets.token_hex(8)
        other = "00-" + secrets.token_hex(16)
        until(lambda: not has_stars(leaked))
        bystander = has_stars(other)
        running.send_signal(15)
        done = shell.finish(running)
        afterwards = has_stars(leaked)

    assert bystander, "who does not send it is not hit"
    assert done.code == 143, done
    assert afterwards, "the secret of a run that is over hits nobody"


# --- what a restore meets in the hands of somebody who may not, and in names that make no sense

RUN = "0123456789abcdef"
BROKEN = f"luff.1.{RUN}.broken"


@pytest.fixture
def viewer(shell: Shell, api: Api) -> Path:
    """Return a kubeconfig of somebody who may read and not patch, as one of a cluster."""
    token = "v13wer"
    assert api.client.put("/luff/users/viewer", content=token).status_code == 204
    api.misbehave(action="forbid", verb="patch", plural="virtualservices", user="viewer")
    document = yaml.safe_load(Path(shell.environment["KUBECONFIG"]).read_text())
    document["users"][0]["user"] = {"token": token}
    path = shell.folder / "viewer"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def left_behind(shell: Shell) -> Iterator[Callable[[str], None]]:
    """Return a function that leaves a twin of that name in bookinfo/ratings; all is undone afterwards."""
    before = shell.virtual_service("ratings")["spec"]

    def leave(name: str) -> None:
        twin = {
            **before["http"][-1],
            "name": name,
            "match": [{"headers": {"x-luff-run": {"prefix": f"{'a' * 32}."}}}],
            "headers": {"response": {"set": {"x-luff-flags": "%RESPONSE_FLAGS%"}}},
        }
        _replace(shell, {**before, "http": [twin, *before["http"]]})

    yield leave
    _replace(shell, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"luff.1.{RUN}.1.2.0", BROKEN], ids=["expired", "malformed"])
def test_who_may_read_and_not_patch_is_told_with_7_what_to_run_and_nothing_is_disturbed(
    shell: Shell, viewer: Path, left_behind: Callable[[str], None], name: str
) -> None:
    left_behind(name)
    before = shell.virtual_service("ratings")

    done = shell.luff("restore", RUN, "--context", "luff-lab", KUBECONFIG=str(viewer), LUFF_LAB_DIR="")

    assert done.code == 7, done
    command = f"luff restore {RUN} -n bookinfo --context luff-lab"
    assert f"next: run `{command}` with credentials that may patch VirtualServices" in done.err, done
    assert shell.virtual_service("ratings") == before
    # And it is what helps.
    helped = shell.luff(*command.split()[1:], LUFF_LAB_DIR="")
    assert helped.code == 0, helped
    assert name not in [route.get("name") for route in shell.virtual_service("ratings")["spec"]["http"]]


def test_a_malformed_name_is_shown_and_removed_by_a_plain_restore(
    shell: Shell, left_behind: Callable[[str], None]
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    left_behind(BROKEN)

    seen = shell.luff("status", "--lab")
    done = shell.luff("restore", "--lab")

    assert seen.code == 1, seen
    assert RUN in seen.out
    assert "luff restore" in seen.out + seen.err, seen
    assert done.code == 0, done
    assert shell.virtual_service("ratings")["spec"] == before
