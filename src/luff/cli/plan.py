"""`luff plan`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from luff.cli.options import MeshOptions, Voice, by_hand, mesh_options, voice_options
from luff.units import show_count, show_duration, show_rate

if TYPE_CHECKING:
    from luff.checks import PlannedCheck
    from luff.plan import Plan

__all__ = ["plan"]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a field, such as spec.traffic.rate=10/s."
)
@click.option(
    "--dry-run",
    type=click.Choice(["none", "server"]),
    default="none",
    help="server: let the API server try the patch without keeping it.",
)
@click.option(
    "-o", "--output", type=click.Choice(["diff", "json", "yaml"]), default="diff", help="The shape of the answer."
)
@by_hand("--yes", is_flag=True, help="Use the kubeconfig's current context.")
@mesh_options
@voice_options
def plan(
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
    dry_run: str,
    output: str,
    yes: bool,
    mesh: MeshOptions,
    voice: Voice,
) -> None:
    """Show what a run of FILES would change, what was inferred, and how many processes here would send. Touches nothing."""
    from luff.cli.files import overrides_of, read_documents
    from luff.cli.mesh_choice import chosen_mesh
    from luff.cli.silence import tell_silence
    from luff.errors import NothingSelected
    from luff.mesh.kubernetes import KubernetesMesh, Limits  # the client costs half a second
    from luff.run import plan_only

    documents = read_documents(files, overrides=overrides_of(overrides))
    if not documents.experiments:
        raise NothingSelected("there is no experiment in these files")
    with chosen_mesh(mesh, documents) as chosen:
        told = tell_silence(chosen.connection, patience_s=Limits().answer_s)
        api = KubernetesMesh.connect(chosen.connection, on_silence=told)
        try:
            plans = [
                asyncio.run(
                    plan_only(
                        experiment,
                        api,
                        namespace=mesh.namespace,
                        dry_run=dry_run == "server",
                        policy=chosen.policy,
                    )
                )
                for experiment in documents.experiments
            ]
        finally:
            api.close()
    if output == "diff":
        for each in plans:
            click.echo(_as_text(each))
        return
    shown = [_as_document(each) for each in plans]
    if output == "json":
        click.echo(json.dumps(shown if len(shown) > 1 else shown[0], indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump_all(shown, sort_keys=False, allow_unicode=True), nl=False)


def _as_text(plan: Plan) -> str:
    from luff.routes import difference

    redact = plan.stamp.scope.redact
    injection = plan.injection
    lines = [
        f"{plan.experiment.name}: {plan.experiment.spec.hypothesis or 'no hypothesis written down'}",
        f"  breaks {plan.caller or 'whoever calls'} → {plan.dependency}, judges {plan.subject}",
        "",
        *(redact(line) for line in difference(plan.virtual_service, injection)),
        "",
        _traffic_line(plan),
        f"sent by  {_senders(plan)[1]}",
        f"held     at most {plan.held:.0f} requests in the caller at once",
        f"ttl      {show_duration(plan.experiment.spec.restore.ttl_s)}: after that anybody may remove the twins",
        "",
        "checks",
    ]
    mark = "  (default)" if plan.experiment.defaults else ""
    lines += [f"  {check.id:<28} {check.expression:<34} {_method(check)}{mark}" for check in plan.checks]
    lines += _block_to_paste(plan)
    lines += ["", "inferred"]
    lines += [f"  {name:<16} {value}   ({why})" for name, value, why in plan.inferred]
    if plan.warnings:
        lines += ["", "mind"] + [f"  {redact(warning)}" for warning in plan.warnings]
    return "\n".join(lines)


def _block_to_paste(plan: Plan) -> list[str]:
    """Return the defaults as what would be written to keep or change them; nothing where the experiment expects something."""
    if not plan.experiment.defaults:
        return []
    from luff.default_claims import expect_block

    block = expect_block(plan.experiment).rstrip().splitlines()
    return [
        "",
        "nothing is expected in the file, so these are the defaults; to change them, paste into spec:",
        *(f"  {line}" for line in block),
    ]


def _traffic_line(plan: Plan) -> str:
    traffic = plan.experiment.spec.traffic
    stages = [f"to {show_rate(stage.rate_hz)} in {show_duration(stage.for_s)}" for stage in traffic.stages]
    start = "nothing" if traffic.rate_hz is None else show_rate(traffic.rate_hz)
    rate = (
        f"from {start} {', '.join(stages)}, {show_rate(plan.rate_hz)} on average" if stages else show_rate(plan.rate_hz)
    )
    pattern = ", as Poisson arrivals" if traffic.arrivals == "poisson" else ""
    return (
        f"traffic  {rate} per arm{pattern}, at most {show_duration(traffic.duration_s)} after "
        f"{show_duration(traffic.warmup_s)} of warm-up; each request up to {show_duration(plan.timeout_s)}"
    )


def _senders(plan: Plan) -> tuple[int | None, str]:
    """Return how many processes of this machine a run would send from, ``None`` where it would be refused, and that in words."""
    from luff.errors import PlanRefused
    from luff.traffic import loop
    from luff.traffic.machine import processes_for

    traffic = plan.experiment.spec.traffic
    try:
        count = loop.run(processes_for(traffic, rate_hz=plan.rate_hz, timeout_s=plan.timeout_s))
    except PlanRefused as refused:
        return None, f"nobody here, so a run would be refused: {refused.message}; {refused.next_step}"
    return count, "one process" if count == 1 else f"{count} processes"


def _method(check: PlannedCheck) -> str:
    if check.method in ("comparison", "windows"):
        return check.method
    return f"{check.method:<11} tolerates {show_count(check.tolerated)} of {show_count(check.sample_most)}"


def _as_document(plan: Plan) -> dict[str, Any]:
    injection = plan.injection
    text = json.dumps(
        {
            "experiment": plan.experiment.name,
            "object": {
                "namespace": injection.namespace,
                "virtual_service": injection.virtual_service,
                "resource_version": injection.resource_version,
            },
            "subject": plan.subject,
            "edge": {"caller": plan.caller, "dependency": plan.dependency},
            "twins": list(injection.twins),
            "operations": [dict(operation) for operation in injection.operations],
            "traffic": {
                "rate_per_arm_hz": plan.rate_hz,
                "timeout_s": plan.timeout_s,
                "held_most": plan.held,
                "processes": _senders(plan)[0],
            },
            "checks": [
                {
                    "id": c.id,
                    "expression": c.expression,
                    "method": c.method,
                    "tolerates": c.tolerated,
                    "of": c.sample_most,
                    "default": plan.experiment.defaults,
                }
                for c in plan.checks
            ],
            "inferred": [{"field": name, "value": value, "why": why} for name, value, why in plan.inferred],
            "warnings": list(plan.warnings),
            "scope_sha256": plan.stamp.scope.digest,
        },
        ensure_ascii=False,
    )
    found = json.loads(plan.stamp.scope.redact(text))
    assert isinstance(found, dict)
    return found
