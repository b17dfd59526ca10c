"""The page about the command line, from the commands themselves."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from scalenet_zoo.cli import app
from tools.docs.markdown import cell, escaped

NOUNS = {"Arguments": "argument"}
OTHER = "Options"  # the heading of flags that belong to no group


def cli_page() -> str:
    """Write the CLI reference: each command's help, usage, arguments and options by group, as Markdown."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="scalenet-zoo")
    commands = list(_commands(group, context, "scalenet-zoo", ""))
    panels: dict[str, list[str]] = {}
    for name, command, panel in commands:
        link = f"[`{name.removeprefix('scalenet-zoo ')}`](#{_anchor(name)})"
        panels.setdefault(panel, []).append(f"| {link} | {cell(_with_flags(_first_line(command)))} |")
    index = "\n\n".join(
        "\n".join((*((f"**{panel}**", "") if panel else ()), "| command | what it does |", "| --- | --- |", *rows))
        for panel, rows in panels.items()
    )
    sections = "\n\n".join(_section(name, command, context) for name, command, _ in commands)
    return (
        "# CLI reference\n\n"
        "`scalenet-zoo COMMAND --help` prints the same text. This page is generated from the commands.\n\n"
        "- `--json` prints the result as JSON; progress and warnings go to standard error.\n"
        "- `--debug`, anywhere in a command, shows the traceback of an error.\n"
        "- The exit code is 0 after success, 1 after an error, 2 after a wrong flag or value, 130 after Ctrl-C.\n\n"
        f"{index}\n\n{sections}\n"
    )


def _commands(group: Any, context: Any, prefix: str, panel: str) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401
    """All commands, those of subgroups included, with their whole names and the group that help shows them in."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        shown_in = command.rich_help_panel if isinstance(command.rich_help_panel, str) else panel
        if hasattr(command, "list_commands"):
            yield from _commands(command, context, f"{prefix} {name}", shown_in)
        else:
            yield f"{prefix} {name}", command, shown_in


def _section(name: str, command: Any, context: Any) -> str:  # noqa: ANN401
    lines = [f"## `{name}` {{ #{_anchor(name)} }}", "", *_help(command)]
    parameters = [(parameter, parameter.get_help_record(context)) for parameter in command.get_params(context)]
    taken = [(parameter, record) for parameter, record in parameters if parameter.param_type_name == "argument"]
    arguments = [record for _, record in taken if record]
    usage = " ".join((name, *(_metavar(parameter) for parameter, _ in taken), "[OPTIONS]"))
    lines += ["", "```text", usage, "```"]
    groups: dict[str, list[tuple[str, str]]] = {"Arguments": arguments} if arguments else {}
    for parameter, record in parameters:
        if record and parameter.param_type_name == "option" and record[0] != "--help":
            panel = parameter.rich_help_panel
            groups.setdefault(panel if isinstance(panel, str) else OTHER, []).append(record)
    for heading, records in groups.items():
        lines += ["", f"**{heading}**", "", f"| {NOUNS.get(heading, 'flag')} | meaning |", "| --- | --- |"]
        lines += [f"| {_flag(flag)} | {cell(_with_flags(about))} |" for flag, about in records]
    return "\n".join(lines)


def _metavar(argument: Any) -> str:  # noqa: ANN401
    """An argument's name for the usage line: in brackets if it is optional, with dots if there may be several."""
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _with_flags(text: str) -> str:
    """Mark the flags in a text as code, so that none is broken between lines."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"(?<![\w-])(--\w[\w-]*)", r"`\1`", part) for part in parts)


def _flag(flag: str) -> str:
    return f"`{flag}`".replace("|", "\\|")


def _help(command: Any) -> list[str]:  # noqa: ANN401
    """The help text as paragraphs, its examples as a block of commands."""
    lines: list[str] = []
    examples: list[str] = []
    text = command.help or ""
    for line in (*text.splitlines(), *(command.epilog or "").splitlines()):
        found = re.match(r"\s*(?:Example: )?(?:\$ )?((?:HF_\w+=\S+ )?(?:scalenet-zoo|torchrun) .*)", line)
        if found:
            examples.append(found[1].strip())
        elif line.strip() not in ("Example:", "Examples:"):
            lines.append(escaped(_with_flags(line.rstrip())))
    if examples:
        lines += ["", "```console", *(f"$ {example}" for example in examples), "```"]
    return lines


def _first_line(command: Any) -> str:  # noqa: ANN401
    return (command.help or "").strip().split("\n\n")[0].replace("\n", " ")


def _anchor(name: str) -> str:
    return name.removeprefix("scalenet-zoo ").replace(" ", "-")
