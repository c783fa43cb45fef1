"""A run from end to end: what it prints, writes, keeps, and leaves behind."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from luff.schema import schema_for
from tests.story.conftest import LUFF, Api, Done, Live, Shell, until


def _report(path: Path) -> dict[str, object]:
    document = json.loads(path.read_text())
    jsonschema.Draft7Validator(schema_for("report")).validate(document)
    assert isinstance(document, dict)
    return document


def _outcomes(path: Path) -> list[dict[str, Any]]:
    outcomes = _report(path)["outcomes"]
    assert isinstance(outcomes, list)
    return outcomes


def test_a_run_passes_and_leaves_the_object_as_it_was(shell: Shell, quick: Path) -> None:
    before = shell.virtual_service("ratings")["spec"]

    done = shell.luff("run", "--lab", quick, "--json", "out.json")

    assert done.code == 0, done
    assert "PASSED" in done.out
    assert "restored" in done.out
    assert "quick.yaml:13" in done.out, "the line of the expectation is named"
    assert shell.virtual_service("ratings")["spec"] == before
    outcome = shell.outcome()
    assert outcome["verdict"] == "passed"
    assert outcome["phase"] == "clean"
    assert outcome["restore"]["api"] == "verified"
    assert outcome["restore"]["data_plane"] == "verified"
    assert outcome["restore"]["object"] == "identical"
    assert outcome["evidence"]["exposure"] == 1.0
    assert outcome["edge"] == {"caller": "reviews", "dependency": "ratings"}
    assert outcome["scope"]["arrived"] == ["baggage", "header", "traceparent"] or outcome["scope"]["arrived"] == [
        "traceparent"
    ]
    assert [step["phase"] for step in outcome["timeline"]][:4] == ["planned", "warm-up", "armed", "live"]


def test_what_was_run_is_in_history(shell: Shell, quick: Path) -> None:
    shell.luff("run", "--lab", quick, "--json", "out.json")
    outcome = shell.outcome()

    listed = shell.luff("runs", "list", "-o", "json")
    shown = shell.luff("runs", "show", outcome["run"], "-o", "json")

    assert json.loads(listed.out)[0]["run"] == outcome["run"]
    assert json.loads(shown.out) == outcome
    assert shell.luff("runs", "show", outcome["run"]).out.startswith("✓ PASSED  quick")


def test_the_spec_of_an_outcome_runs_again_and_names_the_trace_that_it_is_part_of(shell: Shell, quick: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    first = shell.luff("run", quick, "--lab", "--json", "out.json", TRACEPARENT=f"00-{trace}-00f067aa0ba902b7-01")
    [outcome] = json.loads((shell.folder / "out.json").read_text())["outcomes"]
    (shell.folder / "again.yaml").write_text(json.dumps(outcome["spec"]))
    second = shell.luff("run", "again.yaml", "--lab", "--json", "out.json", TRACEPARENT=trace)
    [again] = json.loads((shell.folder / "out.json").read_text())["outcomes"]

    assert (first.code, second.code) == (0, 0), second
    assert (again["spec"], again["spec_sha256"]) == (outcome["spec"], outcome["spec_sha256"])
    assert (outcome["context"]["trace_id"], again["context"]["trace_id"]) == (trace, None)
    assert "TRACEPARENT is not" in second.err
    assert "TRACEPARENT" not in first.err


def test_every_report_is_written_whole(shell: Shell, quick: Path) -> None:
    done = shell.luff(
        "run", "--lab", quick, "--html", "r.html", "--junit", "r.xml", "--markdown", "r.md", "--json", "r.json"
    )

    assert done.code == 0, done
    page = (shell.folder / "r.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "quick" in page
    assert "<testsuite" in (shell.folder / "r.xml").read_text()
    assert "quick" in (shell.folder / "r.md").read_text()
    again = shell.luff("report", "r.json", "--html", "again.html")
    assert again.code == 0, again
    assert not list(shell.folder.glob("*.tmp*"))


def test_the_secret_of_the_scope_is_written_nowhere_but_in_the_object(shell: Shell, endless: Path, api: Api) -> None:
    running = shell.start("run", "--lab", endless, "--json", "out.json", "--html", "out.html", "-v")
    until(api.twins)
    [twin] = [route for route in api.spec()["http"] if str(route.get("name")).startswith("luff.1.")]
    secret = next(m["headers"]["x-luff-run"]["prefix"] for m in twin["match"] if "x-luff-run" in m["headers"])
    trace = next(m["headers"]["traceparent"]["prefix"] for m in twin["match"] if "traceparent" in m["headers"])
    running.send_signal(2)
    done = shell.finish(running)

    assert done.code == 130, done
    for said in (done.out, done.err):
        assert secret.rstrip(".") not in said
        assert trace.removeprefix("00-") not in said
    for path in shell.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.rstrip(".").encode() not in content, path
            assert trace.removeprefix("00-").encode() not in content, path


def test_plan_shows_what_a_run_would_do_and_touches_nothing(shell: Shell, quick: Path) -> None:
    before = shell.virtual_service("ratings")

    done = shell.luff("plan", "--lab", quick, "--dry-run=server")

    assert done.code == 0, done
    assert '+name: "luff.1.' in done.out
    assert "<redacted>" in done.out
    assert "no-stars" in done.out
    assert "tolerates" in done.out
    assert "\nsent by  one process\n" in done.out
    assert shell.virtual_service("ratings") == before
    assert json.loads(shell.luff("plan", "--lab", quick, "-o", "json").out)["traffic"]["processes"] == 1


@pytest.mark.parametrize("signal_number", [2, 15])
def test_a_signal_restores_before_it_leaves(shell: Shell, live: Live, signal_number: int) -> None:
    before = shell.virtual_service("ratings")["spec"]
    running = live()

    running.send_signal(signal_number)
    done = shell.finish(running)

    assert done.code == 128 + signal_number, done
    assert shell.virtual_service("ratings")["spec"] == before
    outcome = shell.outcome()
    assert (outcome["verdict"], outcome["reason"], outcome["phase"]) == ("aborted", "operator", "clean")
    assert outcome["restore"]["data_plane"] == "verified"


def test_a_second_ctrl_c_does_not_skip_the_restore(shell: Shell, live: Live) -> None:
    running = live()

    for _ in range(5):
        running.send_signal(2)
    done = shell.finish(running)

    assert done.code == 130, done
    assert not shell.twins("ratings")


def test_the_end_of_max_duration_stops_restores_and_starts_no_more(shell: Shell, endless: Path) -> None:
    (shell.folder / "next.yaml").write_text(endless.read_text().replace("name: endless", "name: never-begun"))

    done = shell.luff("run", "--lab", endless, "next.yaml", "--max-duration", "5s", "--json", "out.json")

    assert done.code == 4, done
    assert "--max-duration 5 s is over" in done.err
    assert not shell.twins("ratings")
    first, second = _outcomes(shell.folder / "out.json")
    assert (first["verdict"], first["reason"], first["phase"]) == ("aborted", "bound", "clean")
    assert (second["experiment"], second["reason"], second["restore"]) == ("never-begun", "bound", None)
    assert "it was not started" in second["explanation"]


def test_a_reader_that_leaves_ends_no_run_and_changes_no_exit_code(shell: Shell, quick: Path, api: Api) -> None:
    running = shell.start("run", "--lab", quick, "--json", "out.json")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    until(lambda: api.twins() or running.poll() is not None)
    running.stderr.close()

    assert running.wait(60) == 0
    [outcome] = _outcomes(shell.folder / "out.json")
    assert (outcome["verdict"], outcome["phase"]) == ("passed", "clean")
    assert json.loads(shell.luff("runs", "list", "-o", "json").out)[0]["run"] == outcome["run"]


def test_a_person_at_a_terminal_sees_figures_only_once_there_are_some(shell: Shell, quick: Path) -> None:
    frames = _on_a_terminal(shell, "run", "--lab", quick)

    assert "fault arm" in frames
    assert "in flight" in frames
    assert re.search(r"at most [0-9.]+ s to go", frames)
    first = frames[: frames.index("fault arm") + 300]
    assert not re.search(r"arm\s+0\.0/s", first), first
    assert "PASSED" in frames
    assert "ms to go" not in first, first


def _on_a_terminal(shell: Shell, *arguments: str | Path) -> str:
    """Run luff as a terminal has it, and return all that it drew, without what moves the cursor and colours."""
    main, second = pty.openpty()
    process = subprocess.Popen(
        [LUFF, *map(str, arguments)],
        cwd=shell.folder,
        env={**shell.environment, "TERM": "xterm-256color", "CI": ""},
        stdout=second,
        stderr=second,
        stdin=subprocess.DEVNULL,
    )
    os.close(second)
    drawn = b""
    try:
        while part := os.read(main, 65536):
            drawn += part
    except OSError:
        # A terminal whose last writer has gone says so in this way.
        pass
    finally:
        os.close(main)
        assert process.wait(60) == 0, drawn.decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())


def test_the_guard_withdraws_when_luff_is_killed(shell: Shell, live: Live, api: Api) -> None:
    running = live()

    running.kill()
    running.wait()

    until(lambda: not api.twins(), within_s=10)
    assert shell.luff("status", "--lab").code == 0
    [row] = json.loads(shell.luff("runs", "list", "-o", "json").out)
    assert (row["experiment"], row["verdict"]) == ("endless", None), "history knows of a run that never ended"


def test_the_run_ends_when_its_guard_is_killed(shell: Shell, live: Live) -> None:
    running = live()

    _kill_guards_of(running.pid)
    done = shell.finish(running)

    assert done.code == 4, done
    outcome = shell.outcome()
    assert (outcome["verdict"], outcome["reason"]) == ("aborted", "bound")
    assert "guard" in outcome["explanation"]
    assert not shell.twins("ratings")


def _kill_guards_of(parent: int) -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            owner = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if owner == parent and b"luff.guard" in command:
            os.kill(int(entry.name), 9)
            return
    raise AssertionError("there is no guard")


def test_stop_reaches_a_run_elsewhere(shell: Shell, live: Live) -> None:
    running = live()
    [row] = json.loads(shell.luff("status", "--lab", "-o", "json").out)["injected"]
    assert row["state"] == "live"

    stopped = shell.luff("stop", "--lab", row["run"])
    done = shell.finish(running)

    assert stopped.code == 0, stopped
    assert done.code == 4, done
    outcome = shell.outcome()
    assert (outcome["verdict"], outcome["reason"]) == ("aborted", "operator")


def test_status_says_what_is_injected_and_restore_leaves_live_runs_alone(shell: Shell, live: Live) -> None:
    running = live()

    status = shell.luff("status", "--lab")
    untouched = shell.luff("restore", "--lab")
    still = shell.twins("ratings")
    forced = shell.luff("restore", "--lab", "--all")

    assert status.code == 1, status
    assert "bookinfo/ratings" in status.out
    assert untouched.code == 0, untouched
    assert "is live" in untouched.err
    assert len(still) == 1
    assert forced.code == 0, forced
    assert not shell.twins("ratings")
    done = shell.finish(running)
    assert done.code == 3, done
    assert "fault_removed" in done.out


def test_two_runs_never_share_an_object(shell: Shell, live: Live, quick: Path) -> None:
    running = live()

    second = shell.luff("run", "--lab", quick)
    running.send_signal(2)
    shell.finish(running)

    assert second.code == 5, second
    assert "is held by" in second.out + second.err or "already carries" in second.out + second.err


def test_edits_of_others_survive_and_are_reported(shell: Shell, live: Live) -> None:
    running = live()
    edit = [
        {
            "op": "add",
            "path": "/spec/http/-",
            "value": {"name": "new", "route": [{"destination": {"host": "ratings", "subset": "v1"}}]},
        }
    ]
    edited = shell.kubectl("patch", "vs", "ratings", "-n", "bookinfo", "--type=json", "-p", json.dumps(edit))
    assert edited.code == 0, edited
    running.send_signal(2)
    done = shell.finish(running)

    try:
        assert done.code == 130, done
        names = [route.get("name") for route in shell.virtual_service("ratings")["spec"]["http"]]
        assert names == [None, "new"]
        outcome = shell.outcome()
        assert outcome["restore"]["object"] == "identical_but_for_others"
        assert any("new" in change for change in outcome["restore"]["foreign_changes"])
    finally:
        undo = [{"op": "remove", "path": "/spec/http/1"}]
        shell.kubectl("patch", "vs", "ratings", "-n", "bookinfo", "--type=json", "-p", json.dumps(undo))


def _refused(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    said = done.out + done.err
    assert "Traceback" not in said, done
    for word in words:
        assert word in said, done


def test_a_lever_in_the_mesh_refuses_runs(shell: Shell, quick: Path) -> None:
    shell.kubectl(
        "create",
        "configmap",
        "luff-lever",
        "-n",
        "bookinfo",
        "--from-literal=state=on",
        "--from-literal=why=freeze",
        "--from-literal=who=ops",
    )
    try:
        _refused(shell.luff("run", "--lab", quick), 4, "freeze")
    finally:
        shell.kubectl("delete", "configmap", "luff-lever", "-n", "bookinfo")
    assert not shell.twins("ratings")
