"""What is left behind is removed by name, by whoever is there; what is not ours stays; the lever stops everything."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.story.conftest import KUBECTL, LUFF, Live, Shell, until

RUN = "0123456789abcdef"
SECRET = "a" * 32
SCOPED = [{"headers": {"x-luff-run": {"prefix": f"{SECRET}."}}}]
FLAGS = {"response": {"set": {"x-luff-flags": "%RESPONSE_FLAGS%"}}}
PATIENTLY_S = 60


def _twin(name: str, *, match: Any = SCOPED, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        **({} if match is None else {"match": match}),
        "fault": {"abort": {"httpStatus": 503, "percentage": {"value": 100}}},
        "route": [{"destination": {"host": "ratings", "subset": "v1"}}],
        **more,
    }


def _name(*, age_s: int = 0, life_s: int = 600, run: str = RUN, index: int = 0) -> str:
    created_s = int(time.time()) - age_s
    return f"luff.1.{run}.{created_s}.{created_s + life_s}.{index}"


def _expired() -> str:
    return _name(age_s=7200)


@pytest.fixture
def routes(shell: Shell) -> Iterator[Callable[..., None]]:
    """Return a function that puts routes in front of those of bookinfo/ratings, with kubectl; all is undone afterwards."""
    before = shell.virtual_service("ratings")["spec"]

    def put(*added: dict[str, Any]) -> None:
        patch = [{"op": "add", "path": "/spec/http/0", "value": route} for route in reversed(added)]
        done = shell.kubectl("patch", "vs", "ratings", "-n", "bookinfo", "--type=json", "-p", json.dumps(patch))
        assert done.code == 0, done

    yield put
    undo = [{"op": "replace", "path": "/spec", "value": before}]
    done = shell.kubectl("patch", "vs", "ratings", "-n", "bookinfo", "--type=json", "-p", json.dumps(undo))
    assert done.code == 0, done


@pytest.fixture
def misbehave(shell: Shell) -> Iterator[Callable[..., None]]:
    """Return a function that tells the lab's API how to fail; it behaves again afterwards."""
    kubeconfig = yaml.safe_load(Path(shell.environment["KUBECONFIG"]).read_text())
    user, cluster = kubeconfig["users"][0]["user"], kubeconfig["clusters"][0]["cluster"]
    headers = {"Authorization": f"Bearer {user['token']}"}
    with httpx.Client(base_url=cluster["server"], headers=headers, trust_env=False, verify=False) as client:

        def add(**rule: Any) -> None:
            answer = client.post("/luff/misbehave", json=[{"plural": "virtualservices", **rule}])
            assert answer.status_code == 200, answer.text

        yield add
        client.delete("/luff/misbehave")


def _names(shell: Shell) -> list[str]:
    return [str(route["name"]) for route in shell.virtual_service("ratings")["spec"]["http"] if "name" in route]


RESTORERS = [("reaper", "--lab", "--once"), ("restore", "--lab"), ("restore", "--lab", "--expired")]


@pytest.mark.parametrize("command", RESTORERS)
def test_a_leftover_is_removed(shell: Shell, routes: Callable[..., None], command: tuple[str, ...]) -> None:
    before = shell.virtual_service("ratings")["spec"]
    routes(_twin(_expired()))

    done = shell.luff(*command)

    assert done.code == 0, done
    assert RUN in done.out
    assert shell.virtual_service("ratings")["spec"] == before
    assert "luff.dev/fence" not in json.dumps(shell.virtual_service("ratings")["metadata"])


def test_a_leftover_is_removed_with_a_kubeconfig_and_nothing_else(shell: Shell, routes: Callable[..., None]) -> None:
    routes(_twin(_expired()))

    done = shell.luff(
        "restore", "--kubeconfig", shell.environment["KUBECONFIG"], KUBECONFIG="", LUFF_LAB_DIR="", LUFF_STORE=""
    )

    assert done.code == 0, done
    assert not _names(shell)


def test_a_live_run_is_left_alone_by_the_reaper(shell: Shell, live: Live) -> None:
    running = live()

    done = shell.luff("reaper", "--lab", "--once", "-v")
    still = shell.twins("ratings")
    running.send_signal(2)
    shell.finish(running)

    assert done.code == 0, done
    assert "is live" in done.err
    assert len(still) == 1


