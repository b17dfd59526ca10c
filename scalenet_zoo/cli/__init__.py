"""The command line: one file a command group, heavy imports inside the commands.

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
from scalenet_zoo.cli.options import as_flags
from scalenet_zoo.core.bounds import MESSAGE_CHARACTERS
from scalenet_zoo.core.errors import UsageError, ZooError
from scalenet_zoo.core.quoting import elide, printable
from scalenet_zoo.core.version import __version__

app = typer.Typer(
    name="scalenet-zoo",
    help="Searched network families: from a budget to a PyTorch network, an ONNX file, a TensorRT engine.",
    epilog="Example: scalenet-zoo build --flops 600M --export onnx",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would take longer than all the rest
)
COMMANDS: Mapping[str, Callable[..., None]] = {
    "list": zoo.list_command,
    "show": zoo.show_command,
    "build": build.build_command,
    "train": train.train_command,
    "export": export.export_command,
    "evaluate": evaluate.evaluate_command,
    "predict": predict.predict_command,
    "benchmark": benchmark.benchmark_command,
    "profile": profile.profile_command,
    "explore": explore.explore_command,
    "report": report.report_command,
    "pull": hub.pull_command,
    "push": hub.push_command,
    "search": search.search_command,
    "doctor": doctor.doctor_command,
}
for name, command in COMMANDS.items():
    app.command(name, cls=train.TrainCommand if name == "train" else None)(command)
app.add_typer(search.supernet, name="supernet")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scalenet-zoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    pass


def _expanded(argument: str) -> str:
    """An argument with the home folder for its `~`, which shells leave alone in `--output=~/runs`."""
    flag, path = match.groups() if (match := re.match(r"(--[\w-]+=)(.*)", argument, re.DOTALL)) else ("", argument)
    return flag + os.path.expanduser(path)  # noqa: PTH111 - a Path would change the text


class _Escaped(logging.Formatter):
    """Notices quote files: what controls terminals is shown escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Notices(logging.Handler):
    """Notices of the library, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(as_flags(self.format(record)), err=True)


def main() -> None:
    """Run the command line: the entry point of `scalenet-zoo`."""
    arguments = [_expanded(argument) for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the Hub's client tells of every retry
    notices, logger = _Notices(logging.WARNING), logging.getLogger("scalenet_zoo")
    logger.addHandler(notices)
    for handler in filter(None, (notices, logging.lastResort)):  # the last resort prints those of other libraries
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
    except BrokenPipeError:  # the reader, `head` say, has seen enough
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
