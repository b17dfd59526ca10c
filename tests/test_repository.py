"""The files around the code (workflows, hooks, forms, citation, changelog) are valid and agree with the project."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pre_commit.clientlib import load_config

from scalenet_zoo import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PYTHONS = [name.split(" :: ")[-1] for name in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]


def _steps(workflow: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(job, step) for job in workflow["jobs"].values() for step in job["steps"]]


# --- workflows and hooks --------------------------------------------------------------------------


def test_workflows_follow_githubs_schema() -> None:
    assert {path.stem for path in WORKFLOWS} == {"ci", "nightly"}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *WORKFLOWS,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_that_exist(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    made = set()
    for job, step in _steps(workflow):
        command = step.get("run", "")
        if command == 'make "$TARGET"':
            made |= set(job["strategy"]["matrix"]["target"])
        elif command.startswith("make "):
            made |= set(command.removeprefix("make ").split())
    assert made
    assert made <= TARGETS
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_tests_run_on_every_python_of_the_metadata() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"


def test_all_checks_run_in_some_workflow() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    targets = (
        "lint",
        "types",
        "test",
        "test-slow",
        "test-nightly",
        "test-fuzz",
        "test-lowest",
        "coverage",
        "docs",
        "package",
    )
    assert [target for target in targets if not re.search(rf"\b{target}\b", text)] == []


def test_hooks_run_what_is_installed() -> None:
    config = load_config(ROOT / ".pre-commit-config.yaml")
    required = " ".join(PROJECT["project"]["optional-dependencies"]["dev"])
    for repository in config["repos"]:
        assert repository["repo"] == "local"  # nothing is fetched
        for hook in repository["hooks"]:
            program, *rest = hook["entry"].split()
            if program == "make":
                assert set(rest) <= TARGETS
            else:
                assert Path(program).parent == Path(".venv/bin")
                assert Path(program).name in required


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms(path: Path) -> None:
    """The rules of GitHub's syntax for issue forms that a mistake would break."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "body", "labels", "title"}
    fields = [element for element in form["body"] if element["type"] != "markdown"]
    assert fields
    for element in form["body"]:
        assert element["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert set(element) <= {"type", "id", "attributes", "validations"}
    assert len({element["id"] for element in fields}) == len(fields)
    assert all(element["attributes"]["label"] for element in fields)
    assert all(isinstance(element["validations"]["required"], bool) for element in fields)


# --- versions -------------------------------------------------------------------------------------


def test_the_changelog_begins_with_what_is_not_released_and_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[0] == "Unreleased"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert heads[1] == f"{__version__} ({citation['date-released']})"
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert {reference["title"].partition(":")[0] for reference in citation["references"]} == {"ScaleNet", "ScaleNAS"}


# --- CONTRIBUTING.md ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_that_a_text_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    places = (ROOT, ROOT / "scalenet_zoo")
    paths = {path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if "FAMILY" not in path and "NAME" not in path}
    paths = {path for path in paths if not path.startswith((".venv", "build/", ".git/"))}
    missing = {path for path in paths if not any((place / path).exists() for place in places)}
    # `search/method.Method` and the like: a name in a module
    for path in sorted(missing):
        module, _, member = path.rpartition(".")
        files = [place / f"{module}.py" for place in places]
        found = [file for file in files if file.exists()]
        assert found, f"{name}: {path}"
        assert re.search(rf"\b{member}\b", found[0].read_text(encoding="utf-8")), f"{name}: {path}"
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)", text)) - {"sure"} <= TARGETS | {"types"}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("scalenet_zoo/core/backends.py", "_PROBES"),
        ("scalenet_zoo/latency/runners.py", "_step"),
        ("scalenet_zoo/latency/precisions.py", "QUANTISED_ON"),
        ("export/quantisation.py", "SCHEMES"),
        ("scalenet_zoo/search/methods.py", "CONFIGS open_run"),
        ("scalenet_zoo/search/report/page.py", "REPORTS"),
        ("scalenet_zoo/search/report/data.py", "METHODS"),
        ("scalenet_zoo/data/forms.py", "FORMS _ON_DISK"),
        ("scalenet_zoo/data/sources.py", "_open"),
    ],
)
def test_the_recipes_name_what_the_code_has(path: str, names: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = (ROOT / path).read_text(encoding="utf-8")
    for name in names.split():
        assert f"`{name}`" in text
        assert re.search(rf"^(def {name}\(|{name}\b)", code, re.MULTILINE)