@pytest.mark.usefixtures("lever_off")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["restore", f"stop {RUN}", "lever on --why full"])
def test_a_leftover_is_removed_by_who_can_say_nothing(shell: Shell, routes: Callable[..., None], command: str) -> None:
    theirs = _twin("luff.frontend", match=[{"uri": {"prefix": "/frontend"}}])
    routes(theirs, _twin(_expired()))

    done = shell.program("/bin/sh", "-c", f'exec "$0" {command} --lab > /dev/full 2> /dev/full', LUFF)

    assert done.code == 0, done
    assert _names(shell) == [theirs["name"]]


def test_what_only_looks_like_ours_is_reported_and_never_removed(shell: Shell, routes: Callable[..., None]) -> None:
    theirs = [
        _twin("luff.frontend", match=[{"uri": {"prefix": "/frontend"}}]),
        _twin(f"luff.2.{RUN}.what.ever"),
        _twin(f"luff.1.{RUN}.1.2"),
    ]
    routes(*theirs)

    for command in (("reaper", "--lab", "--once"), ("restore", "--lab"), ("restore", "--lab", "--all")):
        done = shell.luff(*command)
        assert done.code == 0, done
        assert _names(shell) == [route["name"] for route in theirs], done
        for route in theirs:
            assert route["name"] in done.err, done
        assert "use that version" in done.err


def test_what_a_newer_luff_may_have_made_is_something_that_is_injected(
    shell: Shell, routes: Callable[..., None]
) -> None:
    routes(_twin("luff.frontend"))
    nothing = shell.luff("status", "--lab")
    routes(_twin(f"luff.2.{RUN}.what.ever"))
    something = shell.luff("status", "--lab")
    told = shell.luff("status", "--lab", "-o", "json")

    assert nothing.code == 0, nothing
    assert something.code == 1, something
    assert "nothing is injected" not in something.err
    assert "use that version" in something.err
    assert told.code == 1, told
    assert {row["route"]: row["newer"] for row in json.loads(told.out)["suspects"]} == {
        "luff.frontend": False,
        f"luff.2.{RUN}.what.ever": True,
    }


BROKEN = {
    "no number in it": lambda: f"luff.1.{RUN}.broken",
    "nothing that tells a run": lambda: "luff.what",
    "created tomorrow": lambda: _name(age_s=-86_400),
    "to live for a day": lambda: _name(life_s=86_400),
}


@pytest.mark.parametrize("name", BROKEN.values(), ids=BROKEN)
def test_a_twin_of_ours_whose_name_makes_no_sense_is_removed_on_sight(
    shell: Shell, routes: Callable[..., None], name: Callable[[], str]
) -> None:
    routes(_twin(name(), headers=FLAGS))

    done = shell.luff("reaper", "--lab", "--once")

    assert done.code == 0, done
    assert not _names(shell), done


UNSCOPED: dict[str, Any] = {
    "no match": None,
    "no header": [{"uri": {"prefix": "/"}}],
    "one of two without": [*SCOPED, {"uri": {"prefix": "/"}}],
    "too short": [{"headers": {"x-luff-run": {"prefix": SECRET[:8]}}}],
    "a wildcard": [{"headers": {"x-luff-run": {"regex": ".*"}}}],
    "a way around": [{"headers": {"x-luff-run": {"regex": f".*|{SECRET}"}}}],
}


@pytest.mark.parametrize("match", UNSCOPED.values(), ids=UNSCOPED)
def test_a_twin_whose_scope_is_gone_is_removed_on_sight(shell: Shell, routes: Callable[..., None], match: Any) -> None:
    routes(_twin(_name(), match=match, headers=FLAGS))

    done = shell.luff("reaper", "--lab", "--once")

    assert done.code == 0, done
    assert "its scope is missing, short or a wildcard" in done.out
    assert not _names(shell)


