"""The command line: one file a command group, heavy imports inside the commands.

Errors are one line on standard error and an exit code above 0; `--debug` shows the traceback.
"""

import os
import sys
import traceback
from typing import Annotated

import typer

from scalenet_zoo import __version__
from scalenet_zoo.cli import build, doctor, export, predict, zoo
from scalenet_zoo.errors import ZooError

app = typer.Typer(
    name="scalenet-zoo",
    help="Searched network families: from a budget to a PyTorch network and an ONNX file.",
    epilog="Example: scalenet-zoo build --flops 600M --export onnx",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would take longer than all the rest
)
for command in (zoo.list_entries, zoo.show, build.build, export.export, predict.predict, doctor.doctor):
    app.command(name="list" if command is zoo.list_entries else command.__name__)(command)


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


def main() -> None:
    """Run the command line: the entry point of `scalenet-zoo`."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the Hub's client tells of every retry
    try:
        code = app(arguments, standalone_mode=False)
    except ZooError as error:
        code = _fail(str(error), 1, debug)
    except typer.TyperException as error:  # wrong usage
        code = _fail(error.format_message(), 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        code = _fail("interrupted", 130, debug)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        code = 0
    except Exception as error:
        code = _fail(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (a bug; --debug shows where)", 1, debug
        )
    sys.exit(code)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"error: {message}", err=True)
    return code
