"""`build --latency --pretrained`: the most accurate published network that meets a latency, by measurement."""

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet_zoo import build, create_model
from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import BackendError, BudgetError, SpecError, TrainingError, UsageError
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.explore.bench import BENCH_VISITS, MOST_TRIED, open_bench
from scalenet_zoo.explore.choice import Choice, choose_entry
from scalenet_zoo.explore.entries import command_for, quoted_entries, quoted_entry
from scalenet_zoo.explore.figures import Figures, Setting, figures_path, load_figures
from scalenet_zoo.explore.precisions import precisions_on
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.published import published_entries
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.bench import MadeUpMachine, law, pretend
from tests.helpers.command import Run

SETTING = Setting(backend="ort-cpu", threads=1)
BOTH: tuple[Precision, ...] = ("fp32", "int8")


def choose(budget: float, precisions: tuple[Precision, ...] = BOTH) -> Choice:
    with open_bench(SETTING) as bench:
        return choose_entry(budget, quoted_entries(pretrained=True), precisions, bench)


# --- what there is to choose from -----------------------------------------------------------------


def test_the_accuracy_is_that_of_the_weights_that_pretrained_takes() -> None:
    entries = {entry.spec.name: entry for entry in quoted_entries(pretrained=True)}
    assert len(entries) >= 40
    for name, entry in entries.items():
        published = published_entries()[name]
        result = published.default.result_at(published.pixels)
        assert result
        assert (entry.value, entry.weights) == (result.top1, published.default.timm)
        assert entry.license == published.default.license.lower() != ""
        assert str(result.pixels) in entry.origin


def test_without_weights_it_is_the_papers() -> None:
    paper = quoted_entry(load_spec("scalenas_p2"))
    assert (paper.metric, paper.value, paper.origin, paper.weights) == ("AP, %", 75.2, "paper", None)
    backbone = quoted_entry(load_spec("hrnet_w18"))  # its weights are a classifier's, without a reported accuracy
    assert (backbone.value, backbone.weights, backbone.license) == (None, None, "mit")


@pytest.mark.parametrize(
    ("name", "backend", "precision", "command"),
    [
        ("efficientnet_b0", "ort-cpu", "fp32", "export efficientnet_b0 --pretrained"),
        (
            "efficientnet_b0",
            "ort-cpu",
            "int8",
            "export efficientnet_b0 --pretrained --precision int8 --on ort-cpu --calibration IMAGES",
        ),
        ("efficientnet_b7", "tensorrt", "fp16", "export efficientnet_b7 --to tensorrt --precision fp16"),
        ("tinynet_a", "torch", "fp32", "build tinynet_a --pretrained"),
    ],
)
def test_commands(name: str, backend: str, precision: str, command: str) -> None:
    assert command_for(quoted_entry(load_spec(name)), backend, precision) == f"scalenet-zoo {command}"


def test_any_stands_for_precisions_that_may_be_fast() -> None:
    assert precisions_on("any", "ort-cpu") == ("fp32", "int8")
    assert precisions_on(["int8", "fp32"], "ort-cpu") == ("fp32", "int8")
    with pytest.raises(UsageError, match="found int8 for a network on torch"):
        precisions_on("int8", "torch")
    with pytest.raises(UsageError, match="found 'fp8'"):
        precisions_on(["any", "fp8"], "ort-cpu")