def test_a_twin_of_a_newer_luff_is_not_removed_on_sight_but_by_its_id(
    shell: Shell, routes: Callable[..., None]
) -> None:
    routes(_twin(f"luff.2.{RUN}.of.a.later.kind", headers=FLAGS))

    swept = shell.luff("reaper", "--lab", "--once")
    plain = shell.luff("restore", "--lab")
    expired = shell.luff("restore", "--lab", "--expired")
    seen = shell.luff("status", "--lab")
    still = _names(shell)
    asked = shell.luff("restore", "--lab", RUN)

    for done in (swept, plain, expired):
        assert done.code == 0, done
    assert "was made by a newer luff: use that version" in plain.err
    assert seen.code == 1, seen
    assert "made by a newer luff: use that version" in seen.out
    assert len(still) == 1, "its run may be live, and the upgrade in the middle"
    assert asked.code == 0, asked
    assert not _names(shell)


def test_a_broken_name_does_not_take_others_with_it(shell: Shell, routes: Callable[..., None]) -> None:
    other = _name(run="f" * 16)
    routes(_twin("luff.what", headers=FLAGS), _twin(other))

    done = shell.luff("reaper", "--lab", "--once")

    assert done.code == 0, done
    assert _names(shell) == [other]


def test_two_reapers_at_once_both_end_well(shell: Shell, routes: Callable[..., None]) -> None:
    routes(*(_twin(_name(age_s=7200, run=f"{number:016x}")) for number in range(5)))

    with ThreadPoolExecutor() as threads:
        all_done = list(threads.map(lambda _: shell.luff("reaper", "--lab", "--once"), range(2)))

    assert [done.code for done in all_done] == [0, 0], all_done
    assert not _names(shell)


