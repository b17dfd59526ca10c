"""Every public name is documented, with each argument and what it returns, and it is in the Python reference."""

from pathlib import Path

import griffe
import pytest

import scalenet_zoo
from scalenet_zoo.core import errors
from tests.helpers.docs import ROOT, page

NAMES = [name for name in scalenet_zoo.__all__ if not name.startswith("__")]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> griffe.Module:
    """The package's source, read and not imported."""
    folder = tmp_path_factory.mktemp("source") / "scalenet_zoo"
    folder.mkdir()
    for path in (*(ROOT / "scalenet_zoo").iterdir(), ROOT / "export", ROOT / "searched_archs"):
        (folder / path.name).symlink_to(path)
    found = griffe.load("scalenet_zoo", search_paths=[folder.parent], allow_inspection=False, try_relative_path=False)
    assert isinstance(found, griffe.Module)
    return found


def undescribed(function: griffe.Function) -> set[str]:
    """The arguments that a docstring leaves out."""
    sections = function.docstring.parse("google") if function.docstring else []
    described = {
        argument.name.lstrip("*")
        for section in sections
        if isinstance(section, griffe.DocstringSectionParameters)
        for argument in section.value
    }
    return {parameter.name.lstrip("*") for parameter in function.parameters} - described


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name: str, package: griffe.Module) -> None:
    found = package[name].final_target
    assert found.docstring
    assert found.docstring.value.splitlines()[0].rstrip().endswith((".", ":", "`."))
    assert f"::: scalenet_zoo.{name}\n" in page("reference/python.md")
    if isinstance(found, griffe.Function):
        assert not undescribed(found)
        assert found.returns is not None
        assert all(parameter.annotation is not None for parameter in found.parameters)


def test_what_public_functions_return_is_in_the_reference(package: griffe.Module) -> None:
    reference = page("reference/python.md")
    known = {line.removeprefix("::: ").rpartition(".")[2] for line in reference.splitlines() if line.startswith("::: ")}
    for name in NAMES:
        found = package[name].final_target
        if isinstance(found, griffe.Function):
            returned = str(found.returns).strip("'\"").removeprefix("list[").rstrip("]")
            assert returned in known | {"nn.Module", "CommitInfo", "str"}, name


def test_every_error_has_its_docstring(package: griffe.Module) -> None:
    module = package["core.errors"]
    for name in errors.__dict__:
        if name.endswith("Error"):
            assert module[name].docstring, name


def test_an_argument_without_words_is_found(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        'def f(a: int, b: int = 1) -> int:\n    """Add.\n\n    Args:\n        a: one.\n    """\n'
    )
    module = griffe.load("made", search_paths=[tmp_path], allow_inspection=False)
    assert undescribed(module["f"]) == {"b"}