# --- the choice -----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), budget=st.floats(0.5, 1000.0))
def test_no_entry_that_meets_the_budget_is_more_accurate(seed: int, budget: float) -> None:
    """Times per MAC differ by up to a factor of 2, the most that the choice assumes."""
    rng = random.Random(seed)
    factors: dict[tuple[str, str], float] = {}

    def takes(spec: ArchSpec, precision: str) -> float:
        return law(spec, precision) * factors.setdefault((spec.name, precision), rng.uniform(1.0, 2.0))

    entries = quoted_entries(pretrained=True)
    with pytest.MonkeyPatch.context() as patch:
        machine = MadeUpMachine(takes)
        pretend(patch, machine)
        patch.setattr("scalenet_zoo.explore.figures.Figures.save", lambda *_: None)
        patch.setattr("scalenet_zoo.explore.bench.load_figures", lambda setting: Figures(setting=setting, machine={}))
        try:
            chosen = choose(budget)
        except BudgetError:
            chosen = None
        everything = [(entry, precision, takes(entry.spec, precision)) for entry in entries for precision in BOTH]
    met = [(entry, precision) for entry, precision, ms in everything if ms <= budget]
    assert (chosen is None) == (not met)
    if chosen is None:
        return
    assert chosen.taken.accuracy == max(entry.value or 0.0 for entry, _ in met)
    assert chosen.taken.ms == pytest.approx(takes(chosen.taken.entry.spec, chosen.taken.precision))
    assert chosen.taken.ms <= budget
    if chosen.taken.precision == "int8":
        assert (chosen.taken.entry, "fp32") not in met
    assert len(machine.asked) == len(set(machine.asked)) == chosen.measured


def test_few_are_measured_for_a_small_budget_and_none_twice(made_up: MadeUpMachine) -> None:
    first = choose(2.5)
    assert first.taken.precision == "int8"
    assert len(made_up.asked) == first.measured < 40
    assert first.unmeasured > 20
    asked = len(made_up.asked)
    assert choose(2.5).measured == 0
    assert len(made_up.asked) == asked
    fp32 = choose(2.5, ("fp32",))
    assert fp32.taken.accuracy < first.taken.accuracy
    assert {each.precision for each in fp32.candidates} == {"fp32"}


def test_fp32_is_taken_where_both_meet_the_budget(made_up: MadeUpMachine) -> None:
    chosen = choose(1e6)
    assert chosen.taken.precision == "fp32"
    assert chosen.taken.accuracy == max(entry.value or 0.0 for entry in quoted_entries(pretrained=True))


def test_the_spec_has_both_figures(made_up: MadeUpMachine) -> None:
    chosen = choose(5.0, ("fp32",))
    told = chosen.spec.provenance
    last = told.results[-1]
    assert (last.metric, last.value, last.origin) == ("latency_ms", chosen.taken.ms, "measured")
    assert last.data.startswith("ort-cpu, fp32, batch of 1, 1 CPU thread, ")
    accuracy, latency = told.details["accuracy"], told.details["latency"]
    assert isinstance(accuracy, dict)
    assert isinstance(latency, dict)
    assert (accuracy["value"], accuracy["weights"]) == (chosen.taken.accuracy, chosen.taken.entry.weights)
    assert (latency["budget_ms"], latency["backend"], latency["precision"]) == (5.0, "ort-cpu", "fp32")
    assert (chosen.spec.hash, chosen.spec.name) == (chosen.taken.entry.spec.hash, chosen.taken.entry.spec.name)


def test_a_budget_that_nothing_meets(made_up: MadeUpMachine) -> None:
    least = min(law(entry.spec, "int8") for entry in quoted_entries(pretrained=True))
    with pytest.raises(
        BudgetError, match=rf"found {least:.4f}\d*ms as the lowest of \d+ measured \(tinynet_e in int8 on"
    ):
        choose(0.1)


def test_what_a_back_end_cannot_run_is_left_out(made_up: MadeUpMachine, caplog: pytest.LogCaptureFixture) -> None:
    most = choose(1e6, ("fp32",)).taken.entry.spec.name

    def takes(spec: ArchSpec, precision: str) -> float:
        if spec.name == most or precision == "int8":
            raise BackendError("ort-cpu: no room")
        return law(spec, precision)

    made_up.takes = takes
    figures_path(SETTING).unlink()
    chosen = choose(1e6)
    assert chosen.taken.precision == "fp32"
    assert chosen.taken.entry.spec.name != most
    assert f"{most} in fp32: left out: ort-cpu: no room" in caplog.text

    def nothing(spec: ArchSpec, precision: str) -> float:
        raise BackendError("ort-cpu: no room")

    made_up.takes = nothing
    figures_path(SETTING).unlink()
    with pytest.raises(BackendError, match="ort-cpu: found that it runs none of 4[0-9] networks, expected"):
        choose(1e6)


