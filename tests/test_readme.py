"""README.md stays short, and its commands print what it says."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scalenet_zoo
from scalenet_zoo.data.image_files import sample_photographs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
OF_THE_MACHINE = re.compile(r"bytes|latency|difference")
"""Lines with figures that depend on the machine and on versions of libraries."""


def sessions(text: str) -> list[tuple[str, list[str]]]:
    """The commands of the console blocks that show output, each with its lines."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in block.removeprefix("$ ").split("\n$ "):
            command, *lines = part.rstrip("\n").split("\n")
            if lines:
                found.append((command, lines))
    return found


def alike(shown: str, printed: str) -> bool:
    """Whether two lines have the same words, and numbers that differ by rounding alone."""
    start = shown.removeprefix("...") if shown.startswith("...") else None
    if start is not None:
        return printed.endswith(start)
    if re.split(r"\s+", NUMBER.sub("N", shown)) != re.split(r"\s+", NUMBER.sub("N", printed)):
        return False
    if OF_THE_MACHINE.search(shown):
        return True
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(
        float(one.replace(",", "")) == pytest.approx(float(two.replace(",", "")), rel=1e-3) for one, two in pairs
    )


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300
    prose = [
        line for line in re.sub(r"```.*?```", "", README, flags=re.DOTALL).splitlines() if not line.startswith("|")
    ]
    assert max(map(len, prose)) <= 120


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", re.sub(r"\s+", " ", README))
    assert len(links) >= 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_families_are_those_of_the_zoo() -> None:
    names = scalenet_zoo.list_models()
    assert f"all {len(names)} networks" in README
    assert f"{len(scalenet_zoo.list_models(pretrained=True))} of them have published weights" in README
    rows = [line.split("|") for line in README.splitlines() if re.match(r"\| .* \| \d+ \|", line)]
    assert sum(int(row[3]) for row in rows) == len(names)


@pytest.mark.slow
def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in sample_photographs():
        shutil.copy(path, "photos")
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})
    assert "palace" in capsys.readouterr().out


def test_a_line_that_says_something_else_is_seen() -> None:
    shown = "china.jpg 1  class 698, palace, probability 0.245349"
    assert alike(shown, "china.jpg 1 class 698, palace, probability 0.24535")
    assert not alike(shown, "china.jpg 1 class 698, castle, probability 0.245349")
    assert not alike(shown, "china.jpg 1 class 698, palace, probability 0.35")
    assert alike("latency, 1 image  11.13 ms  3.76 ms", "latency, 1 image  14.20 ms  5.1 ms")


@pytest.mark.slow
def test_the_commands_print_what_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    shown = sessions(README)
    assert [command.split()[1] for command, _ in shown] == ["build", "export", "predict"]
    for command, lines in shown:
        words = shlex.split(command)
        assert words[0] == "scalenet-zoo"
        done = subprocess.run(
            [sys.executable, "-m", "scalenet_zoo", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed = done.stdout.rstrip("\n").split("\n")
        assert len(printed) == len(lines), done.stdout
        for line, text in zip(lines, printed, strict=True):
            assert alike(line, text), f"{command}: README has {line!r}, found {text!r}"
