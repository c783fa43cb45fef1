"""Bad input: a clear error with the next step, the right exit code, nothing touched, never a traceback."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.story.conftest import BOOKINFO, EXPERIMENT, LUFF, Api, Done, Shell

GOOD = EXPERIMENT.format(name="quick", rate="40/s", duration="20s", at_least="90%")


def refused(done: Done, code: int, *words: str) -> None:
    """Assert that a command said what was wrong and ended with *code*."""
    said = done.out + done.err
    assert done.code == code, done
    assert "Traceback" not in said, done
    for word in words:
        assert word in said, f"{word!r} is not in\n{done}"


FILES = [
    ("broken YAML", GOOD.replace("spec:", "spec: [", 1), ["bad.yaml:"]),
    ("an unknown key", GOOD.replace("rate:", "ratee:"), ["bad.yaml:9:", "ratee", "rate"]),
    (
        "a key given twice",
        GOOD.replace("    warmup: 1s\n", "    warmup: 1s\n    warmup: 2s\n"),
        ["warmup", "bad.yaml:12:"],
    ),
    ("a unit that is none", GOOD.replace("20s", "20 parsecs"), ["bad.yaml:10:", "20 parsecs"]),
    ("a percentage out of range", GOOD.replace("90%", "190%"), ["190"]),
    (
        "a limit above the timeout",
        GOOD.replace("fallback: {status", "latency: {p90: 30s}}\n    - {fallback: {status"),
        ["30", "timeout"],
    ),
    ("p99 of fifty requests", GOOD.replace("40/s", "5/s").replace("20s", "10s").replace("90%", "99%"), ["328"]),
    ("a ttl shorter than the run", GOOD + "  restore: {ttl: 5s}\n", ["ttl"]),
    (
        "too many held requests",
        GOOD.replace("abort: 503", "delay: 120s").replace("40/s", "1000/s").replace("120s}}", "120s}"),
        ["bad.yaml:9:", "would hold 120000 requests", "lower traffic.rate to 16.6/s"],
    ),
    ("POST without control", GOOD.replace("[{url", "[{method: POST, url"), ["control"]),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_an_invalid_file_is_refused_with_its_place(shell: Shell, text: str, words: list[str]) -> None:
    (shell.folder / "bad.yaml").write_text(text)

    refused(shell.luff("run", "--lab", "bad.yaml"), 2, "bad.yaml", "nothing was run", *words)


def test_every_problem_of_every_file_is_said_at_once(shell: Shell) -> None:
    (shell.folder / "one.yaml").write_text(GOOD.replace("rate:", "ratee:").replace("warmup:", "wormup:"))
    (shell.folder / "two.yaml").write_text(GOOD.replace("503", "99"))

    refused(shell.luff("run", "--lab", "one.yaml", "two.yaml", "three.yaml"), 2, "three.yaml", "no such file")
    refused(shell.luff("run", "--lab", "one.yaml", "two.yaml"), 2, "ratee", "wormup", "two.yaml:")


PLANS = [
    ("an unknown namespace", GOOD.replace("namespace: bookinfo", "namespace: nowhere"), ["nowhere"]),
    ("an unknown host", GOOD.replace("host: ratings", "host: raitings"), ["raitings", "ratings"]),
    ("an unknown subset", GOOD.replace("host: ratings", "host: ratings, subset: v9"), ["v9"]),
    ("an unknown VirtualService", GOOD.replace("host: ratings", "virtualService: raitings"), ["raitings", "reviews"]),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in PLANS], ids=[case[0] for case in PLANS])
def test_a_target_that_is_not_there_is_refused_before_anything_is_touched(
    shell: Shell, text: str, words: list[str]
) -> None:
    (shell.folder / "bad.yaml").write_text(text)

    done = shell.luff("run", "--lab", "bad.yaml", "--json", "out.json")

    refused(done, 5, *words)
    outcome = shell.outcome()
    assert outcome["reason"].startswith("plan_refused:")
    assert outcome["phase"] == "clean"
    assert outcome["restore"] is None
    assert outcome["arms"] == {}


OBJECTS = {
    "tcp-only": {"hosts": ["tcp"], "tcp": [{"route": [{"destination": {"host": "tcp"}}]}]},
    "redirect-only": {"hosts": ["moved"], "http": [{"redirect": {"authority": "elsewhere"}}]},
    "delegate-missing": {"hosts": ["root"], "http": [{"delegate": {"name": "leaf"}}]},
    "scope-taken": {
        "hosts": ["taken"],
        "http": [
            {
                "match": [
                    {
                        "headers": {
                            "x-luff-run": {"exact": "a"},
                            "baggage": {"exact": "b"},
                            "traceparent": {"exact": "c"},
                        }
                    }
                ],
                "route": [{"destination": {"host": "taken"}}],
            }
        ],
    },
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tcp-only", ["http routes"]),
        ("redirect-only", ["redirect"]),
        ("delegate-missing", ["leaf"]),
        ("scope-taken", ["carrier"]),
    ],
)
def test_an_object_that_cannot_carry_a_twin_is_refused(shell: Shell, name: str, words: list[str]) -> None:
    thing = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "bookinfo"},
        "spec": OBJECTS[name],
    }
    (shell.folder / "vs.yaml").write_text(yaml.safe_dump(thing))
    (shell.folder / "bad.yaml").write_text(
        GOOD.replace("host: ratings, from: {app: reviews}", f"virtualService: {name}")
    )
    created = shell.kubectl("apply", "-f", "vs.yaml")
    assert created.code == 0, created
    try:
        refused(shell.luff("run", "--lab", "bad.yaml"), 5, *words)
    finally:
        shell.kubectl("delete", "-f", "vs.yaml")


def test_a_service_without_a_virtual_service_gets_the_one_to_commit(shell: Shell) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bare", "namespace": "bookinfo"},
        "spec": {"ports": [{"port": 80}]},
    }
    (shell.folder / "svc.yaml").write_text(yaml.safe_dump(service))
    (shell.folder / "bad.yaml").write_text(GOOD.replace("host: ratings", "host: bare"))
    shell.kubectl("apply", "-f", "svc.yaml")
    try:
        refused(shell.luff("run", "--lab", "bad.yaml"), 5, "kind: VirtualService", "hosts: [bare]")
    finally:
        shell.kubectl("delete", "-f", "svc.yaml")


def _cluster_shell(shell: Shell) -> Shell:
    """Return a shell without a lab by environment: its kubeconfig is a cluster's, for all that luff knows."""
    return Shell(shell.folder, {k: v for k, v in shell.environment.items() if k != "LUFF_LAB_DIR"})


