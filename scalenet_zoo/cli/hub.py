"""`pull` and `push`: networks with their weights, from the Hugging Face Hub and to it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from scalenet_zoo.cli.options import Json

Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit; the main branch if not given.")]


def pull_command(
    repository: Annotated[str, typer.Argument(help="As org/name, hf-hub:org/name, or either with @revision.")],
    revision: Revision = None,
    output: Annotated[Path | None, typer.Option(help="The folder to write; by default NAME in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Download a network with its weights and card into a folder, and check it.

    Commands take hf-hub:org/name as well, from the Hub's cache; a folder is a copy to keep.

    Example: scalenet-zoo pull org/name --output my-network
    """
    from scalenet_zoo.cli.console import print_json
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
    typer.echo(
        f"{spec.name}: {spec.task}, {spec.classes} classes, {format_count(spec.cost.macs)} MACs,"
        f" {format_count(spec.cost.params)} parameters, input {spec.input.height}x{spec.input.width}"
    )
    for file in files:
        typer.echo(f"wrote {file} ({file.stat().st_size:,} bytes)")
    typer.echo(f"for other commands: local-dir:{pulled.path}")


def push_command(
    folder: Annotated[Path, typer.Argument(help="A folder of `train` (its best network) or `pull`, or a checkpoint.")],
    repository: Annotated[str, typer.Argument(help="As org/name; made if there is none.")],
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is private; an old one must be.")
    ] = False,
    license: Annotated[  # noqa: A002 - the Hub's name
        str | None,
        typer.Option("--license", "--licence", help="Of the weights, by the Hub's name: apache-2.0, mit, ..."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, made if there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Upload a network with its weights and a model card to the Hugging Face Hub.

    The card is made from what is known of the network: measured figures, training data, the command that reproduces
    it; a README.md in the folder is taken instead. Log in first: `hf auth login`, or HF_TOKEN.

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
