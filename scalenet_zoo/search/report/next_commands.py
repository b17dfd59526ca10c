"""The commands that follow a search: how to use what it found, or how to resume it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from scalenet_zoo.search.report.data import RunFiles
from scalenet_zoo.supernet.summary import SUPERNET_WEIGHTS


@dataclass(frozen=True)
class NextCommand:
    """A command line, and what it is for."""

    purpose: str
    command: str


def resume_command(run: RunFiles) -> list[NextCommand]:
    """Return the command that resumes a search; empty: the folder has no configuration."""
    if not run.config:
        return []
    folder = _path(run.folder)
    return [
        NextCommand(
            "Resume the search", shlex.join(["scalenet-zoo", "search", f"{folder}/config.yaml", "--output", folder])
        )
    ]


def network_commands(run: RunFiles, name: str) -> list[NextCommand]:
    """Return the commands for a network that was found; empty: its spec is not in RUN/specs yet.

    Args:
        run: the run.
        name: the name of the network.
    """
    if not (run.folder / "specs" / f"{name}.json").exists():
        return []
    folder, commands = _path(run.folder), []
    spec = f"{folder}/specs/{name}.json"
    if (run.folder / "supernet" / SUPERNET_WEIGHTS).exists():
        extract = ["scalenet-zoo", "supernet", "extract", folder, name, "--output", name]
        commands.append(NextCommand(f"Take {name} with the supernet's weights, without training", shlex.join(extract)))
    if isinstance(data := run.about.config.get("data") if run.about else None, str):
        train = ["scalenet-zoo", "train", spec, "--data", data, "--output", f"{folder}_{name}"]
        commands.append(NextCommand(f"Train {name} alone, for its best accuracy", shlex.join(train)))
    show = NextCommand(f"Show the layers and the cost of {name}", shlex.join(["scalenet-zoo", "show", spec]))
    return [*commands, show]


def family_command(run: RunFiles, macs: str) -> list[NextCommand]:
    """Return the command that builds a network of the family at a budget of MACs; empty: there is no family file."""
    path = run.folder / "family.json"
    if not path.exists():
        return []
    build = ["scalenet-zoo", "build", "--flops", macs, "--family", f"{_path(run.folder)}/family.json"]
    return [NextCommand("Compute a network of the family at another budget", shlex.join(build))]


def _path(folder: Path) -> str:
    """The folder as a command names it: relative to the working directory if it is below it."""
    absolute, here = folder.resolve(), Path.cwd()
    return (
        absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) and absolute != here else str(absolute)
    )