def test_an_ambient_context_is_not_taken_on_its_own(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)

    refused(_cluster_shell(shell).luff("run", "quick.yaml"), 2, "--context luff-lab", "--yes")


def test_a_kubeconfig_that_is_missing_or_broken_is_named(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    (shell.folder / "broken").write_text("{{{{")
    cluster = _cluster_shell(shell)

    refused(cluster.luff("run", "quick.yaml", KUBECONFIG="missing"), 5, "missing")
    refused(cluster.luff("run", "quick.yaml", KUBECONFIG="broken"), 5, "broken")
    refused(cluster.luff("run", "quick.yaml", "--context", "other"), 5, "other")


@contextmanager
def _answering(status: int) -> Iterator[int]:
    """Serve *status* for everything, as a broken API server would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.dumps({"kind": "Status", "status": "Failure", "code": status, "message": "no"}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _kubeconfig(path: Path, port: int) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "prod",
            }
        )
    )
    return path


@pytest.mark.parametrize(("status", "word"), [(401, "401"), (403, "403"), (500, "500")])
def test_an_api_that_refuses_is_exit_5(shell: Shell, status: int, word: str) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    cluster = _cluster_shell(shell)
    with _answering(status) as port:
        config = str(_kubeconfig(shell.folder / "config", port))
        refused(cluster.luff("run", "quick.yaml", "--context", "prod", KUBECONFIG=config), 5, word)
        refused(cluster.luff("status", "--context", "prod", KUBECONFIG=config), 5, word)


def test_an_api_that_is_not_there_is_exit_5(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = str(_kubeconfig(shell.folder / "config", free.getsockname()[1]))
    cluster = _cluster_shell(shell)

    refused(cluster.luff("run", "quick.yaml", "--context", "prod", KUBECONFIG=config), 5, "127.0.0.1")
    refused(cluster.luff("status", "--context", "prod", KUBECONFIG=config), 5, "127.0.0.1")


def test_a_url_that_leads_nowhere_is_nobodys_fault_but_the_experiments(shell: Shell) -> None:
    (shell.folder / "bad.yaml").write_text(GOOD.replace("reviews.bookinfo:9080", "reviews.bookinfo:9999"))

    done = shell.luff("run", "--lab", "bad.yaml")

    refused(done, 5, "plan_refused:traffic_unreachable", "http://reviews.bookinfo:9999", "the author of the experiment")
    assert not shell.twins("ratings")


@pytest.mark.parametrize(
    ("connect", "words"),
    [
        ("nowhere.invalid:80", ["this machine finds no address for the name"]),
        ("127.0.0.1:1", ["nobody accepts the connection"]),
    ],
)
def test_an_address_that_leads_nowhere_is_said_with_what_to_dial_instead(
    shell: Shell, connect: str, words: list[str]
) -> None:
    (shell.folder / "bad.yaml").write_text(
        GOOD.replace("    warmup: 1s\n", f"    warmup: 0s\n    via: {{connect: '{connect}'}}\n")
    )

    refused(shell.luff("run", "--lab", "bad.yaml"), 5, "traffic_unreachable", "traffic.via", "HOST:PORT", *words)


READ_ONLY = """\
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"
"""


def test_a_database_on_a_read_only_file_system_is_refused_before_the_run(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    folder = shell.folder / "ro"
    folder.mkdir()
    store = f"sqlite:///{folder}/luff.db"
    assert shell.luff("db", "upgrade", "--store", store).code == 0
    mounted = ["--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh", str(folder)]
    if shell.program("unshare", *mounted, "true").code:
        pytest.skip("this machine lets nobody mount anything")

    done = shell.program("unshare", *mounted, LUFF, "run", "--lab", "quick.yaml", "--store", store)

    refused(done, 5, str(folder))
    assert not shell.twins("ratings")


def test_a_newer_database_is_refused_before_the_run_and_left_alone(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    assert shell.luff("db", "upgrade").code == 0
    with contextlib.closing(sqlite3.connect(shell.folder / "luff.db")) as database:
        [layout] = database.execute("select version_num from alembic_version").fetchone()
        database.execute("update alembic_version set version_num = '9999'")
        database.commit()

    refused(shell.luff("run", "--lab", "quick.yaml"), 5, "newer than this luff")
    refused(shell.luff("runs", "list"), 5, "newer than this luff")

    with contextlib.closing(sqlite3.connect(shell.folder / "luff.db")) as database:
        assert database.execute("select version_num from alembic_version").fetchone() == ("9999",)
        database.execute("update alembic_version set version_num = ?", [layout])
        database.commit()


def test_an_older_database_is_brought_up_by_the_run(shell: Shell, quick: Path) -> None:
    assert shell.luff("db", "upgrade").code == 0
    older = shell.luff("db", "downgrade", "0001")
    assert older.code == 0, older

    done = shell.luff("run", "--lab", quick)

    assert done.code == 0, done
    assert json.loads(shell.luff("runs", "list", "-o", "json").out)[0]["verdict"] == "passed"


def test_the_lab_names_a_field_that_its_schema_refuses_as_a_cluster_does(api: Api) -> None:
    wrong = {"spec": {"http": [{"timeout": "0.5ms", "route": [{"destination": {"host": "ratings"}}]}]}}
    headers = {"Content-Type": "application/merge-patch+json"}

    answer = api.client.patch(BOOKINFO, content=json.dumps(wrong), headers=headers)

    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["details"]["causes"]] == ["spec.http[0].timeout"]


def test_nothing_selected_is_not_green(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    (shell.folder / "empty").mkdir()

    refused(shell.luff("run", "--lab", "quick.yaml", "-k", "nothing-like-it"), 6, "quick")
    refused(shell.luff("run", "--lab", "empty"), 2, "no YAML file")


def test_a_report_that_could_not_be_written_is_refused_before_the_run(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)

    refused(shell.luff("run", "--lab", "quick.yaml", "--json", "no/such/folder/out.json"), 2, "no/such/folder")


def test_a_database_that_cannot_be_used_is_refused_before_the_run(shell: Shell) -> None:
    (shell.folder / "quick.yaml").write_text(GOOD)
    (shell.folder / "not-a-database").write_text("hello " * 1000)

    done = shell.luff("run", "--lab", "quick.yaml", "--store", f"sqlite:///{shell.folder}/not-a-database")

    refused(done, 5, "not-a-database")
    refused(shell.luff("run", "--lab", "quick.yaml", "--store", "nonsense"), 5, "not a URL")


def test_commands_that_mean_nothing_are_usage_errors(shell: Shell) -> None:
    for arguments in (["frobnicate"], ["run"], ["run", "--lab", "x.yaml", "--set", "nonsense"], ["stop", "--lab"]):
        done = shell.luff(*arguments)
        assert done.code == 2, done
        assert "Traceback" not in done.err


def test_a_folder_that_cannot_be_made_is_named(shell: Shell) -> None:
    (shell.folder / "file").touch()

    refused(shell.luff("lab", "up", "--detach", "--dir", "file/lab"), 5, "file/lab")
    refused(shell.luff("demo", "--report-dir", "file/report"), 2, "file/report")


def test_a_policy_bounds_what_the_command_line_may_do(shell: Shell, quick: Path) -> None:
    policy = shell.folder / "policy.yaml"
    head = "apiVersion: luff.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec: "

    def under(spec: str, *command: str) -> Done:
        policy.write_text(head + spec)
        return shell.luff(*command, "--lab", quick, LUFF_POLICY=str(policy))

    elsewhere = under("{namespaces: [bank]}", "run", "--json", "out.json")
    planned = under("{hosts: ['*.bank']}", "plan")
    slow = under("{maxRate: 1/s}", "plan")
    broken = under("{hours: whenever}", "run")
    allowed = under("{namespaces: [bookinfo], hosts: ['*.bookinfo'], maxTtl: 10m}", "plan")

    outcome = shell.outcome()
    assert (elsewhere.code, outcome["reason"]) == (5, "plan_refused:namespace_not_allowed"), elsewhere
    assert "bank" in outcome["explanation"]
    assert planned.code == 5, planned
    assert "the policy allows *.bank" in planned.err
    assert slow.code == 5, slow
    assert broken.code == 2, broken
    assert allowed.code == 0, allowed
