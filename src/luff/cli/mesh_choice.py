"""
Which mesh is meant, by the rules of the contract.

``--lab`` is the running lab that answers, or one started for this command's
own life. Without it a cluster is meant and must be named: an ambient context
is asked about on a terminal and refused elsewhere, as in a CI job.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import click

from luff.cli.files import read_documents, read_policy
from luff.cli.options import MeshOptions
from luff.cli.terminal import interactive
from luff.errors import MeshError, UsageError
from luff.lab import lifetimes as labs
from luff.lab.state import LabState
from luff.mesh.kubernetes import Connection, current_context
from luff.model import PolicySpec
from luff.outcome import MeshIdentity
from luff.parse import Documents
from luff.policy import check_context, named_context
from luff.shipped import shipped

__all__ = ["Chosen", "ambient_identity", "ambient_mesh", "chosen_mesh"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    This is the mesh that a command works on.

    *lab* is its state when it is one; *keep_open* are file descriptors whose
    holders keep a temporary lab alive; *policy* bounds what may be done there.
    """

    connection: Connection
    lab: LabState | None = None
    keep_open: tuple[int, ...] = field(default=())
    policy: PolicySpec | None = None


@contextmanager
def chosen_mesh(options: MeshOptions, documents: Documents) -> Iterator[Chosen]:
    """Yield the mesh for a command that may change something; a lab started here ends with the block."""
    policy = read_policy(options.policy)
    if not options.lab:
        connection = _named_cluster(options, policy)
        check_context(policy, connection.context or "")
        yield Chosen(connection, policy=policy)
        return
    state = labs.find(options.lab_dir)
    if state is not None and not labs.workloads_missing(state, documents):
        yield replace(_in_lab(state), policy=policy)
        return
    with _temporary_lab(documents) as chosen:
        yield replace(chosen, policy=policy)


def ambient_mesh(options: MeshOptions) -> Chosen:
    """
    Return the mesh for a command that never asks: the lab with ``--lab``, else the cluster named or ambient.

    A policy may name it, and forbids nothing: these commands only look, stop and restore.
    """
    if options.lab:
        state = labs.find(options.lab_dir)
        if state is None:
            raise MeshError("no lab is running", next_step="start one with `luff lab up --detach`")
        return _in_lab(state)
    return Chosen(Connection(options.kubeconfig, _ambient_context(options)))


def ambient_identity(options: MeshOptions) -> MeshIdentity:
    """Return the mesh whose history is meant, for a command that only reads it: any lab with ``--lab``, else one cluster."""
    if options.lab:
        return MeshIdentity(kind="lab", name="lab")
    return MeshIdentity(kind="cluster", name=_ambient_context(options))


def _ambient_context(options: MeshOptions) -> str:
    context = options.context or named_context(read_policy(options.policy)) or current_context(options.kubeconfig)
    if context is None:
        raise _no_kubeconfig(options)
    return context


def _in_lab(state: LabState, keep_open: tuple[int, ...] = ()) -> Chosen:
    return Chosen(Connection(state.kubeconfig, labs.CONTEXT, kind="lab"), state, keep_open)


def _named_cluster(options: MeshOptions, policy: PolicySpec | None) -> Connection:
    named = options.context or named_context(policy)
    if named is not None:
        return Connection(options.kubeconfig, named)
    ambient = current_context(options.kubeconfig)
    if ambient is None:
        raise _no_kubeconfig(options)
    if options.yes:
        return Connection(options.kubeconfig, ambient)
    if interactive(sys.stdin, sys.stderr):
        if click.confirm(f"Use the cluster of the current context, {ambient}?", err=True):
            return Connection(options.kubeconfig, ambient)
        raise click.Abort
    raise UsageError(
        f"no cluster was named, and the current context {ambient} is not taken on its own",
        next_step=f"say --context {ambient}, set LUFF_CONTEXT, give a --policy whose contexts are [{ambient}], add --yes, or use --lab",
    )


def _no_kubeconfig(options: MeshOptions) -> MeshError:
    where = options.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    return MeshError(
        f"there is no usable kubeconfig at {where}",
        next_step="name a cluster with --kubeconfig, KUBECONFIG or --context, or use a local mesh with --lab",
    )


def bookinfo() -> Documents:
    """Return the shipped sample mesh: its workloads and manifests, without experiments."""
    return read_documents([shipped("experiments") / "bookinfo" / "lab.yaml"])


@contextmanager
def _temporary_lab(documents: Documents) -> Iterator[Chosen]:
    wanted = documents if documents.workloads else bookinfo()
    names = ", ".join(sorted({workload.spec.service for workload in wanted.workloads}))
    click.echo(f"starting a lab for this command: {names}", err=True)
    reader, writer = os.pipe()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, writer)
        try:
            state = labs.start(wanted, lifeline_fd=reader)
        finally:
            os.close(reader)
        cleanup.callback(labs.stop, state)
        yield _in_lab(state, keep_open=(writer,))
