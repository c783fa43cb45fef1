"""
The one place where a run's parts are wired together: mesh, guard, store, traffic, evidence.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import httpx

from luff import __version__
from luff.cli.mesh_choice import Chosen
from luff.cli.places import guard_log
from luff.cli.silence import tell_silence
from luff.clock import SystemClock
from luff.errors import UsageError
from luff.evidence import DataPlane, Source
from luff.evidence.first_readable import FirstReadable
from luff.evidence.lab_log import LabLog
from luff.evidence.lab_proxies import LabProxies
from luff.evidence.latency_shift import LatencyShift
from luff.evidence.pod_metrics import PodMetrics
from luff.evidence.probes import Probes
from luff.evidence.prometheus import Prometheus
from luff.evidence.proxy_counts import ProxyCounts, Reader
from luff.evidence.response_header import ResponseHeader
from luff.guard import Guard
from luff.lab.state import LabState
from luff.mesh import Kind
from luff.mesh.kubernetes import KubernetesMesh, Limits
from luff.model import Experiment
from luff.outcome import Context, MeshIdentity
from luff.plan import Plan
from luff.proof import Proof
from luff.record import Record
from luff.run import World
from luff.samples import Evidence
from luff.scope import FLAGS_HEADER
from luff.store import Beginning, Store
from luff.traffic.crew import Spread
from luff.traffic.dial import TrafficError
from luff.traffic.machine import processes_for
from luff.traffic.templates import Template
from luff.traffic.way import Way
from luff.withdraw import PATIENCE_S

__all__ = ["context_from_environment", "identity_of", "open_world", "trace_id_of"]


_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
GIT_WITHIN_S = 2.0
PROBE_WITHIN_S = 6.0
"""What a request that only looks for the twins may take; those of a longer delay are not looked for."""


@asynccontextmanager
async def open_world(chosen: Chosen, store: Store) -> AsyncIterator[World]:
    """Connect everything that a run needs, and let go of it afterwards; the guard ends last."""
    told = tell_silence(chosen.connection, patience_s=Limits().answer_s, restoring_s=PATIENCE_S)
    mesh = KubernetesMesh.connect(chosen.connection, on_silence=told)
    # Asked before the guard is started: its own failure to reach the server would be the same news, second hand.
    await mesh.server_time_s()
    identity = identity_of(chosen, mesh)
    in_lab = chosen.lab is not None or await mesh.is_lab()
    plane: LabProxies | None = None
    guard = await Guard.start(chosen.connection, log=guard_log(), keep_open=chosen.keep_open)
    try:
        if chosen.lab is not None:
            plane = LabProxies({f"{w.name}-{w.replica}": w.admin for w in chosen.lab.workloads})
        yield World(
            mesh=mesh,
            identity=identity,
            in_lab=in_lab,
            journal=store.journal(identity),
            watcher=guard,
            watcher_died=guard.died,
            clock=SystemClock(),
            transport=lambda experiment: _way(experiment, chosen.lab)(),
            spread=lambda plan: _spread(plan, chosen.lab),
            source=lambda plan, zero_s: _source(plan, zero_s, chosen.lab, mesh),
            plane=plane,
            probes=_probes,
            begin=lambda record: asyncio.to_thread(store.begin, _beginning(record)),
            levers=store.levers(identity),
        )
    finally:
        if plane is not None:
            await plane.close()
        await guard.close()
        mesh.close()


def _beginning(record: Record) -> Beginning:
    """Return what history keeps of a run that has begun, should it never end."""
    fault = record.experiment.spec.fault
    return Beginning(
        run=record.run,
        experiment=record.experiment.name,
        actor=record.actor,
        mesh=record.mesh,
        started_at=datetime.fromtimestamp(record.started_s, UTC),
        namespace=record.experiment.metadata.namespace,
        labels=record.experiment.metadata.labels,
        subject=None if record.plan is None else record.plan.subject,
        edge=record.edge,
        fault="+".join(name for name in ("delay", "abort") if getattr(fault, name) is not None),
        spec_sha256=record.spec_sha256,
        scope_sha256=None if record.scope is None else record.scope.value_sha256,
        seed=record.seed,
        context=record.context,
        luff=__version__,
    )


def identity_of(chosen: Chosen, mesh: KubernetesMesh) -> MeshIdentity:
    """Return which mesh was chosen, as history and the store's levers know it."""
    if chosen.lab is not None:
        return MeshIdentity(kind="lab", name=chosen.lab.name, uid=chosen.lab.uid)
    return MeshIdentity(kind="cluster", name=mesh.name)