TROUBLES: dict[str, list[dict[str, Any]]] = {
    "500": [{"action": "status", "code": 500, "times": 2, "verb": "patch"}],
    "409": [{"action": "status", "code": 409, "times": 5, "verb": "patch"}],
    "429": [{"action": "status", "code": 429, "retry_after": 1, "verb": "patch"}],
    "404": [{"action": "status", "code": 404, "verb": "get"}],
    "reply lost": [{"action": "drop_reply", "verb": "patch"}],
    "cut": [{"action": "close", "verb": "patch"}, {"action": "close", "verb": "get"}],
    "late": [{"action": "apply_late", "seconds": 0.3, "verb": "patch"}],
    "stale": [{"action": "stale", "revisions": 1, "verb": "get", "times": 1}],
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_reaper_gets_through_an_api_that_misbehaves(
    shell: Shell, routes: Callable[..., None], misbehave: Callable[..., None], trouble: list[dict[str, Any]]
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    routes(_twin(_expired()))
    for rule in trouble:
        misbehave(**rule)

    done = shell.luff("reaper", "--lab", "--once")

    assert done.code == 0, done
    assert shell.virtual_service("ratings")["spec"] == before


def test_a_restore_waits_for_an_api_that_is_away(
    shell: Shell, routes: Callable[..., None], misbehave: Callable[..., None]
) -> None:
    routes(_twin(_expired()))
    misbehave(action="status", code=503, verb="list", times=2)
    misbehave(action="close", verb="patch", times=3)

    done = shell.luff("restore", "--lab")

    assert done.code == 0, done
    assert not _names(shell)


def test_a_reaper_that_does_not_stay_claims_nothing_and_says_when_it_was_blind(
    shell: Shell, misbehave: Callable[..., None]
) -> None:
    # One that stayed, in a test before this one, has left its claim.
    shell.kubectl("delete", "lease", "luff-reaper", "-n", "luff-system", "--ignore-not-found")

    assert shell.luff("reaper", "--lab", "--once").code == 0
    misbehave(action="status", code=503, verb="list")
    blind = shell.luff("reaper", "--lab", "--once")
    lease = shell.kubectl("get", "lease", "luff-reaper", "-n", "luff-system")

    assert blind.code == 7, blind
    assert lease.code == 1, lease


def test_credentials_that_may_read_but_not_patch_end_with_7_and_the_next_command(
    shell: Shell, routes: Callable[..., None], misbehave: Callable[..., None]
) -> None:
    routes(_twin(_expired()))
    misbehave(action="status", code=403, verb="patch", times=1_000_000)

    done = shell.luff("restore", "--lab", RUN)

    assert done.code == 7, done
    assert "NOT restored" in done.err
    assert (
        f"next: run `luff restore {RUN} -n bookinfo --lab` with credentials that may patch VirtualServices" in done.err
    )
    assert len(_names(shell)) == 1


def test_who_may_not_even_look_is_told_so_with_7(shell: Shell, misbehave: Callable[..., None]) -> None:
    misbehave(action="status", code=403, verb="list", times=1_000_000)

    done = shell.luff("restore", "--lab")

    assert done.code == 7, done
    assert "it cannot be seen whether a fault is live" in done.err


def test_what_may_be_live_is_listed_with_its_command_and_removed_only_by_name(
    shell: Shell, routes: Callable[..., None], misbehave: Callable[..., None]
) -> None:
    routes(_twin(_name()))
    misbehave(action="status", code=403, verb="get", plural="leases", times=1_000_000)

    seen = shell.luff("status", "--lab", "-o", "json")
    plain = shell.luff("restore", "--lab")
    still = _names(shell)
    named = shell.luff("restore", "--lab", RUN)

    [row] = json.loads(seen.out)["injected"]
    assert (row["run"], row["state"]) == (RUN, "unknown")
    assert row["unread"]
    assert plain.code == 7, plain
    assert "may be live, its Lease could not be read" in plain.err
    assert "nothing to restore" not in plain.err
    assert f"`luff restore {RUN} -n bookinfo --lab`" in plain.err
    assert len(still) == 1
    assert named.code == 0, named
    assert not _names(shell)


def test_a_date_that_is_none_keeps_nobody_from_seeing_the_rest(shell: Shell, routes: Callable[..., None]) -> None:
    routes(_twin(f"luff.1.{RUN}.0.999999999999.0"), _twin(_expired().replace(RUN, "f" * 16)))

    table = shell.luff("status", "--lab")
    told = shell.luff("status", "--lab", "-o", "json")

    assert table.code == 1, table
    assert "until unknown" in table.out
    assert told.code == 1, told
    until = {row["run"]: row["expires_at"] for row in json.loads(told.out)["injected"]}
    assert until[RUN] is None
    assert until["f" * 16] is not None


def test_a_reaper_that_runs_removes_an_orphan_and_ends_on_a_signal(shell: Shell, routes: Callable[..., None]) -> None:
    reaper = shell.start("reaper", "--lab", "--every", "500ms")
    routes(_twin(_name()))

    until(lambda: not _names(shell), within_s=PATIENTLY_S)
    reaper.send_signal(15)
    done = shell.finish(reaper)

    assert done.code == 0, done
    assert "its run is dead: the Lease stands still" in done.out


@pytest.fixture
def lever_off(shell: Shell) -> Iterator[None]:
    """See that every lever is off afterwards."""
    yield
    for namespace in ("luff-system", "bookinfo"):
        shell.kubectl("delete", "configmap", "luff-lever", "-n", namespace, "--ignore-not-found")


def _heeds(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Return whether *process* does something of its own about a signal."""
    [caught] = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.usefixtures("lever_off")
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        (("restore",), signal.SIGINT, 130),
        (("stop", RUN), signal.SIGTERM, 143),
        (("lever", "on", "--why", "a test"), signal.SIGINT, 130),
    ],
)
def test_a_signal_does_not_keep_a_command_from_putting_routes_back(
    shell: Shell,
    routes: Callable[..., None],
    misbehave: Callable[..., None],
    command: tuple[str, ...],
    number: signal.Signals,
    code: int,
) -> None:
    routes(_twin(_expired()))
    misbehave(action="status", code=503, verb="list", times=3)

    process = shell.start(*command, "--lab")
    until(lambda: _heeds(process, signal.SIGTERM))
    process.send_signal(number)
    process.send_signal(number)
    done = shell.finish(process)

    assert done.code == code, done
    assert f"{number.name}: finishing what is under way" in done.err
    assert not _names(shell)


@pytest.mark.usefixtures("lever_off")
@pytest.mark.parametrize("where", [(), ("-n", "bookinfo")], ids=["everywhere", "in one namespace"])
def test_the_lever_stops_runs_restores_and_refuses(
    shell: Shell, live: Live, quick: Path, where: tuple[str, ...]
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    running = live()

    pulled = shell.luff("lever", "on", "--lab", "--why", "checkout is down", *where)
    restored = shell.virtual_service("ratings")["spec"]
    stopped = shell.finish(running)
    refused = shell.luff("run", "--lab", quick)
    on = shell.luff("lever", "status", "--lab", *where, "-o", "json")
    off = shell.luff("lever", "off", "--lab", *where)
    after = shell.luff("lever", "status", "--lab")

    assert pulled.code == 0, pulled
    assert restored == before
    assert stopped.code == 4, stopped
    assert refused.code == 4, refused
    assert "checkout is down" in refused.out + refused.err
    assert "luff lever off" + "".join(f" {word}" for word in where) in refused.out + refused.err
    assert on.code == 1, on
    [row] = json.loads(on.out)["levers"]
    assert row["why"] == "checkout is down"
    assert "@" in row["who"]
    assert re.fullmatch(r"[0-9-]+T[0-9:]+Z", row["when"])
    assert (row["cluster"], row["store"]) == (True, True)
    assert off.code == 0, off
    assert after.code == 0, after


@pytest.mark.usefixtures("lever_off")
def test_the_lever_works_twice_and_off_twice(shell: Shell) -> None:
    codes = [
        shell.luff("lever", *words, "--lab").code
        for words in (("on", "--why", "a"), ("on", "--why", "b"), ("status",), ("off",), ("off",), ("status",))
    ]

    assert codes == [0, 0, 1, 0, 0, 0]


@pytest.mark.usefixtures("lever_off")
def test_the_lever_is_pulled_and_let_go_in_the_half_that_there_is(shell: Shell, quick: Path) -> None:
    broken = "sqlite:////dev/null/luff.db"

    pulled = shell.luff("lever", "on", "--lab", "--why", "x", "--store", broken)
    half = shell.luff("lever", "status", "--lab", "-o", "json", "--store", broken)
    off = shell.luff("lever", "off", "--lab", "-o", "json", "--store", broken)
    unknown = shell.luff("lever", "status", "--lab", "--store", broken)
    whole = shell.luff("lever", "off", "--lab")

    assert pulled.code == 0, pulled
    assert "it is not in the store" in pulled.out
    assert half.code == 1, half
    [row] = json.loads(half.out)["levers"]
    assert (row["cluster"], row["store"]) == (True, False)
    assert off.code == 5, off
    assert "may still be on in the store" in off.err
    assert json.loads(off.out)["was_on"] is True
    assert unknown.code == 5, unknown
    assert whole.code == 0, whole


@pytest.mark.usefixtures("lever_off")
def test_where_the_lever_cannot_be_put_over_all_it_says_where_it_is(
    shell: Shell, quick: Path, misbehave: Callable[..., None]
) -> None:
    misbehave(action="status", code=403, verb="create", plural="configmaps", namespace="luff-system", times=1_000_000)
    misbehave(action="status", code=403, verb="create", plural="namespaces", times=1_000_000)
    misbehave(action="status", code=403, verb="create", plural="configmaps", namespace="default", times=1_000_000)

    pulled = shell.luff("lever", "on", "--lab", "--why", "x", "-o", "json")
    refused = shell.luff("run", "--lab", quick)
    off = shell.luff("lever", "off", "--lab")
    after = shell.luff("lever", "status", "--lab")

    assert pulled.code == 5, pulled
    said = json.loads(pulled.out)
    assert "bookinfo" in said["refused_in"]
    assert "default" in said["not_refused_in"]
    assert "NOT refused in: " in pulled.err
    assert said["restored"] is True
    assert refused.code == 4, refused
    assert off.code == 0, off
    assert after.code == 0, after


def test_a_lever_without_a_reason_or_a_place_is_told_what_to_do(shell: Shell, routes: Callable[..., None]) -> None:
    routes(_twin(_expired()))

    unsaid = shell.luff("lever", "on", "--lab")
    nowhere = shell.luff("lever", "on", "--lab", "--why", "x", "-n", "no-such-namespace")

    assert unsaid.code == 2, unsaid
    assert "--why" in unsaid.err
    assert nowhere.code == 5, nowhere
    assert "kubectl create namespace no-such-namespace" in nowhere.err
    assert len(_names(shell)) == 1, "another namespace's routes are none of its business"


@pytest.mark.usefixtures("lever_off")
def test_the_lever_also_takes_out_what_was_left_behind(shell: Shell, routes: Callable[..., None]) -> None:
    routes(_twin(_name()), _twin("luff.what", headers=FLAGS), _twin("luff.frontend"))

    done = shell.luff("lever", "on", "--lab", "--why", "x")

    assert done.code == 0, done
    assert _names(shell) == ["luff.frontend"]


ROOT = Path(__file__).parents[2]


def _documented(word: str) -> str:
    found = re.search(rf"<!-- tested: {word} -->\n```sh\n(.*?)```", (ROOT / "docs/restoring.md").read_text(), re.DOTALL)
    assert found is not None, f"docs/restoring.md has no command marked {word}"
    return found[1]


def _sh(shell: Shell, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(KUBECTL).parent}:{shell.environment['PATH']}"
    return subprocess.run(
        ["sh", "-c", script],
        env={**shell.environment, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(shutil.which("jq") is None, reason="the documented command needs jq")
def test_the_documented_kubectl_command_removes_a_leftover_and_nothing_else(
    shell: Shell, routes: Callable[..., None]
) -> None:
    before = shell.virtual_service("ratings")["spec"]
    theirs = _twin("luff.frontend")
    routes(theirs, _twin(_expired()))

    listed = _sh(shell, _documented("list"))
    removed = _sh(shell, _documented("remove"), NAMESPACE="bookinfo", NAME="ratings")

    assert listed.stdout == "bookinfo ratings\n", listed
    assert removed.returncode == 0, removed
    after = shell.virtual_service("ratings")["spec"]
    assert after == {**before, "http": [theirs, *before["http"]]}
    assert _sh(shell, _documented("list")).stdout == ""


def test_the_documented_kubectl_command_needs_nothing_else(shell: Shell, routes: Callable[..., None]) -> None:
    name = _expired()
    routes(_twin(name))

    done = _sh(shell, _documented("plain"), NAMESPACE="bookinfo", NAME="ratings", ROUTE=name)
    again = _sh(shell, _documented("plain"), NAMESPACE="bookinfo", NAME="ratings", ROUTE=name)

    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{name}\n"), done
    assert not _names(shell)
    assert again.returncode != 0, "by then another route is at that place"


def test_what_is_to_be_deployed_is_in_order(shell: Shell) -> None:
    [deployment] = [each for each in _manifests("reaper.yaml") if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    kubeconfig = next(each for each in _manifests("reaper.yaml") if each["kind"] == "ConfigMap")["data"]["config"]

    accepted = shell.luff(*container["args"], "--help")

    assert accepted.code == 0, accepted
    assert "--beat-file" in accepted.out
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["args"][2] == yaml.safe_load(kubeconfig)["current-context"]
    verbs = {verb for rule in _rules("reaper.yaml", "virtualservices") for verb in rule["verbs"]}
    assert verbs == {"get", "list", "patch"}
    assert {verb for rule in _rules("runs.yaml", "virtualservices") for verb in rule["verbs"]} == verbs


def test_the_file_for_the_probes_is_written_after_a_look_that_can_remove_nothing(
    shell: Shell, misbehave: Callable[..., None]
) -> None:
    misbehave(action="status", code=503, verb="patch", times=1000)

    done = shell.luff("reaper", "--lab", "--once", "--beat-file", "able")

    assert done.code == 7, done
    assert "nothing can be removed in bookinfo" in done.err
    assert (shell.folder / "able").exists()


def test_the_file_for_the_probes_is_written_after_a_whole_look_only(
    shell: Shell, misbehave: Callable[..., None]
) -> None:
    misbehave(action="status", code=503, verb="list")

    blind = shell.luff("reaper", "--lab", "--once", "--beat-file", "beat")
    was_there = (shell.folder / "beat").exists()
    seeing = shell.luff("reaper", "--lab", "--once", "--beat-file", "beat")

    assert (blind.code, was_there) == (7, False), blind
    assert seeing.code == 0, seeing
    assert (shell.folder / "beat").exists()


def _manifests(file: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((ROOT / "deploy" / file).read_text()) if each]


def _rules(file: str, resource: str) -> list[dict[str, Any]]:
    rules = [rule for each in _manifests(file) for rule in each.get("rules") or []]
    return [rule for rule in rules if resource in rule["resources"]]
