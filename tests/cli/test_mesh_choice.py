"""Which cluster is meant, when it is named in three ways or in none, and what a lab's folder must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from luff.cli.mesh_choice import ambient_mesh, chosen_mesh
from luff.cli.options import MeshOptions
from luff.errors import InvalidFile, LabError, PlanRefused, UsageError
from luff.parse import Documents

NOTHING = Documents(experiments=(), suites=(), game_days=(), policies=(), workloads=(), manifests=())


def policy(folder: Path, contexts: str) -> Path:
    """Write a Policy."""
    path = folder / "policy.yaml"
    path.write_text(
        f"apiVersion: luff.dev/v1alpha1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{contexts: {contexts}}}\n"
    )
    return path


def context_of(options: MeshOptions) -> str | None:
    with chosen_mesh(options, NOTHING) as chosen:
        return chosen.connection.context


def test_a_policy_with_one_context_names_the_cluster(kubeconfig: str, tmp_path: Path) -> None:
    options = MeshOptions(False, None, kubeconfig, None, policy=policy(tmp_path, "[prod]"))

    assert context_of(options) == "prod"
    assert ambient_mesh(options).connection.context == "prod"


def test_a_policy_for_a_pattern_names_none_and_the_refusal_names_all_three_ways(
    kubeconfig: str, tmp_path: Path
) -> None:
    options = MeshOptions(False, None, kubeconfig, None, policy=policy(tmp_path, "['stag*']"))

    with pytest.raises(UsageError, match="no cluster was named") as caught:
        context_of(options)

    for way in ("--context staging", "LUFF_CONTEXT", "--policy whose contexts are [staging]"):
        assert way in str(caught.value.next_step)


def test_a_cluster_that_the_policy_is_not_for_is_refused_however_it_was_named(kubeconfig: str, tmp_path: Path) -> None:
    rules = policy(tmp_path, "[prod, 'prod-*']")

    for options in (
        MeshOptions(False, "staging", kubeconfig, None, policy=rules),
        MeshOptions(False, None, kubeconfig, None, yes=True, policy=rules),
    ):
        with pytest.raises(PlanRefused, match="not for staging") as caught:
            context_of(options)
        assert caught.value.exit_code == 5


def test_what_only_looks_or_restores_is_forbidden_nothing(kubeconfig: str, tmp_path: Path) -> None:
    options = MeshOptions(False, "staging", kubeconfig, None, policy=policy(tmp_path, "[prod]"))

    assert ambient_mesh(options).connection.context == "staging"


def test_a_policy_that_is_not_valid_is_a_usage_error(kubeconfig: str, tmp_path: Path) -> None:
    options = MeshOptions(False, "prod", kubeconfig, None, policy=policy(tmp_path, "7"))

    with pytest.raises(InvalidFile) as caught:
        context_of(options)

    assert caught.value.exit_code == 2


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_no_lab_is_named_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    folder = tmp_path / "nowhere"
    if there:
        folder.mkdir()
    monkeypatch.setenv("LUFF_LAB_DIR", str(folder))

    for choose in (
        lambda: ambient_mesh(MeshOptions(True, None, None, None)),
        lambda: context_of(MeshOptions(True, None, None, None)),
    ):
        with pytest.raises(LabError, match=f"LUFF_LAB_DIR names {folder}, which is"):
            choose()
