"""ARCHITECTURE.md says what is true: its layers are import-linter's, its modules those that there are."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LAYERS = TEXT.partition("\n## Layers\n")[2].partition("\n## ")[0]


def test_the_layers_are_the_contracts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert re.findall(r"^    (\w+) ", LAYERS, re.M) == settings["contracts"][0]["layers"]


def test_every_module_is_named_where_it_is() -> None:
    named: dict[str, set[str]] = {}
    layer = part = ""
    for line in LAYERS.splitlines():
        if found := re.match(r" {4}(\w+) ", line):
            layer = part = found[1]
        elif found := re.match(r" {6}(\w+) ", line):
            part = f"{layer}/{found[1]}"
        if part and line.startswith("    "):
            named.setdefault(part, set()).update(re.findall(r"\b(\w+\.py)\b", line))
    folders = {name: ROOT / ("" if name.partition("/")[0] == "export" else "scalenet_zoo") / name for name in named}
    there = {
        name: {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        for name, folder in folders.items()
        if folder.is_dir()
    }
    command_groups = there.pop("cli") - named.pop("cli")  # one file a command group: not listed
    assert {"build.py", "export.py"} <= command_groups
    for module in ("building", "budgets"):
        named.pop(module)
    assert named == there


def test_documents_name_files_that_there_are() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|md|yaml))`", document.read_text(encoding="utf-8")):
            assert (ROOT / name).exists() or (ROOT / "scalenet_zoo" / name).exists(), f"{document.name}: {name}"
