"""The shape of the package: imports flow one way, the core is pure, patches have two authors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "luff"
PURE = [
    "errors", "units", "words", "fields", "load", "expectations", "model", "lifecycle", "scope", "samples", "outcome", "hosts", "routes", "validation", "translate",
    "pacing", "stats", "checks", "jsonpath", "parse", "schema", "plan", "report", "exit_codes", "names", "patches",
    "decide", "claims", "delegates", "mechanism", "selection", "targeting", "twins", "verdicts", "others", "selftest", "crd", "reachability", "clusters", "mesh_state", "gameday", "blackouts", "results", "tallies", "suite", "gate", "explain", "predicates", "refusals", "default_claims", "run_bounds", "sample_sizes", "sentences",
    "short_forms", "yaml_nodes", "regex", "destination_rules", "destination_policies", "defences", "envoy_routes", "header_values", "spelling",
    "traffic/capacity", "traffic/frames", "exposure", "proof", "prometheus", "builds", "written", "endings",
]  # fmt: skip
IMPURE_MODULES = {
    "asyncio", "anyio", "time", "socket", "subprocess", "os", "threading", "httpx", "kubernetes", "sqlalchemy",
    "urllib3", "uvloop", "signal", "selectors", "tempfile", "shutil", "concurrent",
}  # fmt: skip


def _files(name: str) -> list[Path]:
    folder = SOURCE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]

    done = subprocess.run(command, cwd=SOURCE.parent.parent, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", PURE)
def test_the_core_imports_no_clock_disk_wire_or_async_library(name: str) -> None:
    impure = {path.name: _imported(path) & IMPURE_MODULES for path in _files(name)}

    assert not {path: names for path, names in impure.items() if names}


def _public(package: Path) -> set[str]:
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return {name for each in lists for name in ast.literal_eval(each)}


def test_no_package_has_a_name_that_a_module_of_its_own_would_take_once_it_is_imported() -> None:
    packages = [path.parent for path in SOURCE.rglob("__init__.py")]

    taken = {each.name: _public(each) & {path.stem for path in each.iterdir()} for each in packages}

    assert not {package: names for package, names in taken.items() if names}


def test_the_kubernetes_client_is_imported_by_the_mesh_alone() -> None:
    importers = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if "kubernetes" in _imported(path)}

    assert importers == {"mesh/kubeconfig.py", "mesh/kubernetes.py"}


def test_only_inject_withdraw_and_the_dry_run_patch_the_mesh() -> None:
    def patches(path: Path) -> bool:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        return any(
            isinstance(call, ast.Attribute) and call.attr == "patch" and "mesh" in ast.unparse(call.value)
            for call in calls
        )

    callers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "lab" not in path.relative_to(SOURCE).parts and patches(path)
    }

    assert callers == {"inject.py", "preflight.py", "withdraw.py"}


@pytest.mark.parametrize(
    ("what", "without"),
    [
        pytest.param("luff.guard", "luff.model luff.store sqlalchemy httpx", id="who restores"),
        pytest.param("luff.lab.bookinfo.__main__", "luff.parse pydantic yaml", id="a service of the lab"),
        pytest.param("luff.cli, luff.lab.lifetimes", "luff.parse pydantic yaml rich", id="who looks for a lab"),
    ],
)
def test_a_process_does_without_what_it_does_not_use(what: str, without: str) -> None:
    code = f"import sys, {what}; print(*sorted(set(sys.modules) & set({without.split()})))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
