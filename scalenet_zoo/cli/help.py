"""Plain help in groups: commands and options under the headings of their `rich_help_panel`.

Typer groups help only through rich, and importing rich takes longer than all the rest of `--help`.
"""

from collections.abc import Iterable
from typing import Any

import typer.core

EXAMPLE = "Example: "
"""A paragraph of help that begins with this word is a command to copy: it stays on one line."""


class Command(typer.core.TyperCommand):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, D102 - typer's
        _write_options(self.get_params(ctx), ctx, formatter)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, D102
        _write_help(self.help or "", formatter)


class CommandGroup(typer.core.TyperGroup):
    """A group of commands whose help shows them in groups, in the order of work."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, D102 - typer's
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        room = formatter.width - 6 - max(len(name) for name, _ in commands)
        rows = ((_panel(command), (name, command.get_short_help_str(room))) for name, command in commands if command)
        _write_sections(rows, "Commands", formatter)
        _write_options(self.get_params(ctx), ctx, formatter)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, D102
        _write_help(self.help or "", formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, D102
        _write_help(self.epilog or "", formatter)


def _panel(of: Any) -> str | None:  # noqa: ANN401 - a command, an argument or an option of typer's
    """The heading that a command or an option belongs under; None: it has none."""
    return of.rich_help_panel if isinstance(of.rich_help_panel, str) else None


def _write_options(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:  # noqa: ANN401
    shown = [(each, record) for each in parameters if (record := each.get_help_record(ctx))]
    arguments = [("Arguments", record) for each, record in shown if each.param_type_name == "argument"]
    options = [(_panel(each), record) for each, record in shown if each.param_type_name == "option"]
    _write_sections(arguments, "Arguments", formatter)
    _write_sections(options, "Options", formatter)


def _write_sections(rows: Iterable[tuple[str | None, tuple[str, str]]], other: str, formatter: Any) -> None:  # noqa: ANN401
    """Write rows under their headings, in the order in which these first appear; rows without one come last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, row in rows:
        sections.setdefault(heading or other, []).append(row)
    for heading in sorted(sections, key=lambda heading: heading == other):  # sorted keeps the order of the rest
        with formatter.section(heading):
            formatter.write_dl(sections[heading])


def _write_help(text: str, formatter: Any) -> None:  # noqa: ANN401
    """Write paragraphs, wrapped, and examples as they are."""
    for paragraph in filter(None, text.split("\n\n")):
        formatter.write_paragraph()
        with formatter.indentation():
            if paragraph.startswith(EXAMPLE):
                formatter.write(f"{'':>{formatter.current_indent}}{paragraph}\n")
            else:
                formatter.write_text(paragraph)
