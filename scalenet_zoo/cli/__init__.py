"""The command line: one file per group of commands; each command imports what is slow to import when it runs.

Errors are one line on standard error and an exit code above 0; `--debug` shows the traceback.
"""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from scalenet_zoo.cli import (
    benchmark,
    build,
    doctor,
    evaluate,
    explore,
    export,
    hub,
    predict,
    profile,
    report,
    search,
    train,
    zoo,
)
from scalenet_zoo.cli.help import Command, CommandGroup
from scalenet_zoo.cli.options import as_flags
from scalenet_zoo.core.bounds import MESSAGE_CHARACTERS
from scalenet_zoo.core.errors import UsageError, ZooError
from scalenet_zoo.core.quoting import elide, printable
from scalenet_zoo.core.version import __version__


class _Commands(CommandGroup):
    def list_commands(self, ctx: object) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]


app = typer.Typer(
    name="scalenet-zoo",
    cls=_Commands,
    help="Families of searched networks: from a budget to a PyTorch network, an ONNX file or a TensorRT engine.",
    epilog="Example: scalenet-zoo build --flops 600M --export onnx",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes longer than all the rest
)
COMMANDS: Mapping[str, Mapping[str, Callable[..., None] | typer.Typer]] = {
    "Choose and build a network": {
        "list": zoo.list_command,
        "show": zoo.show_command,
        "build": build.build_command,
        "predict": predict.predict_command,
    },
    "Train and evaluate": {
        "train": train.train_command,
        "evaluate": evaluate.evaluate_command,
    },
    "Search a family": {
        "search": search.search_command,
        "supernet": search.supernet,
        "report": report.report_command,
    },
    "Export and measure": {
        "export": export.export_command,
        "benchmark": benchmark.benchmark_command,
        "profile": profile.profile_command,
        "explore": explore.explore_command,
        "doctor": doctor.doctor_command,
    },
    "Share": {
        "push": hub.push_command,
        "pull": hub.pull_command,
    },
}
"""The commands in the order of work, in the groups that help shows."""

for panel, group in COMMANDS.items():
    for name, command in group.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, cls=train.TrainCommand if name == "train" else Command, rich_help_panel=panel)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scalenet-zoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere in a command.")
    ] = False,
) -> None:
    pass


def _expanded(argument: str) -> str:
    """Replace `~` by the home folder; shells do not expand it in `--output=~/runs`."""
    flag, path = match.groups() if (match := re.match(r"(--[\w-]+=)(.*)", argument, re.DOTALL)) else ("", argument)
    return flag + os.path.expanduser(path)  # noqa: PTH111 - a Path would change the text


class _Escaped(logging.Formatter):
    """Escapes the characters that control terminals, because notices quote files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Notices(logging.Handler):
    """Prints the notices of the library as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(as_flags(self.format(record)), err=True)


def main() -> None:
    """Run the command line: the entry point of `scalenet-zoo`."""
    arguments = [_expanded(argument) for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the Hub's client reports every retry
    notices, logger = _Notices(logging.WARNING), logging.getLogger("scalenet_zoo")
    logger.addHandler(notices)
    for handler in filter(None, (notices, logging.lastResort)):  # the last resort prints the notices of other libraries
        handler.setFormatter(_Escaped())
    stopped = False

    def stop(*_: object) -> None:  # an exception, so that temporary files are removed
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    code, message = 0, ""
    failure: Exception | None = None
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except UsageError as error:
        code, message, failure = 2, f"Invalid value: {as_flags(str(error))}", error
    except ZooError as error:
        code, message, failure = 1, str(error), error
    except typer.TyperException as error:  # wrong usage
        code, message, failure = 2, error.format_message(), error
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the reader, such as `head`, needs no more
        sys.stderr.close()
    except OSError as error:
        code, message, failure = 1, f"{error.filename or 'input or output'}: {error.strerror or error}", error
    except Exception as error:  # the last resort: a bug still ends in one line
        message = f"unexpected {type(error).__name__}: {error} (a bug; --debug shows where)"
        code, failure = 1, error
    finally:
        logger.removeHandler(notices)
    if stopped:  # libraries turn an interrupt into errors of their own, typer into an exit code
        code, message = 130, "interrupted"
    if debug and failure:
        traceback.print_exception(failure)
    if message:
        typer.echo(f"error: {elide(printable(' '.join(message.split())), MESSAGE_CHARACTERS)}", err=True)
    sys.exit(code)
