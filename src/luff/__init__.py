"""
luff: chaos experiments for Istio meshes, for test traffic only, with the routes always put back.

The names below are the library's surface; each is imported when it is first
used, so that a command pays only for what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luff.errors import InvalidFile, LuffError, MeshError, PlanRefused, RestoreNotVerified, RunAborted
    from luff.mesh import Mesh, Ref
    from luff.mesh.kubernetes import Connection, KubernetesMesh
    from luff.model import Experiment
    from luff.outcome import Outcome
    from luff.parse import parse_documents
    from luff.plan import Plan, make_plan
    from luff.run import Options, World, run_experiment
    from luff.words import Arm, Carrier, Verdict

__version__ = "0.1.0"

__all__ = [
    "Arm",
    "Carrier",
    "Connection",
    "Experiment",
    "InvalidFile",
    "KubernetesMesh",
    "LuffError",
    "Mesh",
    "MeshError",
    "Options",
    "Outcome",
    "Plan",
    "PlanRefused",
    "Ref",
    "RestoreNotVerified",
    "RunAborted",
    "Verdict",
    "World",
    "make_plan",
    "parse_documents",
    "run_experiment",
]

_HOMES = {
    "luff.errors": ("InvalidFile", "LuffError", "MeshError", "PlanRefused", "RestoreNotVerified", "RunAborted"),
    "luff.mesh": ("Mesh", "Ref"),
    "luff.mesh.kubernetes": ("Connection", "KubernetesMesh"),
    "luff.model": ("Experiment",),
    "luff.outcome": ("Outcome",),
    "luff.parse": ("parse_documents",),
    "luff.plan": ("Plan", "make_plan"),
    "luff.run": ("Options", "World", "run_experiment"),
    "luff.words": ("Arm", "Carrier", "Verdict"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'luff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
