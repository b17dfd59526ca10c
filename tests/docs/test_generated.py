"""The generated pages say what the code has: every entry, every command and flag, every field."""

import re
from typing import Any

import typer

from scalenet_zoo.arch.schemas import SCHEMAS
from scalenet_zoo.cli import app
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.published import published_entries
from tools.docs.cli_page import cli_page
from tools.docs.formats_page import formats_page
from tools.docs.markdown import cell, escaped
from tools.docs.zoo_page import zoo_page


def rows(page: str) -> list[list[str]]:
    """The cells of all rows of a page's tables."""
    return [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in page.splitlines() if line.startswith("|")]


def test_the_zoo_page_has_every_entry_and_its_costs() -> None:
    page = zoo_page()
    table = {row[0].strip("`"): row for row in rows(page) if row[0].startswith("`")}
    assert sorted(table) == list_models()
    assert table["scalenet_s0"][1:4] == ["224x224", "352.7M", "4.443M"]
    assert table["efficientnet_b0"][4:6] == ["78.6", "77.1 (paper)"]
    assert table["scalenas_p2"][4] == "75.2 AP, % (paper)"
    assert {name for name, row in table.items() if row[-1]} == set(published_entries())
    assert page.startswith(f"{len(table)} entries, {len(published_entries())} of them with published weights.")


def test_the_cli_page_has_every_command_with_its_flags() -> None:
    sections = dict(
        re.findall(r"^## `scalenet-zoo ([\w -]+)`.*?\n(.*?)(?=^## |\Z)", cli_page(), re.DOTALL | re.MULTILINE)
    )
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="scalenet-zoo")
    supernet = group.commands["supernet"].commands
    commands = {name: command for name, command in group.commands.items() if name != "supernet"}
    commands |= {f"supernet {name}": command for name, command in supernet.items()}
    assert set(sections) == set(commands)
    for name, command in commands.items():
        flags = {row[0].strip("`").split()[0] for row in rows(sections[name]) if row[0].startswith("`")}
        wanted = {parameter.get_help_record(context)[0].split()[0] for parameter in command.get_params(context)}
        assert wanted - {"--help"} <= flags, name
        assert "```console\n$ " in sections[name], f"{name}: no example"
    assert "--model-ema-decay" in sections["train"]


def test_the_formats_page_has_every_field() -> None:
    page = formats_page()
    for kind in SCHEMAS.values():
        schema = kind.model_json_schema()
        for part in (schema, *filter(None, schema["$defs"].values())):
            for field in part["properties"]:
                assert f"| `{field}` |" in page
    stages = next(row for row in rows(page) if row[0] == "`stages`")
    assert stages[1] == "array (1 to 32 items) of array (1 to 256 items) of [Layer](#arch-layer)"
    assert all(len(row) == 4 for row in rows(page))
    anchors = set(re.findall(r"\{ #([\w-]+) \}", page))
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= anchors


def test_what_is_markup_is_escaped_outside_code() -> None:
    assert escaped("a_b [x] `a_b [x]` 1<2") == r"a\_b \[x] `a_b [x]` 1\<2"
    assert cell("one | two\n  three") == r"one \| two three"
