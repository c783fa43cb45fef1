"""What every command has: the common flags, and a variable for each of its own but for consent."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from luff.cli import cli

CONSENT = {"--yes", "--all", "--accept-inert-leftover"}


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
        if CONSENT & set(each.opts):
            assert each.envvar is None, each.opts
        elif not {"--help", "--kubeconfig"} & set(each.opts):
            assert str(each.envvar).startswith("LUFF_"), each.opts


@pytest.mark.parametrize("name", ["status", "stop", "restore", "lever on", "lever off", "lever status"])
def test_what_is_asked_of_the_mesh_is_answered_as_json_where_wanted(name: str) -> None:
    assert any("--output" in each.opts for each in options(COMMANDS[name]))


def test_a_flag_that_is_of_no_use_is_taken_all_the_same() -> None:
    done = CliRunner().invoke(cli, ["version", "-q", "-vv"])

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("value", ["1", "yes please", "0"])
def test_any_value_of_no_color_is_taken(value: str) -> None:
    done = CliRunner(env={"NO_COLOR": value}).invoke(cli, ["version"])

    assert done.exit_code == 0, done.output