# --- what is kept ---------------------------------------------------------------------------------


def test_figures_are_kept_and_read_again(made_up: MadeUpMachine, cache: Path) -> None:
    spec = load_spec("tinynet_e")
    with open_bench(SETTING) as bench:
        figure = bench.measure(spec, "fp32")
        assert bench.figures.ms(figure) == pytest.approx(law(spec, "fp32"))
        assert len(figure.visits) == BENCH_VISITS
    assert load_figures(SETTING).find(spec, "fp32") == figure
    assert load_figures(SETTING).find(spec, "int8") is None
    assert load_figures(SETTING).find(spec.replace(height=64, width=64), "fp32") is None
    assert not list(cache.glob(".*lock"))
    other = Setting(backend="ort-cpu", threads=2)
    assert figures_path(other) != figures_path(SETTING)
    assert load_figures(other).figures == ()


def test_an_entry_is_measured_again_until_the_machine_was_undisturbed(made_up: MadeUpMachine) -> None:
    specs = [load_spec(name) for name in ("tinynet_e", "tinynet_d")]
    made_up.slow[:] = [3.0, 3.0, 3.0]
    with open_bench(SETTING) as bench:
        bench.measure(specs[0], "fp32")  # the machine was never any faster, as far as is known
        assert len(made_up.asked) == 1
        assert made_up.slow == []
        for _ in range(5):
            bench.measure(specs[1], "fp32")
        assert len(made_up.asked) == 2
        figure = bench.measure(specs[0], "fp32")
        assert len(made_up.asked) == 3
        assert len(figure.visits) == 4 * BENCH_VISITS
        assert bench.figures.ms(figure) == pytest.approx(law(specs[0], "fp32"))
    assert MOST_TRIED >= 4 * BENCH_VISITS


def test_two_processes_do_not_measure_at_once(made_up: MadeUpMachine, cache: Path) -> None:
    with open_bench(SETTING) as bench:
        bench.measure(load_spec("tinynet_e"), "fp32")
    with hold(cache), open_bench(SETTING) as bench:
        bench.measure(load_spec("tinynet_e"), "fp32")  # known
        with pytest.raises(TrainingError, match="found another process at work in it"):
            bench.measure(load_spec("tinynet_d"), "fp32")


def test_damaged_figures_are_refused(made_up: MadeUpMachine) -> None:
    with open_bench(SETTING) as bench:
        bench.measure(load_spec("tinynet_e"), "fp32")
    path = figures_path(SETTING)
    document = json.loads(path.read_text(encoding="utf-8"))
    for figures, message in (
        (document["figures"] * 2, "figures.1: found tinynet_e in fp32 twice, expected it once"),
        ([document["figures"][0] | {"visits": []}], "figures.0.visits: found .*, expected"),
        ([document["figures"][0] | {"macs": 0}], "figures.0.macs: found 0, expected"),
    ):
        path.write_text(json.dumps(document | {"figures": figures}), encoding="utf-8")
        with pytest.raises(SpecError, match=f"{path.name}: {message}"), open_bench(SETTING):
            pass


# --- the command ----------------------------------------------------------------------------------


def keep_figures(takes: dict[str, float], precisions: tuple[Precision, ...] = BOTH, setting: Setting = SETTING) -> None:
    """Keep a figure for every published classifier: the given times for those named, a second for the others."""
    figures = load_figures(setting)
    for entry in quoted_entries(pretrained=True):
        for precision in precisions:
            ms = takes.get(entry.spec.name, 1000.0) * (0.5 if precision == "int8" else 1.0)
            figures = figures.with_visits(entry.spec, precision, [Visit(ms, 1.0, 1.0)] * BENCH_VISITS)
    figures.save(figures_path(setting))


