"""`supernet extract`: networks of a run's space with the supernet's weights, by name or at a budget."""

from pathlib import Path

import pytest

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.search.run_search import extract_found
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from tests.helpers.command import Run
from tests.helpers.search_config import HERE, write_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole search whose supernet has one side."""
    from scalenet_zoo.search.run_search import run_search
    from tests.helpers.search_config import CONFIG

    home = tmp_path_factory.mktemp("extract")
    supernet = {**CONFIG["supernet"], "sides": "left"}
    config = write_config(home, supernet=supernet, baselines=[])
    run_search(config, home / "run", workers=0, cpu=True)
    return home / "run"


def test_a_network_that_was_found(folder: Path, run: Run, tmp_path: Path) -> None:
    """The folder has the network that was scored: one-sided, so that a single path is judged."""
    found = ScaleNetLedger.load(folder / "search" / "joint.json").found
    printed = run.json("supernet", "extract", folder, "toy_s1", "--output", tmp_path / "model", *HERE)
    assert printed["top1"] == pytest.approx(found[1].score, abs=1e-6)
    assert printed["cost"]["macs"] == found[1].macs
    network = create_model(tmp_path / "model")
    spec = spec_of(network)
    assert spec.hash == ArchSpec.load(folder / "specs" / "toy_s1.json").hash
    (result,) = spec.provenance.results
    assert (result.metric, result.value, result.data) == ("supernet_top1", printed["top1"], "digits val")
    figures = run.json("evaluate", tmp_path / "model", "--data", "digits", "--limit", "40", "--workers", "0")
    assert figures["metrics"]["top1"] == pytest.approx(printed["top1"], abs=1e-6)


def test_the_best_of_some_at_a_budget(folder: Path, run: Run, tmp_path: Path) -> None:
    printed = run.json("supernet", "extract", folder, "--flops", "300K", "--output", tmp_path / "model", *HERE)
    spec = spec_of(create_model(tmp_path / "model"))
    assert spec.name == printed["network"] == "toy_300k"
    assert 270_000 <= spec.cost.macs == printed["cost"]["macs"] <= 300_000
    assert "taken at 300K from a supernet of the space tiny" in spec.provenance.source
    assert spec.provenance.results[-1].value == printed["top1"]
    lines = run("supernet", "extract", folder, "--flops", "300K", "--output", tmp_path / "again", *HERE)[1]
    assert f"toy_300k: {spec.cost.macs / 1000:.4g}K MACs, top1 {printed['top1']:.4f}" in lines


@pytest.mark.nightly
def test_the_largest_of_some_within_a_latency(
    folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalenet_zoo.search.extract.RUNGS", 3)
    printed = run.json(
        *("supernet", "extract", folder, "--latency", "1s", "--on", "ort-cpu", "--threads", 1),
        *("--output", tmp_path / "model", *HERE),
    )
    spec = spec_of(create_model(tmp_path / "model"))
    assert spec.name == printed["network"] == "toy_1000ms_ort-cpu"
    latency, score = spec.provenance.results
    assert (latency.metric, score.metric) == ("latency_ms", "supernet_top1")
    assert 0 < latency.value <= 1000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("toy_s9",), "toy_s9: found no such network in {}, expected toy_s0, toy_s1, toy_s2, toy_s3, toy_s4 or a file"),
        (("--flops", "1K"), "macs: found 1K, expected "),
        (("--flops", "much"), "--flops: found 'much', expected "),
        (("--latency", "2ms"), "found `--latency`, `--on`, `--threads` or `--precision`, expected"),
        (("toy_s0", "--flops", "300K"), "found none or several of"),
        ((), "found none or several of"),
    ],
)
def test_what_cannot_be_extracted_is_refused(
    arguments: tuple[str, ...], complaint: str, folder: Path, run: Run, tmp_path: Path
) -> None:
    _, line = run.error("supernet", "extract", folder, *arguments, "--output", tmp_path / "model", *HERE)
    assert complaint.format(folder).replace("`", "") in line.replace("`", "")
    assert not (tmp_path / "model").exists()


def test_the_function_checks_budgets_like_the_command(folder: Path) -> None:
    with pytest.raises(UsageError, match="expected exactly one"):
        extract_found(folder, "toy_s0", flops=1e6)
    with pytest.raises(UsageError, match="expected `latency` and `on` together"):
        extract_found(folder, latency=2.0)
