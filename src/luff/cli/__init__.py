"""
The command line: one module per group of verbs, imported only when it is used.

Data goes to stdout, talk to stderr. Whatever happens ends in one of the exit
codes of the contract and never in a traceback.
"""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from typing import Any, cast

import click

from luff import __version__
from luff.cli.options import with_common_flags
from luff.cli.streams import OutputLost, flush, make_usable, mute, tell
from luff.errors import InvalidFile, LuffError

# httpx brings its own command line along, which is two fifths of what it costs to start, and this is another program.
sys.modules.setdefault("httpx._main", cast("Any", None))

__all__ = ["COMMANDS", "cli", "main", "mute", "tell", "tell_error"]

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("luff.cli.demo:demo", "Take the tour: a local mesh, the shipped experiments, a report."),
    "lab": ("luff.cli.lab:lab", "Run a local mesh with the real Envoy."),
    "plan": ("luff.cli.plan:plan", "Show what a run would change. Touches nothing."),
    "run": ("luff.cli.run:run", "Find out: run experiments now."),
    "gate": ("luff.cli.gate:gate", "Decide for a pipeline: go or stop."),
    "status": ("luff.cli.status:status", "Show what is injected right now, whoever did it."),
    "restore": ("luff.cli.restore:restore", "Put routes back. Needs a kubeconfig and nothing else."),
    "stop": ("luff.cli.stop:stop", "Stop runs; their routes are restored."),
    "lever": ("luff.cli.lever:lever", "The global stop."),
    "reaper": ("luff.cli.reaper:reaper", "Restore what runs left behind, for ever or --once."),
    "runs": ("luff.cli.runs:runs", "Look at history."),
    "trend": ("luff.cli.trend:trend", "Show what held over time, and since when it does not."),
    "report": ("luff.cli.report:report", "Write a report of stored runs or result files."),
    "serve": ("luff.cli.serve:serve", "Serve the HTTP API and the web UI."),
    "schedule": ("luff.cli.schedule:schedule", "Look at game days: when they are held, and when not and why."),
    "gameday": ("luff.cli.gameday:gameday", "Approve, start, pause, annotate and finish game days."),
    "selftest": ("luff.cli.selftest:selftest", "Every check against its planted defect."),
    "token": ("luff.cli.token:token", "Say who may use the server."),
    "db": ("luff.cli.db:db", "Look after the database."),
    "schema": ("luff.cli.schema:schema", "Print the JSON Schema of a kind."),
    "version": ("luff.cli.version:version", "Print the version."),
}
"""Every command: where it lives, and what the help says, so that the help imports none of them."""


GARBAGE_AFTER = 200_000
"""So many more objects are made than let go before garbage is looked for: a run starts with 150,000, and none of them is garbage."""


class LazyGroup(click.Group):
    """This imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return with_common_flags(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="luff", message="%(prog)s %(version)s")
def cli() -> None:
    """
    Break one hop of an Istio mesh for test traffic only, judge the callers, always put the routes back.

    Start with `luff demo`. Exit codes: 0 passed, 1 failed, 2 usage, 3 inconclusive, 4 aborted, 5 error,
    6 nothing selected, 7 restore not verified.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    make_usable()
    gc.set_threshold(GARBAGE_AFTER)  # to look again and again at what is imported takes a tenth of the time to start
    code = _run(sys.argv[1:])
    flush()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(args=arguments, prog_name="luff", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        tell("luff: interrupted", err=True)
        return 130
    except LuffError as error:
        tell_error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has left, as `head` does. What a run would have said is lost, so this is no 0.
        mute(sys.stdout)
        return 141
    except OutputLost as error:
        tell(f"luff: not all could be written to stdout: {error}", err=True)
        return LuffError.exit_code
    except Exception as error:  # the outermost edge: a person must get a sentence, not a traceback
        from luff.cli.places import keep_traceback

        where = keep_traceback(traceback.format_exc())
        tell(f"luff: internal error: {type(error).__name__}: {error}", err=True)
        tell(f"next: report it with {where}; `luff status` shows whether anything is injected", err=True)
        return 5
    return code if isinstance(code, int) else 0


def tell_error(error: LuffError) -> None:
    """Say on stderr what *error* is, and what to do about it."""
    if isinstance(error, InvalidFile):
        tell(str(error), err=True)
        count = len(error.problems)
        tell(f"luff: {count} problem{'s' if count != 1 else ''}; nothing was run", err=True)
        return
    tell(f"luff: {error.message}", err=True)
    if error.next_step:
        tell(f"next: {error.next_step}", err=True)
