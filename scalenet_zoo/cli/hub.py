"""`pull` and `push`: networks with their weights on the Hugging Face Hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import Json

Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit; the main branch if not given.")]


def pull_command(
    repository: Annotated[str, typer.Argument(help="org/name or hf-hub:org/name; either may end with @revision.")],
    revision: Revision = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write to; NAME in this folder if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a network from the Hugging Face Hub.

    Writes its spec, weights and model card to a folder, and checks them. The other commands also take hf-hub:org/name,
    which they keep in the Hub's cache; `pull` makes a copy of your own.

    Example: scalenet-zoo pull org/name --output my-network
    """
    from scalenet_zoo.cli.console import print_json, say
    from scalenet_zoo.core.quantities import format_count
    from scalenet_zoo.zoo.publish import pull

    pulled = pull(repository, output, revision)  # the client shows its own progress
    spec = pulled.spec
    files = sorted(pulled.path.iterdir())
    if as_json:
        print_json(
            {
                **spec.model_dump(mode="json", include={"name", "task", "input", "classes", "cost", "provenance"}),
                "hash": spec.hash,
                "folder": str(pulled.path),
                "files": [file.name for file in files],
            }
        )
        return
    say(
        f"{spec.name}: {spec.task}, {spec.classes} classes, {format_count(spec.cost.macs)} MACs,"
        f" {format_count(spec.cost.params)} parameters, input {spec.input.height}x{spec.input.width}"
    )
    for file in files:
        say(f"wrote {file} ({file.stat().st_size:,} bytes)")
    say(f"use it in other commands as local-dir:{pulled.path}")


def push_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder of `train`, whose best network is uploaded, a folder of `pull`, or a checkpoint."
        ),
    ],
    repository: Annotated[str, typer.Argument(help="org/name; created if it does not exist.")],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository; one that exists must be private already.")
    ] = False,
    license: Annotated[  # noqa: A002 - the Hub's name
        str | None,
        typer.Option(
            "--license", "--licence", help="The licence of the weights, by the Hub's name: apache-2.0, mit, ..."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch; created if it does not exist.")] = None,
    message: Annotated[str | None, typer.Option(help="The message of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Upload a network to the Hugging Face Hub.

    The weights come with a model card that states measured figures, the training data, and the command that reproduces
    the network. A README.md in the folder replaces the card. Log in first, with `hf auth login` or HF_TOKEN.

    Example: scalenet-zoo push runs/scalenet_s0 org/name --license apache-2.0
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from scalenet_zoo.cli.console import print_json
    from scalenet_zoo.zoo.publish import push

    if not sys.stderr.isatty():
        disable_progress_bars()
    commit = push(folder, repository, private, revision, message, license)
    if as_json:
        print_json({"repository": repository, "commit": commit.oid, "url": commit.commit_url})
        return
    typer.echo(f"pushed {folder} to {repository}: {commit.commit_url}")
