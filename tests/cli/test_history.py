"""History on the command line: listed, compared, carried elsewhere and thinned out; bad input ends in a sentence and a code."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from luff.cli import cli
from luff.errors import LuffError
from luff.lifecycle import Intent, Phase
from luff.outcome import MeshIdentity, Outcome
from luff.report.document import render, report
from luff.store import Beginning, Store
from tests.factories import failed, inconclusive, passed, resolved, run_id

LUFF = Path(sys.executable).parent / "luff"
NOW = datetime.now(UTC).replace(microsecond=0)
CLUSTER = MeshIdentity(kind="cluster", name="prod")
COMMITS = [f"{number:x}" * 40 for number in range(1, 9)]


@dataclass(frozen=True)
class Done:
    """This is a command that has ended; *code* is that of the contract."""

    code: int
    out: str
    said: str


Luff = Callable[..., Done]


def on_day(day: int, verdict: str = "passed", *, name: str = "slow", **changes: Any) -> Outcome:
    began = NOW - timedelta(days=10 - day)
    make = {"passed": passed, "failed": failed, "inconclusive": inconclusive}[verdict]
    usual = {
        "run": run_id((name, day, verdict)),
        "experiment": name,
        "spec": resolved(),
        "context": {"commit": COMMITS[day], "revision": f"v1.{day}"},
        "started_at": began.isoformat(),
        "ended_at": (began + timedelta(minutes=1)).isoformat(),
        "labels": {"team": "books", "day": str(day)},
    }
    return make(**{**usual, **changes})


@pytest.fixture
def url(database: str) -> str:
    """Return the address of a store in which slow held for three days, then broke."""
    with Store.open(database) as store:
        for day in range(6):
            store.record(on_day(day, "passed" if day < 3 else "failed"))
        store.record(on_day(1, name="other", mesh=CLUSTER))
    return database


@pytest.fixture
def luff(url: str, monkeypatch: pytest.MonkeyPatch) -> Luff:
    """Run a command line in this process, against the store."""
    monkeypatch.delenv("LUFF_TOKEN", raising=False)
    monkeypatch.setenv("LUFF_STORE", url)

    def run(*arguments: str, store: str | None = None) -> Done:
        more = () if store is None else ("--store", store)
        result = CliRunner().invoke(cli, [*arguments, *more])
        error = result.exception
        if isinstance(error, LuffError):
            return Done(error.exit_code, result.stdout, f"{result.stderr}{error}")
        assert error is None or isinstance(error, SystemExit), result.exc_info
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def test_where_the_routes_of_an_unfinished_run_are_is_only_its_last_word(luff: Luff, url: str) -> None:
    run = "ab" * 8
    intent = Intent(run, "shop", "stock", "uid", "7", ("luff.x",), 1_800_000_000, "hash")
    with Store.open(url) as store:
        store.begin(Beginning(run, "killed", "ada", CLUSTER, NOW))
        journal = store.journal(CLUSTER)
        asyncio.run(journal.arm(intent))
        asyncio.run(journal.mark(run, Phase.LIVE))

    listed = luff("runs", "list").out.splitlines()

    assert listed[1].split()[2:] == ["unfinished", "live?", "killed"]
    assert listed[2].split()[3:] == ["clean", "slow"]
    assert json.loads(luff("runs", "list", "-o", "json").out)[0]["phase"] == "live"


def test_a_list_is_narrowed_by_labels_and_time(luff: Luff) -> None:
    def names(*more: str) -> list[str]:
        return luff("runs", "list", "-o", "name", *more).out.split()

    assert len(names()) == 7
    assert names("-l", "team=books,day=4") == [on_day(4, "failed").run]
    assert len(names("-l", "team,day!=4,!gone")) == 6
    assert names("-l", "team=books", "--limit", "2") == [on_day(day, "failed").run for day in (5, 4)]
    assert names("-l", "team=books,team=shop") == []
    assert len(names("--since", "6d")) == 1
    assert len(names("--until", (NOW - timedelta(days=9)).date().isoformat())) == 3


@pytest.mark.parametrize("flag", ["--since", "--until"])
def test_a_time_that_is_none_is_refused(luff: Luff, flag: str, tmp_path: Path) -> None:
    for done in (
        luff("runs", "list", flag, "yesterday"),
        luff("report", flag, "2026-02-30", "--html", str(tmp_path / "p.html")),
    ):
        assert done.code == 2
        assert flag in done.said
    assert not (tmp_path / "p.html").exists()


def test_a_trend_names_the_first_broken_run_and_the_revisions_around_it(luff: Luff) -> None:
    done = luff("trend", "slow")

    assert done.code == 0
    assert (
        f"run {on_day(3, 'failed').run} was the first to fail, at commit {COMMITS[3][:12]}, revision v1.3" in done.out
    )
    assert f"the last that passed is run {on_day(2).run}, at commit {COMMITS[2][:12]}, revision v1.2" in done.out
    assert f"git log {COMMITS[2][:12]}..{COMMITS[3][:12]}" in done.out
    assert "held in 50.0 % (3/6)" in done.out
    assert "▁" not in done.out, "no bars through a pipe"
    assert "\x1b" not in done.out


def test_a_trend_without_a_name_has_a_line_for_each_experiment(luff: Luff) -> None:
    lines = luff("trend").out.splitlines()

    assert [line.split()[:3] for line in lines[1:]] == [["other", "prod", "holds"], ["slow", "lab", "BROKEN"]]
    assert f"{COMMITS[2][:10]}..{COMMITS[3][:10]}" in lines[2]


def test_a_trend_as_json_keeps_specs_and_places_apart(luff: Luff, url: str) -> None:
    with Store.open(url) as store:
        store.record(on_day(6, "failed", mesh=CLUSTER))
        store.record(on_day(7, spec=resolved(subject="productpage")))

    found = json.loads(luff("trend", "slow", "-o", "json").out)

    assert [(each["place"], each["runs"], each["holds"]) for each in found["series"]] == [
        ("prod", 1, False),
        ("lab", 1, True),
        ("lab", 6, False),
    ]
    assert found["series"][2]["broken"]["commit"] == COMMITS[3]
    assert [found["series"][2]["broken"][name] for name in ("revision", "good_revision")] == ["v1.3", "v1.2"]
    assert found["series"][2]["points"][0]["checks"][0]["limit"] == 2800.0


def test_coverage_has_a_line_for_each_hop(luff: Luff) -> None:
    lines = luff("runs", "coverage").out.splitlines()
    found = json.loads(luff("runs", "coverage", "-o", "json").out)

    assert len(lines) == 3
    assert [(line["mesh_kind"], line["verdict"], line["runs"]) for line in found] == [
        ("cluster", "passed", 1),
        ("lab", "failed", 6),
    ]


def test_an_empty_history_is_not_green(luff: Luff, tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    page = tmp_path / "page.html"

    for command in (
        ("trend",),
        ("trend", "slow"),
        ("runs", "coverage"),
        ("report", "--since", "7d", "--html", str(page)),
    ):
        assert luff(*command, store=empty).code == 6
    assert not page.exists()
    assert luff("trend", "nobody").code == 6


def test_two_runs_are_compared_by_id_and_by_file(luff: Luff, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_text(render(on_day(3, "failed")))

    text = luff("runs", "diff", on_day(2).run[:8], str(file))
    found = json.loads(luff("runs", "diff", on_day(2).run[:8], str(file), "-o", "json").out)

    assert text.code == 0
    assert (found["verdict"], found["caveats"]) == ({"a": "passed", "b": "failed", "same": False}, [])
    assert found["checks"][0]["turned"] is True
    assert f"{COMMITS[2]}" in text.out


def test_a_file_of_many_runs_is_not_one_run(luff: Luff, tmp_path: Path) -> None:
    file = tmp_path / "many.json"
    file.write_text(render(report([on_day(1), on_day(2)], 0)))

    done = luff("runs", "diff", str(file), on_day(1).run)

    assert (done.code, "holds 2 outcomes" in done.said) == (2, True)


FILES = {
    "not JSON": "{",
    "somebody else's": '{"schema": "else/v1"}',
    "newer": '{"schema": "luff.dev/outcome/v7"}',
    "half": '{"schema": "luff.dev/outcome/v1"}',
    "a list": "[]",
    "no id of a run": json.dumps({**json.loads(render(passed())), "run": "☃/../x\r\nX: y"}),
    "not text": "\udcff",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_done(luff: Luff, tmp_path: Path, text: str) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(render(on_day(7)))
    bad.write_bytes(text.encode("utf-8", "surrogateescape"))

    for command in (("runs", "import"), ("runs", "diff"), ("report",)):
        done = luff(*command, str(good), str(bad))
        assert (done.code, "bad.json" in done.said) == (2, True), done
    assert luff("runs", "show", on_day(7).run).code == 5


def test_a_name_that_no_file_can_have_is_said(luff: Luff) -> None:
    name = "a" * 300

    assert luff("report", name).code == 5
    assert luff("runs", "diff", name, name).code == 5
    for command in (("report",), ("runs", "import"), ("run",), ("gate",), ("plan",)):
        done = luff(*command, f"{name}.json")
        assert (done.code, "cannot be read: File name too long" in done.said) == (2, True), done
    done = luff("runs", "list", store=f"sqlite:///{name}")
    assert (done.code, "cannot be opened" in done.said) == (5, True), done


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be somebody for whom a folder can be locked."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_lies_in_a_locked_folder_is_said(luff: Luff, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)

    for command in (("report",), ("runs", "import"), ("run",), ("gate",), ("plan",)):
        # What a command imports when it is first used may be locked for nobody as well.
        luff(*command, str(tmp_path / "missing.json"))
        with as_nobody():
            done = luff(*command, str(locked / "inside.json"))
        assert (done.code, "cannot be read: Permission denied" in done.said) == (2, True), done


@pytest.mark.parametrize("named", ["0000000000", "zz", "missing.json", "folder/run"])
def test_what_is_not_there_is_said(luff: Luff, named: str) -> None:
    done = luff("runs", "diff", on_day(1).run, named)

    assert (done.code, named in done.said) == (2 if "." in named or "/" in named else 5, True)


def test_a_prefix_of_several_runs_is_refused(luff: Luff, url: str) -> None:
    with Store.open(url) as store:
        for last in "12":
            store.record(on_day(1, run="abcdef000000000" + last))

    done = luff("runs", "diff", "abcdef", on_day(1).run)

    assert (done.code, "beginning of several runs" in done.said) == (5, True)


def test_files_are_imported_once(luff: Luff, tmp_path: Path) -> None:
    file, empty = tmp_path / "many.json", f"sqlite:///{tmp_path / 'other.db'}"
    file.write_text(render(report([on_day(1), on_day(4, "failed")], 1)))

    for _ in range(2):
        assert luff("runs", "import", str(file), store=empty).code == 0
    assert len(luff("runs", "list", "-o", "name", store=empty).out.split()) == 2

    changed = render(on_day(1)).replace("gave up on ratings", "made up")
    file.write_text(changed)
    assert "another outcome already" in luff("runs", "import", str(file), store=empty).said


def test_a_file_with_a_number_that_no_history_can_keep_is_bad_input(luff: Luff, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(render(report([on_day(3, run="f" * 16, seed=2**70)], 1)))

    done = luff("runs", "import", str(file))

    assert (done.code, "too large" in done.said) == (2, True)


def test_pruning_keeps_the_last_proofs_and_leaves_an_audit(luff: Luff, url: str) -> None:
    dry = json.loads(luff("runs", "prune", "--keep-days", "0", "--dry-run", "-o", "json").out)
    assert len(luff("runs", "list", "-o", "name").out.split()) == 7

    done = luff("runs", "prune", "--keep-days", "0")

    assert done.code == 0
    assert set(luff("runs", "list", "-o", "name").out.split()) == {
        on_day(2).run, on_day(5, "failed").run, on_day(1, name="other").run
    }  # fmt: skip
    assert (len(dry["runs"]), dry["protected"], dry["left"]) == (4, 3, 3)
    with Store.open(url) as store:
        (row,) = store.access.audits(limit=5)
    assert (row.action, row.object, row.note) == ("runs.prune", "4 runs", "--keep-days 0")


@pytest.mark.parametrize("flags", [[], ["--keep-days", "1", "--keep-last", "1"], ["--keep-days", "-1"]])
def test_pruning_needs_one_rule(luff: Luff, flags: list[str]) -> None:
    assert luff("runs", "prune", *flags).code == 2
    assert len(luff("runs", "list", "-o", "name").out.split()) == 7


def test_a_period_becomes_a_page(luff: Luff, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    done = luff("report", "--since", "30d", "--html", str(page))

    assert done.code == 0
    assert on_day(3, "failed").run in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "say what to report"),
        (["--since", "7d"], "--html"),
        (["--since", "7d", "--html", "p.html", "--json", "p.json"], "no other format"),
        (["--since", "2026-05-02", "--until", "2026-05-01", "--html", "p.html"], "not before"),
        (["abcd", "--since", "7d", "--html", "p.html"], "not both"),
        (["--since", "7d", "--html", "no/such/folder/p.html"], "does not exist"),
    ],
)
def test_a_report_that_means_nothing_is_refused(luff: Luff, arguments: list[str], word: str) -> None:
    done = luff("report", *arguments)

    assert (done.code, word in done.said) == (2, True), done


@contextmanager
def server(answer: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[Any]]]:
    """Serve *answer* on a port of this machine; yield its address and what it is sent."""
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers["authorization"], json.loads(body)))
            status, headers, text = answer(seen[-1][2])
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", seen
        finally:
            listening.shutdown()
            thread.join()


def test_outcomes_are_pushed_with_the_token(luff: Luff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUFF_TOKEN", "luff_secret")
    file = tmp_path / "many.json"
    file.write_text(render(report([on_day(1), on_day(4, "failed")], 1)))

    with server(lambda _: (201, {}, b"")) as (address, seen):
        done = luff("runs", "push", str(file), on_day(5, "failed").run[:8], "--to", address + "/")

    assert done.code == 0
    assert [(path, token) for path, token, _ in seen] == [("/api/v1/outcomes", "Bearer luff_secret")] * 3
    assert [Outcome.model_validate(body) for _, _, body in seen] == [
        on_day(1),
        on_day(4, "failed"),
        on_day(5, "failed"),
    ]
    assert "luff_secret" not in done.said


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (401, {}, b"", ["401", "LUFF_TOKEN"]),
        (403, {}, b'{"title": "Forbidden", "detail": "a viewer may not"}', ["a viewer may not", "operator"]),
        (409, {}, b"{", ["409", "another outcome"]),
        (302, {"location": "https://elsewhere/"}, b"", ["302", "https://elsewhere/"]),
        (404, {}, b"<html>", ["no `luff serve`"]),
        (500, {}, b'{"detail": "\\u001b[31m"}', ["500", "server's log"]),
    ],
)
def test_a_refusal_says_why_and_how_far_it_came(
    luff: Luff, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], body: bytes, words: list[str]
) -> None:
    monkeypatch.setenv("LUFF_TOKEN", "luff_secret")
    first = on_day(1).run

    def answer(sent: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return (201, {}, b"") if sent["run"] == first else (status, headers, body)

    with server(answer) as (address, _):
        done = luff("runs", "push", first, on_day(2).run, "--to", address)

    assert done.code == 5
    assert "1 of 2 were sent" in done.said
    assert "\x1b" not in done.said
    assert "luff_secret" not in done.said
    assert all(word in done.said for word in words), done.said


@pytest.mark.parametrize(
    ("to", "token", "code"),
    [
        ("nowhere", "t", 2),
        ("ftp://host", "t", 2),
        ("http://", "t", 2),
        ("https://user:password@host", "t", 2),
        ("http://host:port", "t", 2),
        ("http://127.0.0.1:9", "", 2),
        ("http://127.0.0.1:9", "a\nb", 2),
        ("http://127.0.0.1:9", "t", 5),
    ],
)
def test_a_push_that_cannot_be_is_refused(
    luff: Luff, monkeypatch: pytest.MonkeyPatch, to: str, token: str, code: int
) -> None:
    monkeypatch.setenv("LUFF_TOKEN", token)

    done = luff("runs", "push", on_day(1).run, "--to", to)

    assert done.code == code
    assert "password" not in done.said.replace("user or password", "")


def test_a_store_that_cannot_be_used_is_said_by_every_command(tmp_path: Path) -> None:
    newer, no_database = tmp_path / "newer.db", tmp_path / "no.db"
    Store.open(f"sqlite:///{newer}").close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    no_database.write_text("this is a text " * 100)
    page = str(tmp_path / "p.html")

    for path in (newer, no_database):
        for command in (["trend"], ["runs", "prune", "--keep-last", "1"], ["report", "--since", "1d", "--html", page]):
            done = subprocess.run(
                [LUFF, *command], capture_output=True, text=True, env={**os.environ, "LUFF_STORE": f"sqlite:///{path}"}, check=False
            )  # fmt: skip
            assert done.returncode == 5, done
            assert "Traceback" not in done.stderr
            assert "next: " in done.stderr


def test_a_locked_store_is_read_but_not_thinned_out(luff: Luff, url: str) -> None:
    lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        assert luff("trend").code == 0
        done = luff("runs", "prune", "--keep-days", "0", store=url + "?timeout=0.05")
    finally:
        lock.close()

    assert (done.code, "locked" in done.said) == (5, True)
    assert len(luff("runs", "list", "-o", "name").out.split()) == 7
