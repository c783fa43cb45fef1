"""What every command has: the common flags, and a variable for each of its own but for consent."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from luff.cli import cli
from luff.errors import MeshError

CONSENT = {"--yes", "--all", "--accept-inert-leftover"}
EMERGENCY = ["restore", "stop", "status", "reaper", "lever on", "lever off", "lever status"]


def leaves(
    command: click.Command, context: click.Context, path: tuple[str, ...]
) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, context, (*path, name))


COMMANDS = dict(leaves(cli, click.Context(cli), ()))


def options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_common_flags(name: str) -> None:
    names = {flag for each in options(COMMANDS[name]) for flag in each.opts}
    wanted = {"-q", "-v", "--no-color"} | (
        {"--store", "--policy", "-n", "--kubeconfig"} if "--context" in names else set()
    )

    assert wanted <= names
    flags = [flag for each in options(COMMANDS[name]) for flag in each.opts]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_its_variable_but_for_those_that_consent(name: str) -> None:
    for each in options(COMMANDS[name]):
        flags = set(each.opts)
        if CONSENT & flags or (name == "restore" and "--dry-run" in flags):
            assert each.envvar is None, each.opts
        elif "--help" not in flags:
            first = each.envvar if isinstance(each.envvar, str) else next(iter(each.envvar or ()))
            assert first in {"LUFF_" + flag.removeprefix("--").replace("-", "_").upper() for flag in flags}, each.opts


def chosen(name: str, arguments: list[str], **environment: str) -> dict[str, object]:
    """Return what the command *name* would be told with *arguments* in *environment*; nothing is run."""
    with CliRunner(env=environment).isolation():
        return COMMANDS[name].make_context(name, [*arguments]).params


@pytest.mark.parametrize("name", EMERGENCY)
@pytest.mark.parametrize(
    ("variable", "value"),
    [("LUFF_OUTPUT", "yaml"), ("LUFF_DRY_RUN", "server"), ("LUFF_VERBOSE", "true"), ("LUFF_QUIET", "somewhat")],
)
def test_a_variable_for_another_command_keeps_no_emergency_command_from_acting(
    name: str, variable: str, value: str
) -> None:
    arguments = [*name.split(), "--kubeconfig", "/nowhere", *(["--all"] if name == "stop" else [])]
    if name == "lever on":
        arguments += ["--why", "a test"]

    done = CliRunner(env={variable: value}).invoke(cli, arguments)

    assert isinstance(done.exception, MeshError), "it looked for the mesh"
    if any(variable == each.envvar for each in options(COMMANDS[name])):
        assert f"luff: {variable} is ignored here: '{value}' is not" in done.stderr


def test_every_variable_that_an_emergency_command_cannot_take_is_ignored_and_the_others_are_heeded() -> None:
    told = chosen("stop", ["--all"], LUFF_OUTPUT="yaml", LUFF_VERBOSE="true", LUFF_NAMESPACE="shop")

    assert (told["output"], told["verbose"], told["namespace"]) == ("table", 0, "shop")


@pytest.mark.parametrize("name", EMERGENCY)
def test_which_mesh_is_meant_is_never_guessed(name: str) -> None:
    with pytest.raises(click.BadParameter):
        chosen(name, [], LUFF_LAB="perhaps")


def test_what_an_emergency_command_is_told_by_hand_is_not_ignored() -> None:
    with pytest.raises(click.BadParameter):
        chosen("stop", ["--all", "-o", "yaml"], LUFF_OUTPUT="json")


def test_a_variable_that_a_run_cannot_take_is_refused() -> None:
    with pytest.raises(click.BadParameter):
        chosen("run", ["some.yaml"], LUFF_PARALLEL="many")


def test_no_variable_makes_a_restore_a_dry_run() -> None:
    done = CliRunner(env={"LUFF_DRY_RUN": "1"}).invoke(cli, ["restore", "--kubeconfig", "/nowhere"])

    assert chosen("restore", [], LUFF_DRY_RUN="1")["dry_run"] is False
    assert "LUFF_DRY_RUN is not heeded here" in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "dest", "general"),
    [("status", [], "kubeconfig", "KUBECONFIG"), ("runs push", ["9f2c"], "server", "LUFF_SERVER")],
)
def test_the_variable_of_a_flag_comes_before_the_general_one(
    name: str, arguments: list[str], dest: str, general: str
) -> None:
    own = "LUFF_KUBECONFIG" if dest == "kubeconfig" else "LUFF_TO"

    assert chosen(name, arguments, **{own: "mine", general: "other"})[dest] == "mine"
    assert chosen(name, arguments, **{own: "", general: "other"})[dest] == "other"


@pytest.mark.parametrize("name", ["status", "stop", "restore", "lever on", "lever off", "lever status"])
def test_what_is_asked_of_the_mesh_is_answered_as_json_where_wanted(name: str) -> None:
    assert any("--output" in each.opts for each in options(COMMANDS[name]))


@pytest.mark.parametrize("name", ["run", "gate", "plan", "runs list", "runs show"])
def test_what_is_learnt_is_answered_as_json_where_wanted(name: str) -> None:
    [flag] = [each for each in options(COMMANDS[name]) if "--output" in each.opts]

    assert isinstance(flag.type, click.Choice)
    assert "json" in flag.type.choices


def test_a_flag_that_is_of_no_use_is_taken_all_the_same() -> None:
    done = CliRunner().invoke(cli, ["version", "-q", "-vv"])

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("value", ["1", "yes please", "0"])
def test_any_value_of_no_color_is_taken(value: str) -> None:
    done = CliRunner(env={"NO_COLOR": value}).invoke(cli, ["version"])

    assert done.exit_code == 0, done.output