@pytest.mark.parametrize("backend", ["torch", pytest.param("ort-cpu", marks=pytest.mark.slow)])
def test_build_takes_the_published_network(run: Run, tmp_path: Path, backend: str) -> None:
    keep_figures({"tf_efficientnet_lite0": 9.0, "tinynet_e": 1.0}, ("fp32",), Setting(backend=backend, threads=1))
    flags = ["--on", backend, "--threads", "1", "--pretrained", "--output", tmp_path]
    built = run.json("build", "--latency", "9ms", *flags)
    assert (built["name"], built["trained"], built["inherited"]) == ("tf_efficientnet_lite0", True, None)
    chosen = built["chosen"]
    assert chosen["taken"]["measured_ms"] == 9.0
    assert (chosen["taken"]["top1"], chosen["taken"]["weights"]) == (74.846, "tf_efficientnet_lite0.in1k")
    assert (chosen["measured"], chosen["precisions"]) == (0, ["fp32"])
    assert sorted(built["files"]) == (["onnx"] if backend == "ort-cpu" else []) + ["spec", "weights"]
    spec = ArchSpec.load(built["files"]["spec"])
    assert spec.hash == load_spec("tf_efficientnet_lite0").hash
    assert "accuracy" in spec.provenance.details


def test_the_library_builds_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    keep_figures({"tf_efficientnet_lite0": 9.0, "tinynet_e": 1.0})
    network = build(latency="9ms", on="ort-cpu", pretrained=True, num_classes=10)
    assert (spec_of(network).name, spec_of(network).classes) == ("tf_efficientnet_lite0", 10)
    stem = create_model("tf_efficientnet_lite0", pretrained=True).state_dict()
    mine = network.state_dict()
    same = [name for name in stem if stem[name].shape == mine[name].shape]
    assert len(same) == len(stem) - 2  # the classifier
    assert all(torch.equal(stem[name], mine[name]) for name in same)
    with pytest.raises(BudgetError, match="img_size: found 64, expected none"):
        build(latency="9ms", on="ort-cpu", pretrained=True, img_size=64)
    with pytest.raises(UsageError, match="found `pretrained` with `inherit` or `weights`"):
        build(latency="9ms", on="ort-cpu", pretrained=True, weights="weights.safetensors")


def test_int8_is_chosen_and_its_command_printed(run: Run, tmp_path: Path) -> None:
    keep_figures({"tf_efficientnet_lite0": 9.0, "tinynet_e": 1.0})
    flags = ["--on", "ort-cpu", "--threads", "1", "--pretrained", "--precision", "any", "--output", tmp_path]
    code, out, err = run("build", "--latency", "5ms", *flags)
    assert code == 0, err
    assert "within 5ms on ort-cpu, batch of 1, 1 CPU thread: tf_efficientnet_lite0 in int8\n" in out
    assert "export tf_efficientnet_lite0 --pretrained --precision int8 --on ort-cpu --calibration IMAGES\n" in out
    assert "top-1 is quoted, for fp32\n" in out
    assert not list(tmp_path.glob("*.onnx"))


def test_weights_that_cannot_be_fetched_are_reported(run: Run, tmp_path: Path, hub: object) -> None:
    keep_figures({"tinynet_e": 1.0}, ("fp32",))
    flags = ["--on", "ort-cpu", "--threads", "1", "--pretrained", "--output", tmp_path]
    code, message = run.error("build", "--latency", "2ms", *flags)
    assert code == 1
    assert "tinynet_e" in message
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "any"], "--precision: found 'any', expected fp32, fp16 or int8"),
        (["--pretrained", "--precision", "fp8"], "--precision: found 'fp8', expected fp32, fp16 or int8"),
        (["--pretrained", "--precision", "any", "--export", "onnx"], "expected a folder of images"),
        (["--pretrained", "--calibration", "photos"], "found --calibration without --latency and --precision int8"),
    ],
)
def test_what_is_refused(run: Run, flags: list[str], message: str) -> None:
    code, found = run.error("build", "--latency", "5ms", "--on", "ort-cpu", *flags)
    assert code == 2
    assert message in found


def test_every_published_classifier_may_be_chosen() -> None:
    names = {entry.spec.name for entry in quoted_entries(pretrained=True)}
    with_results = {name for name in list_models(task="classification") if name in published_entries()}
    assert names == with_results
