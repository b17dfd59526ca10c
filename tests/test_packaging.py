"""The wheel and the sdist: their contents and metadata, and that they work where nothing else is installed."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from scalenet_zoo import __version__

ROOT = Path(__file__).parent.parent
PACKAGED = (
    "core/page.css",
    "py.typed",
    "explore/page.html",
    "explore/page.js",
    "zoo/model_card.md",
    "training/recipes/quick.yaml",
    "search/configs/digits.yaml",
    "latency/comparison/page.html",
    "latency/comparison/sort.js",
    "search/report/report.html",
    "search/report/report.js",
    "spaces/packaged/scalenas/scalenas_pose.yaml",
    "spaces/packaged/scalenet/scalenet.yaml",
    "supernet/scalenet/recipe.yaml",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, a wheel that was built from the sdist, and what was printed."""
    folder = tmp_path_factory.mktemp("dist")
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    (folder / "build.log").write_text(result.stdout + result.stderr, encoding="utf-8")
    return folder


def _metadata(built: Path) -> Message:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_build_warns_of_nothing(built: Path) -> None:
    log = (built / "build.log").read_text(encoding="utf-8")
    assert "Successfully built" in log
    assert re.findall(r".*(?:warning|deprecat).*", log, re.IGNORECASE) == []


def test_twine_accepts_the_files(built: Path) -> None:
    files = sorted(map(str, (*built.glob("*.whl"), *built.glob("*.tar.gz"))))
    result = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("PASSED") == 2


def test_the_metadata(built: Path) -> None:
    metadata = _metadata(built)
    assert (metadata["Name"], metadata["Version"]) == ("scalenet-zoo", __version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "The scalenet-zoo developers"
    assert metadata["Description-Content-Type"] == "text/markdown"
    classifiers = metadata.get_all("Classifier") or []
    assert "Typing :: Typed" in classifiers
    assert not [each for each in classifiers if each.startswith("License ::")]  # the expression says it


def test_sdist_and_wheel_hold_the_zoo(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for folder in ("scalenet", "scalenas", "baselines"):
        for path in (ROOT / "searched_archs" / folder).iterdir():
            assert f"scalenet_zoo/searched_archs/{folder}/{path.name}" in names
    assert "scalenet_zoo/searched_archs/arch.schema.json" in names
    assert "scalenet_zoo/export/onnx.py" in names
    assert {f"scalenet_zoo/{name}" for name in PACKAGED} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"scalenet_zoo", f"{wheel.name.split('-py3')[0]}.dist-info"}  # nothing called `export`
    with tarfile.open(sdist) as source:
        members = source.getnames()
    assert any(name.endswith("/searched_archs/scalenet/scalenet_s0.json") for name in members)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-deps", wheel], check=True)
    # Its requirements take gigabytes: borrow those of this environment, after the wheel itself on the path.
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = tmp_path / "env" / "bin" / "scalenet-zoo"

    def run(*arguments: str) -> str:
        result = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "scalenet_s0" in run("list")
    assert "352,691,328" in run("show", "scalenet_s0")
    where = "import scalenet_zoo.export.onnx as e, scalenet_zoo.zoo.catalog as z; print(e.__file__, z.__file__)"
    places = subprocess.run(
        [python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert all(place.startswith(str(site)) for place in places)


@pytest.mark.nightly
def test_the_wheel_brings_its_requirements(built: Path, tmp_path: Path) -> None:
    """Takes some 5 GB and minutes: everything is installed from scratch."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / "bin"
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    subprocess.run([scripts / "python", "-m", "pip", "check"], check=True)
    result = subprocess.run(
        [scripts / "scalenet-zoo", "build", "--flops", "600M", "--export", "onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "largest difference" in result.stdout
