"""
The gate as a pipeline has it: the real command line, real Envoys, and two small services that are not luff's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import JUnitXml

from luff.schema import schema_for

BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).parents[2] / "deploy" / "ci"
WITHIN_S = 60.0

CART = """\
// A caller in Node: it asks stock, and has a fallback on one of its two pages.
const http = require("http");
const carriers = ["x-luff-run", "baggage", "traceparent"];
http.createServer((request, response) => {
  if (request.url === "/healthz") return response.end("ok");
  const answer = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  const strict = request.url.startsWith("/strict");
  const without = () => (strict ? answer(502, { error: "no stock" }) : answer(200, { stock: "unknown" }));
  const headers = {};
  for (const name of carriers) if (request.headers[name]) headers[name] = request.headers[name];
  http.get(process.env.STOCK_URL + "/stock/42", { headers }, (inner) => {
    let text = "";
    inner.on("data", (piece) => (text += piece));
    inner.on("end", () => (inner.statusCode === 200 ? answer(200, JSON.parse(text)) : without()));
  }).on("error", without);
}).listen(Number(process.env.PORT), "127.0.0.1");
"""

STOCK = """\
import http.server, os

class Stock(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b'{"stock": 7}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Stock).serve_forever()
"""

LAB = """\
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {name: cart-v1, namespace: shop, labels: {app: cart}}
spec:
  service: cart
  port: 8080
  run: [node, cart.js]
  env: {STOCK_URL: "${peer:stock:8080}"}
  ready: {path: /healthz, within: 30s}
---
apiVersion: luff.dev/v1alpha1
kind: LabWorkload
metadata: {name: stock-v1, namespace: shop, labels: {app: stock}}
spec: {service: stock, port: 8080, run: [python, stock.py], ready: {path: /, within: 30s}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stock, namespace: shop}
spec:
  hosts: [stock]
  http: [{route: [{destination: {host: stock}}]}]
"""

EXPERIMENT = """\
---
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: {name}, namespace: shop, labels: {{team: {name}}}}}
spec:
  target: {{host: stock, from: {{app: cart}}}}
  fault: {{abort: 503}}
  traffic:
    requests: [GET http://cart.shop:8080/{path}/42]
    rate: 40/s
    duration: {duration}
    warmup: 1s
  expect:
    - {{latency: {{{quantile}: 500ms}}}}
    - {{{expect}}}
"""
FALLBACK = "fallback: {json: {path: $.stock, equals: unknown}, atLeast: 90%}"
ERRORS = "errors: {atMost: 10%}"


def experiment(name: str, path: str, expect: str, *, duration: str = "20s", quantile: str = "p90") -> str:
    return EXPERIMENT.format(name=name, path=path, expect=expect, duration=duration, quantile=quantile)


COPES = experiment("copes", "cart", FALLBACK)
STRICT = experiment("strict", "strict", ERRORS)
ENDLESS = experiment("endless", "cart", FALLBACK, duration="100s", quantile="p999")


@dataclass(frozen=True, repr=False)
class Done:
    """This is a command that has ended."""

    code: int
    out: str
    err: str

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass(frozen=True)
class Pipeline:
    """This is a folder with nothing but a shop in it, in an environment of its own."""

    folder: Path
    environment: dict[str, str]

    def luff(self, *arguments: str | Path, **environment: str) -> Done:
        """Run luff in the folder."""
        done = subprocess.run(
            [BIN / "luff", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def gate(self, *arguments: str | Path, **environment: str) -> Done:
        """Run `luff gate --lab` on everything in the folder."""
        return self.luff("gate", "--lab", ".", *arguments, **environment)

    def report(self, name: str = "report.json") -> dict[str, Any]:
        """Return a JSON report, after holding it to the published schema."""
        found = json.loads((self.folder / name).read_text())
        jsonschema.validate(found, schema_for("report"))
        assert isinstance(found, dict)
        return found

    def write(self, **files: str) -> None:
        """Write YAML files."""
        for name, text in files.items():
            (self.folder / f"{name}.yaml").write_text(text)


def environment_in(folder: Path) -> dict[str, str]:
    dropped = ("LUFF_", "KUBE", "XDG_", "GITHUB_", "CI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "200"}


def shop(folder: Path) -> None:
    (folder / "cart.js").write_text(CART)
    (folder / "stock.py").write_text(STOCK)
    (folder / "lab.yaml").write_text(LAB)


@pytest.fixture(scope="module")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Bring the shop up once for all tests here; yields the environment in which it is found."""
    if shutil.which("node") is None and not os.environ.get("CI"):
        pytest.skip("one of the two services is in Node, and there is no `node` here")
    folder = tmp_path_factory.mktemp("gate")
    shop(folder)
    pipeline = Pipeline(folder, environment_in(folder))
    up = pipeline.luff("lab", "up", ".", "--detach", "--dir", folder / "lab")
    assert up.code == 0, up
    yield {**pipeline.environment, "LUFF_LAB_DIR": str(folder / "lab")}
    down = pipeline.luff("lab", "down", "--dir", folder / "lab")
    assert down.code == 0, down


@pytest.fixture
def pipeline(running_lab: dict[str, str], database: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Return a folder with the shop's documents and a store of its own; nothing may be injected afterwards."""
    shop(tmp_path)
    made = Pipeline(tmp_path, {**running_lab, "LUFF_STORE": database})
    yield made
    status = made.luff("status", "--lab")
    assert status.code == 0, status


@pytest.fixture
def bare(tmp_path: Path) -> Pipeline:
    """Return a folder in an environment without any mesh: for what must be refused before one is looked for."""
    return Pipeline(tmp_path, {**environment_in(tmp_path), "LUFF_STORE": f"sqlite:///{tmp_path}/luff.db"})


@pytest.mark.timing
def test_what_copes_is_a_go_in_every_report(pipeline: Pipeline) -> None:
    pipeline.write(copes=COPES)

    done = pipeline.gate("--json", "report.json", "--junit", "report.xml", "--html", "report.html", "--github")

    assert done.code == 0, done
    assert done.out.endswith("GATE go\n")
    report = pipeline.report()
    assert (report["decision"], report["exit_code"]) == ("go", 0)
    assert [each["verdict"] for each in report["outcomes"]] == ["passed"]
    assert report["outcomes"][0]["edge"] == {"caller": "cart", "dependency": "stock"}
    suites = JUnitXml.fromfile(str(pipeline.folder / "report.xml"))
    assert (suites.failures, suites.errors) == (0, 0)
    assert "::error" not in done.out
    assert (pipeline.folder / "report.html").read_text().startswith("<!")


@pytest.mark.timing
def test_what_does_not_cope_is_a_stop_that_is_shown_on_its_line(pipeline: Pipeline) -> None:
    pipeline.write(copes=COPES, strict=STRICT)
    (pipeline.folder / "summary.md").write_text("# another step\n")

    done = pipeline.gate(
        *("--parallel", "2", "--json", "report.json", "--junit", "report.xml", "--markdown", "report.md"),
        *("--github", "--gitlab-dir", "gitlab"),
        GITHUB_STEP_SUMMARY=str(pipeline.folder / "summary.md"),
        GITHUB_WORKSPACE=str(pipeline.folder.parent),
    )

    assert done.code == 1, done
    report = pipeline.report()
    assert (report["decision"], report["exit_code"]) == ("stop", 1)
    assert {each["experiment"]: each["verdict"] for each in report["outcomes"]} == {
        "copes": "passed",
        "strict": "failed",
    }
    # Both change one VirtualService: the second must have begun when the first was over.
    first, second = sorted(report["outcomes"], key=lambda each: str(each["started_at"]))
    assert second["started_at"] >= first["ended_at"]

    line = STRICT.splitlines().index("    - {errors: {atMost: 10%}}") + 1
    where = f"file={pipeline.folder.name}/strict.yaml,line={line},title=strict%3A errors failed"
    annotations = [each for each in done.out.splitlines() if each.startswith("::")]
    assert len(annotations) == 1
    assert annotations[0].startswith(f"::error {where}::")
    assert "10 %25" in annotations[0]
    summary = (pipeline.folder / "summary.md").read_text()
    assert summary.startswith("# another step\n## luff: 1 passed, 1 failed\n\n**stop (exit 1)**\n")
    assert (pipeline.folder / "report.md").read_text() in summary

    cases = {case.get("name"): case for case in ElementTree.parse(pipeline.folder / "report.xml").iter("testcase")}
    assert cases["errors"].find("failure") is not None
    assert cases["errors"].get("line") == str(line)
    assert (pipeline.folder / "gitlab" / "junit.xml").is_file()
    (issue,) = json.loads((pipeline.folder / "gitlab" / "gl-code-quality-report.json").read_text())
    assert issue["location"] == {"path": "strict.yaml", "lines": {"begin": line}}
    assert done.out.endswith("GATE stop (exit 1)\n  strict is failed: errors\n")


@pytest.mark.timing
def test_history_decides_without_running_and_a_baseline_and_a_waiver_excuse(pipeline: Pipeline) -> None:
    pipeline.write(strict=STRICT)
    first = pipeline.gate("--json", "first.json")
    assert first.code == 1, first

    stored = pipeline.gate("--from-history", "--json", "stored.json")
    known = pipeline.gate("--from-history", "--baseline", "first.json", "--json", "known.json")
    (pipeline.folder / "waivers.txt").write_text("- {experiment: strict, reason: SHOP-7, until: 2999-01-31}\n")
    waived = pipeline.gate("--from-history", "--waivers", "waivers.txt", "--json", "waived.json")
    changed = pipeline.gate("--from-history", "--set", "spec.traffic.rate=41/s")
    again = pipeline.gate("--last-failed", "-k", "not strict")

    assert stored.code == 1
    assert pipeline.report("stored.json")["outcomes"] == pipeline.report("first.json")["outcomes"]
    assert known.code == 0, known
    assert pipeline.report("known.json")["quarantined"] == ["strict"]
    assert waived.code == 0, waived
    assert pipeline.report("waived.json")["waivers_used"] == ["strict"]
    assert changed.code == 3, changed
    assert "it was changed since its newest run" in changed.out
    assert again.code == 6, again


@pytest.mark.timing
def test_the_end_of_the_time_stops_what_runs_and_restores(pipeline: Pipeline) -> None:
    pipeline.write(one=ENDLESS, two=COPES)

    done = pipeline.gate("-l", "team", "--max-duration", "4s", "--json", "report.json")

    assert done.code == 4, done
    ran, left_out = sorted(pipeline.report()["outcomes"], key=lambda each: str(each["experiment"] != "endless"))
    assert [(each["verdict"], each["reason"]) for each in (ran, left_out)] == [("aborted", "bound")] * 2
    assert ran["restore"]["api"] == "verified"
    assert ran["restore"]["object"] == "identical"
    assert left_out["restore"] is None
    assert "it was not started" in left_out["explanation"]


@pytest.mark.timing
def test_an_object_that_another_run_holds_is_waited_for_when_asked(pipeline: Pipeline) -> None:
    pipeline.write(copes=COPES, endless=ENDLESS)
    with subprocess.Popen(
        [BIN / "luff", "gate", "--lab", ".", "-k", "endless", "--max-duration", "10s"],
        cwd=pipeline.folder,
        env=pipeline.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stderr is not None
        assert any("  live  " in line for line in other.stderr)

        at_once = pipeline.gate("-k", "copes")
        later = pipeline.gate("-k", "copes", "--wait-for", "40s")

        other.communicate(timeout=WITHIN_S)

    assert at_once.code == 5, at_once
    assert later.code == 0, later
    assert "copes: waiting at most 40 s for" in later.err
    assert "held by" in later.err
    assert other.returncode == 4


def test_nothing_selected_is_not_green_and_leaves_no_older_report(bare: Pipeline) -> None:
    bare.write(copes=COPES)
    (bare.folder / "report.json").write_text('{"decision": "go"}')

    done = bare.gate("-k", "nothing", "--json", "report.json", "--junit", "report.xml")

    assert done.code == 6, done
    assert "nothing was selected of: copes" in done.err
    report = bare.report()
    assert (report["decision"], report["exit_code"], report["outcomes"]) == ("stop", 6, [])


SUITE = "apiVersion: luff.dev/v1alpha1\nkind: Suite\nmetadata: {name: core}\nspec:\n  experiments:\n"


@pytest.mark.parametrize(
    ("files", "arguments", "code", "words"),
    [
        ({"core": f"{SUITE}    - copes\n    - core\n"}, [], 2, ["core.yaml:7:7", "refers to itself (core → core)"]),
        ({"core": f"{SUITE}    - coeps\n"}, [], 2, ["core.yaml:6:7", "did you mean 'copes'?"]),
        ({}, ["--shard", "4/3"], 2, ["names no shard", "next: the first is --shard 1/3"]),
        ({}, ["--shard", "half"], 2, ["next: write it such as --shard 1/3"]),
        ({}, ["--shard", "2/2"], 6, ["shard 2/2 is empty"]),
        ({}, ["--max-duration", "5"], 2, ["'5' is not a duration", "such as 5s"]),
        ({}, ["--max-age", "0s"], 2, ["no time at all"]),
        ({}, ["--parallel", "0"], 2, ["--parallel"]),
        ({}, ["--fail-on", "nothing"], 2, ["--fail-on does not know 'nothing'"]),
        ({}, ["--baseline", "main.json"], 2, ["main.json cannot be read: No such file", "last-pass"]),
        ({}, ["--baseline", "foreign.json"], 2, ["no outcome of luff"]),
        ({}, ["--baseline", "newer.json"], 2, ["newer luff", "next: upgrade luff"]),
        ({}, ["--baseline", "broken.json"], 2, ["is not JSON"]),
        ({}, ["--baseline", "binary.json"], 2, ["is not UTF-8"]),
        ({}, ["--baseline", "whatever"], 2, ["neither last-pass, nor a file that is there, nor the id of a run"]),
        ({}, ["--baseline", "deadbeef"], 2, ["there is no run 'deadbeef'", "luff runs list"]),
        ({}, ["--waivers", "none"], 2, ["none cannot be read", "next: write a YAML list"]),
        ({}, ["--waivers", "foreign.json"], 2, ["foreign.json:1:1: waivers are a list"]),
        ({}, ["--json", "no/where.json"], 2, ["mkdir -p no"]),
        ({}, ["--gitlab-dir", "copes.yaml"], 2, ["cannot be made"]),
        ({}, ["--last-failed"], 6, ["none of the selected experiments failed"]),
        ({}, ["--from-history"], 3, ["copes: it has never been run here"]),
        ({}, ["--store", "sqlite:////no/where/at/all.db"], 5, []),
    ],
)
def test_bad_input_is_refused_before_a_mesh_is_looked_for(
    bare: Pipeline, files: dict[str, str], arguments: list[str], code: int, words: list[str]
) -> None:
    bare.write(copes=COPES, **files)
    (bare.folder / "foreign.json").write_text('{"schema": "cyclonedx"}')
    (bare.folder / "newer.json").write_text('{"schema": "luff.dev/report/v2"}')
    (bare.folder / "broken.json").write_text("{")
    (bare.folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    if "--store" in arguments:
        arguments = [*arguments, "--from-history"]

    done = bare.gate(*arguments)

    assert done.code == code, done
    assert "starting a lab" not in done.err
    for word in words:
        assert word in done.out + done.err


def test_run_and_gate_share_their_flags(bare: Pipeline) -> None:
    def flags(command: str) -> set[str]:
        return {word.strip(",") for word in bare.luff(command, "--help").out.split() if word.startswith("--")}

    contract = {
        *("--last-failed", "--shard", "--set", "--seed", "--json", "--junit", "--html", "--markdown", "--github"),
        *("--gitlab-dir", "--fail-on", "--soft-fail", "--max-duration", "--parallel", "--wait-for", "--yes"),
        "--fail-fast",
    }

    assert contract <= flags("run") <= flags("gate")
    assert {"--baseline", "--waivers", "--from-history", "--max-age"} <= flags("gate")


@pytest.mark.parametrize(
    ("file", "schema", "more"),
    [
        ("github.yml", "vendor.github-workflows", []),
        ("gitlab.yml", "vendor.gitlab-ci", ["--data-transform", "gitlab-ci"]),
    ],
)
def test_the_shipped_pipelines_are_what_those_systems_take(file: str, schema: str, more: list[str]) -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, *more, str(DEPLOY / file)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["github.yml", "gitlab.yml"])
def test_the_shipped_pipelines_use_only_flags_that_there_are(bare: Pipeline, file: str) -> None:
    lines = (DEPLOY / file).read_text().splitlines()
    used = {word for line in lines if "#" not in line for word in line.split() if word.startswith("--")}

    known = bare.luff("gate", "--help").out

    assert used >= {"--lab", "--max-duration", "--html"}
    assert not [flag for flag in used if flag not in known]