def _source(plan: Plan, zero_s: float, lab: LabState | None, mesh: KubernetesMesh) -> Source:
    """Return the source of evidence that *plan* chose. *zero_s* is the samples' zero on the monotonic clock."""
    if plan.proof.sources == ("response-header",):
        return ResponseHeader()
    if plan.proof.sources == ("lab-log",) and lab is not None:
        log = LabLog(
            logs=Path(lab.logs),
            scope=plan.stamp.scope,
            twins=plan.injection.names,
            wait_s=plan.delay_s + plan.timeout_s,
            zero_s=zero_s,
            monotonic_s=time.monotonic,
            destinations=plan.proof.destinations,
            retries_for_s=plan.delay_s if any(check.kind == "attempts" for check in plan.checks) else None,
            edges=plan.other_hops,
        )
        log.skip_to_end()
        return log
    evidence = Evidence(plan.proof.sources[0], "aggregate")
    candidates: list[Source] = []
    for source in plan.proof.sources:
        if source == "latency-shift":
            candidates.append(LatencyShift(evidence))
        elif (reader := _reader(source, plan.proof, plan, mesh)) is not None:
            warmed_up = plan.experiment.spec.traffic.warmup_s > 0
            candidates.append(ProxyCounts(reader, plan.delay_s, zero_s, time.monotonic, evidence, warmed_up))
    return FirstReadable(evidence, candidates)


def _probes(plan: Plan, transport: httpx.AsyncBaseTransport) -> DataPlane | None:
    """Return what sees the twins by requests of its own; ``None`` where answers do not tell, or asking could do harm."""
    requests = plan.experiment.spec.traffic.revealed(os.environ).requests
    # Of several, some may be meant to take another route; and one that changes something is not sent for the sake of looking.
    harmless = len(requests) == 1 and requests[0].method in ("GET", "HEAD")
    if plan.proof.sources != ("response-header",) or not harmless or plan.delay_s >= PROBE_WITHIN_S:
        return None
    template, scope = Template(requests[0]), plan.stamp.scope

    async def send(number: int) -> bool | None:
        request = template.request(scope.headers(number), number=number, rng=random.Random(number))
        try:
            async with asyncio.timeout(PROBE_WITHIN_S):
                answer = await transport.handle_async_request(request)
                await answer.aread()
        except (httpx.HTTPError, TrafficError, OSError):
            return None
        return FLAGS_HEADER in answer.headers

    return Probes(send)


def _reader(source: str, proof: Proof, plan: Plan, mesh: KubernetesMesh) -> Reader | None:
    namespace = plan.injection.namespace
    if source == "pod-metrics":
        return PodMetrics(
            pods=lambda where: mesh.list(Kind.POD, where),
            page=mesh.pod_page,
            namespace=proof.namespace,
            labels=proof.labels,
            destinations=proof.destinations,
            target_namespace=namespace,
        )
    url = os.environ.get("LUFF_PROMETHEUS_URL")
    if url:
        named = {"app": "source_app", "version": "source_version"}
        caller = {named[key]: value for key, value in proof.labels.items() if key in named}
        caller = caller or {"source_canonical_service": plan.subject}
        return Prometheus(url, {"source_workload_namespace": proof.namespace, **caller}, proof.destinations, namespace)
    if len(proof.sources) == 1:
        raise UsageError(
            "evidence.source is prometheus, and there is no Prometheus", next_step="set LUFF_PROMETHEUS_URL"
        )
    return None


def _way(experiment: Experiment, lab: LabState | None) -> Way:
    via = experiment.spec.traffic.via
    return Way(via) if lab is None else Way(via, ingress=lab.ingress, sidecar=lab.sidecar)


async def _spread(plan: Plan, lab: LabState | None) -> Spread | None:
    """Return among whom the traffic is shared, ``None`` where this process sends all of it; `PlanRefused` where none can."""
    traffic = plan.experiment.spec.traffic
    processes = await processes_for(traffic, rate_hz=plan.rate_hz, timeout_s=plan.timeout_s)
    return Spread(processes, _way(plan.experiment, lab)) if processes > 1 else None


def context_from_environment() -> Context:
    """Return where this run comes from: as CI systems say it, else as git does in this folder."""
    env = os.environ
    commit = env.get("GITHUB_SHA") or env.get("CI_COMMIT_SHA") or _git("rev-parse", "HEAD")
    branch = env.get("GITHUB_REF_NAME") or env.get("CI_COMMIT_REF_NAME") or _git("rev-parse", "--abbrev-ref", "HEAD")
    ci_url = env.get("CI_JOB_URL")
    if env.get("GITHUB_RUN_ID"):
        ci_url = f"{env.get('GITHUB_SERVER_URL')}/{env.get('GITHUB_REPOSITORY')}/actions/runs/{env['GITHUB_RUN_ID']}"
    return Context(commit=commit, branch=branch, ci_url=ci_url, trace_id=trace_id_of(env.get("TRACEPARENT", "")))


def trace_id_of(traceparent: str) -> str | None:
    """Return the id of the trace that *traceparent* is part of, ``None`` for what W3C Trace Context calls invalid."""
    found = _TRACEPARENT.fullmatch(traceparent)
    # Versions to come may say more after the flags; this one may not.
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    nobody = {"0" * 32, "0" * 16}
    return None if nobody & {found["trace"], found["parent"]} else found["trace"]


@cache
def _git(*arguments: str) -> str | None:
    """Return what git says in this folder, or ``None`` where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=GIT_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
