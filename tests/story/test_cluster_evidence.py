"""The lab taken for a cluster: what is proven where luff has a kubeconfig and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.story.conftest import Done, Shell

RUN = ("run", "--context", "luff-lab")
"""A lab that is gone to by its kubeconfig is taken for a cluster, except that it needs no reaper wherever this runs."""
INDIRECT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: indirect, namespace: bookinfo}}
spec:
  target: {{host: ratings}}
  subject: {subject}
  fault: {{abort: 503}}
  scope: {{carrier: {carrier}}}
  traffic:
    requests: [{{url: "{url}", headers: {{end-user: jason}}}}]
    rate: 30/s
    duration: 10s
    warmup: 1s
    via: {{connect: "{sidecar}"}}
  expect:
    - {{id: no-stars, fallback: {{status: 200, json: {{path: "$.reviews[*].rating.stars", exists: false}}, atLeast: 90%}}}}
  evidence: {evidence}
"""


def _lab(shell: Shell) -> dict[str, Any]:
    found = json.loads((Path(shell.environment["LUFF_LAB_DIR"]) / "lab.json").read_text())
    assert isinstance(found, dict)
    return found


def _run(
    shell: Shell, *, evidence: str = "{}", carrier: str = "any", prometheus: str = ""
) -> tuple[Done, dict[str, Any]]:
    text = INDIRECT.format(
        subject="reviews",
        url="http://reviews.bookinfo:9080/reviews/0",
        carrier=carrier,
        sidecar=_lab(shell)["sidecar"],
        evidence=evidence,
    )
    (shell.folder / "indirect.yaml").write_text(text)
    done = shell.luff(*RUN, "indirect.yaml", "--json", "out.json", LUFF_PROMETHEUS_URL=prometheus)
    outcome = shell.outcome()
    return done, outcome


def test_an_indirect_experiment_passes_by_what_the_callers_proxies_count(shell: Shell) -> None:
    done, outcome = _run(shell)

    assert done.code == 0, done
    assert outcome["mesh"]["kind"] == "cluster"
    evidence = outcome["evidence"]
    assert (evidence["source"], evidence["per"], evidence["exposure"]) == ("pod-metrics", "aggregate", 1.0)
    assert outcome["edge"]["caller"].startswith("reviews-v")
    assert "at least" in outcome["explanation"], "calls are not requests"


def test_a_scope_that_is_lost_on_the_way_is_no_proof(shell: Shell) -> None:
    # No bookinfo program forwards baggage.
    done, outcome = _run(shell, carrier="baggage")

    assert done.code == 3, done
    assert outcome["reason"] == "fault_not_observed"
    assert outcome["evidence"]["observed"] == 0
    assert "did not inject the fault into any call" in outcome["explanation"]


@pytest.fixture
def forbidden(shell: Shell) -> Any:
    """Let the API server forbid what pods are asked through it, as without the role."""
    api = f"http://{_lab(shell)['api']}/luff/misbehave"
    token = next(
        line.split("token:")[1].strip()
        for line in Path(shell.environment["KUBECONFIG"]).read_text().splitlines()
        if "token:" in line
    )
    headers = {"authorization": f"Bearer {token}"}
    rule = {"action": "status", "plural": "pods/proxy", "code": 403, "times": 1000}
    httpx.post(api, json=[rule], headers=headers, trust_env=False).raise_for_status()
    yield
    httpx.delete(api, headers=headers, trust_env=False).raise_for_status()


@pytest.mark.usefixtures("forbidden")
def test_without_the_role_a_source_that_was_asked_for_is_refused_before_anything_is_injected(shell: Shell) -> None:
    done, outcome = _run(shell, evidence="{source: pod-metrics}")

    assert done.code == 5, done
    assert outcome["reason"] == "plan_refused:evidence_unreadable"
    assert "403" in outcome["explanation"]
    assert "pods/proxy" in outcome["next"]["do"]
    assert all(step["phase"] != "armed" for step in outcome["timeline"])


@pytest.mark.usefixtures("forbidden")
def test_without_the_role_the_last_resort_is_named_as_such_and_proves_little(shell: Shell) -> None:
    done, outcome = _run(shell, prometheus="http://127.0.0.1:9/")

    assert done.code == 3, done
    assert outcome["reason"] == "fault_not_observed"
    assert outcome["evidence"]["source"] == "latency-shift"
    note = outcome["evidence"]["note"]
    assert "403" in note
    assert "pods/proxy" in note
    assert "Prometheus at http://127.0.0.1:9/ gave no answer" in note


DIRECT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: direct, namespace: bookinfo}}
spec:
  target: {{host: ratings}}
  fault: {{abort: 503}}
  traffic:
    requests: [{{url: "http://ratings.bookinfo:9080/ratings/0"}}]
    rate: 30/s
    duration: 10s
    warmup: 1s
    via: {{connect: "{connect}"}}
  expect: [{{id: any-answer, latency: {{p90: 1s}}}}]
"""


def test_where_luff_calls_the_hop_itself_its_own_requests_see_the_twins_come_and_go(shell: Shell) -> None:
    (shell.folder / "direct.yaml").write_text(DIRECT.format(connect=_lab(shell)["sidecar"]))

    done = shell.luff(*RUN, "direct.yaml", "--json", "out.json")

    assert done.code == 0, done
    outcome = shell.outcome()
    assert (outcome["evidence"]["source"], outcome["evidence"]["per"]) == ("response-header", "request")
    notes = {step["phase"]: step.get("note") for step in outcome["timeline"]}
    assert notes["live"] == "at luff's own way"
    assert outcome["restore"]["data_plane"] == "unobserved", "nobody looked at the proxies of other callers"
    assert outcome["restore"]["probes"] > 0
