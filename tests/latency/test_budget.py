"""Networks at a latency budget, by predictions and measurements."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from scalenet_zoo import build, list_models
from scalenet_zoo.arch.constraints import Latency, Macs, Params
from scalenet_zoo.arch.scaling import fit_budget
from scalenet_zoo.arch.spec import ArchSpec, Input, spec_of
from scalenet_zoo.cli.latency import print_found
from scalenet_zoo.core.errors import BudgetError, InputError
from scalenet_zoo.latency import budget as latency_budget
from scalenet_zoo.latency import profile
from scalenet_zoo.latency.budget import (
    Attempt,
    LatencyChoice,
    choose_at_latency,
    find_latency_model,
    search_at_latency,
)
from scalenet_zoo.latency.model import LatencyModel, fit_latency_model, model_path
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.latency.terms import trace_terms
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.zoo import catalog as zoo
from scalenet_zoo.zoo.catalog import Entries, find_networks, load_family
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.command import Run
from tests.helpers.latency import SCALENET, SETTINGS, law, made_up_profile


@pytest.fixture
def fake_measurements(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A fake back end: networks take the made-up machine's time, multiplied by the next factor of the given list."""
    return fake_back_end(monkeypatch, [])


def fake_back_end(monkeypatch: pytest.MonkeyPatch, slow: list[float]) -> list[float]:
    """The same; the next calls to the yardstick are slower by these factors, then the machine is undisturbed."""
    factors: list[float] = []

    class FakeYardstick:
        best = 1.0

        def visit(self, ms: float, visits: int) -> list[Visit]:
            times = slow.pop(0) if slow else 1.0
            return [Visit(1.01 * ms * times, times, times)] + [Visit(ms * times, times, times)] * (visits - 1)

    @contextmanager
    def fake_prepare(model: Any, *_: object) -> Iterator[float]:
        yield float(law(trace_terms(model.spec.trace))) * factors.pop(0)

    @contextmanager
    def fake_yardstick(*_: object, **__: object) -> Iterator[FakeYardstick]:
        yield FakeYardstick()

    monkeypatch.setattr(latency_budget, "open_runner", fake_prepare)
    monkeypatch.setattr(latency_budget, "prepare_yardstick", fake_yardstick)
    return factors


def test_a_network_that_uses_the_budget_is_taken(
    made_up: LatencyModel, fake_measurements: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_budget, "USED", 0.95)
    fake_measurements[:] = [0.99]
    found = search_at_latency(10.0, SCALENET, made_up, classes=10)
    assert len(found.attempts) == 1
    assert found.taken.measured <= 10.0
    assert found.taken.spec.name == "scalenet_10ms_ort-cpu"
    assert found.taken.spec.classes == 10


@pytest.mark.slow
def test_after_a_miss_the_next_smaller_is_tried(made_up: LatencyModel, fake_measurements: list[float]) -> None:
    fake_measurements[:] = [1.3, 1.295, 1.29, 1.29]
    first, *_, taken = search_at_latency(10.0, SCALENET, made_up).attempts
    assert first.measured > 10.0
    assert 9.6 < taken.measured <= 10.0
    assert made_up.predict_spec(taken.spec) < made_up.predict_spec(first.spec)
    assert taken.spec.cost.macs < first.spec.cost.macs


@pytest.mark.parametrize(
    ("factors", "met"),
    [
        ([0.9, 0.9, 0.9], {True}),  # the model expects too much
        ([0.8, 1.0, 0.8], {True, False}),  # the next larger does not meet it
    ],
)
def test_larger_networks_are_tried_while_a_budget_leaves_room(
    factors: list[float], met: set[bool], made_up: LatencyModel, fake_measurements: list[float]
) -> None:
    fake_measurements[:] = factors
    found = search_at_latency(10.0, SCALENET, made_up)
    meeting = [attempt for attempt in found.attempts if attempt.measured <= 10.0]
    assert {attempt.measured <= 10.0 for attempt in found.attempts} == met
    assert 2 <= len(found.attempts) <= len(factors)
    assert found.taken is found.attempts[-1]
    assert found.taken.spec.cost.macs == max(attempt.spec.cost.macs for attempt in meeting)
    if factors[1] < 1:
        assert found.taken.measured >= 9.7 > min(attempt.measured for attempt in meeting)


def test_what_comes_next_follows_from_what_was_measured() -> None:
    spec = load_spec("scalenet_s0")

    def wanted(*known: tuple[float, float]) -> tuple[float, float] | None:
        return latency_budget._wanted([Attempt(spec, *each, (), 1) for each in known], 10.0)

    assert wanted() == (0.0, 10.0)
    assert wanted((10.0, 12.5)) == (0.0, 8.0)
    assert wanted((10.0, 10.01)) == (0.0, 9.9)
    assert wanted((9.8, 9.9)) is None  # near enough
    assert wanted((9.8, 9.6)) == pytest.approx((1.002 * 9.8, 0.995 * 9.8 * 10 / 9.6))
    assert wanted((9.8, 9.6), (10.2, 10.3)) == pytest.approx((1.002 * 9.8, 0.995 * 10.2 * 10 / 10.3))
    assert wanted((9.8, 9.6), (9.84, 10.4)) is None  # nothing lies between
    assert wanted((9.8, 9.5), (9.9, 9.6), (10.0, 9.7)) is None  # two steps up
    assert wanted(*[(10.0, 12.0)] * latency_budget.MOST_MEASURED) is None


@pytest.mark.parametrize(
    ("slow", "quiet_visits", "told"),
    [
        ([1.4, 1.4], 3, []),  # the third time it is undisturbed
        ([1.4] * 3, 0, ["found this machine disturbed during all 9 visits"]),
    ],
)
def test_a_disturbed_measurement_is_repeated_or_reported(
    slow: list[float],
    quiet_visits: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = tiny_entries(monkeypatch)
    times = [float(law(trace_terms(spec.trace))) for spec in entries.specs]
    fake_back_end(monkeypatch, slow)[:] = [1.0] * len(times)
    steps: list[str] = []
    found = choose_at_latency(1000.0, entries, DENSE, on_progress=lambda what, done, total: steps.append(what))
    assert found.taken.spec.name == entries.specs[-1].name
    disturbed = found.attempts[0]
    assert (len(disturbed.visits), disturbed.quiet) == (9, quiet_visits)
    assert disturbed.measured == pytest.approx(times[0])
    assert all(disturbed.measured <= ms * 1.0001 <= 1.011 * disturbed.measured for ms in disturbed.visits)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == told
    again = f"waiting, since this machine is disturbed, to measure {entries.specs[0].name} again"
    assert steps[:4] == [f"measuring {entries.specs[0].name} on ort-cpu", again, again, steps[3]]
    fake_back_end(monkeypatch, [1.4] * 3)[:] = [1.0]
    with pytest.raises(BudgetError, match="the cheapest of the zoo's pose networks; this machine was disturbed: try"):
        choose_at_latency(0.01, entries, DENSE)


@pytest.mark.parametrize("budget", [math.nan, math.inf, -math.inf, 0.0, -4.0])
@pytest.mark.parametrize("kind", ["macs", "params", "latency", "search", "choose"])
def test_a_budget_is_positive_and_finite(budget: float, kind: str, made_up: LatencyModel) -> None:
    use: dict[str, Callable[[], object]] = {
        "macs": lambda: Macs(budget),
        "params": lambda: Params(budget),
        "latency": lambda: Latency(budget, made_up),
        "search": lambda: search_at_latency(budget, SCALENET, made_up),
        "choose": lambda: choose_at_latency(budget, Entries("none", ()), SETTINGS),
    }
    with pytest.raises(BudgetError, match=rf"(macs|params|latency): found {budget}, expected a positive, finite num"):
        use[kind]()


def test_a_huge_budget_is_told_with_the_range(made_up: LatencyModel, fake_measurements: list[float]) -> None:
    fake_measurements[:] = [1.0]
    with pytest.raises(BudgetError, match=r"expected [\d.]+ms to [\d.]+ms for the family scalenet"):
        search_at_latency(1e300, SCALENET, made_up)


def test_the_specs_provenance_tells_of_its_latency(
    made_up: LatencyModel, fake_measurements: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "machine", lambda: {"cpu": "Abacus 3"})
    monkeypatch.setattr(latency_budget, "USED", 0.9)
    fake_measurements[:] = [1.0]
    entries = tiny_entries(monkeypatch)
    taken = search_at_latency(10.0, SCALENET, made_up).taken
    fake_measurements[:] = [1.0] * len(entries.specs)
    chosen = choose_at_latency(1000.0, entries, DENSE).taken
    for each, predicted in ((taken, taken.predicted), (chosen, None)):
        result = each.spec.provenance.results[-1]
        assert (result.metric, result.value, result.origin) == ("latency_ms", each.measured, "measured")
        assert result.data == "ort-cpu, fp32, batch of 1, 1 CPU thread, Abacus 3"
        details = each.spec.provenance.details["latency"]
        assert isinstance(details, dict)
        assert (details["predicted_ms"], details["device"], details["threads"]) == (predicted, "Abacus 3", 1)
    assert taken.spec.provenance.details["family"] == "scalenet"


def test_a_model_of_other_settings_is_refused(
    made_up: LatencyModel, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    with pytest.raises(InputError, match="latency model: settings: found another model's"):
        choose_at_latency(10.0, tiny_entries(monkeypatch), DENSE, made_up)
    other = SETTINGS.model_copy(update={"threads": 2})
    made_up.save(model_path(other))
    with pytest.raises(
        InputError, match=r"json: settings: found another model's, expected the requested ones: profile again"
    ):
        find_latency_model(SCALENET, other)


def test_a_model_of_a_family_in_a_file_is_used(
    made_up: LatencyModel, fake_measurements: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_budget, "USED", 0.9)
    own = SCALENET.model_copy(update={"name": "own"})
    fake_measurements[:] = [1.0]
    settings = SETTINGS.model_copy(update={"family": zoo.latency_name(own)})
    found = search_at_latency(10.0, own, made_up.model_copy(update={"settings": settings}))
    assert found.taken.spec.name == "own_10ms_ort-cpu"


@pytest.mark.slow
def test_a_budget_that_no_network_meets_is_an_error(made_up: LatencyModel, fake_measurements: list[float]) -> None:
    fake_measurements[:] = [1.05 * 1.2**i for i in range(20)]  # each slower than predicted than the one before
    with pytest.raises(BudgetError, match=r"latency: found [\d.]+ms as the least of \d measured networks"):
        search_at_latency(10.0, SCALENET, made_up)


def test_a_model_of_another_family_is_refused(made_up: LatencyModel) -> None:
    with pytest.raises(InputError, match="found one for the family scalenet, expected efficientnet"):
        search_at_latency(10.0, load_family("efficientnet"), made_up)


def tiny_entries(monkeypatch: pytest.MonkeyPatch) -> Entries:
    """The zoo's networks for pose, a module a stage and a quarter as wide, for small images."""
    entries = {name: load_spec(name) for name in list_models()}
    for name, spec in entries.items():
        if spec.network.type == "multipath" and spec.task == "pose":
            network = spec.network.model_copy(
                update={
                    "width": spec.network.width // 4,
                    "modules": spec.network.modules[:2] + spec.network.modules[-1:],
                }
            )
            size = Input(height=32, width=32)
            entries[name] = ArchSpec.create(name, "pose", size, spec.classes, network, spec.provenance)
    monkeypatch.setattr(zoo, "_entry", entries.__getitem__)
    found = find_networks("pose")
    assert isinstance(found, Entries)
    return found


DENSE = Settings(family="pose", backend="ort-cpu", threads=1)


def test_entries_are_measured_from_the_cheapest_on(
    fake_measurements: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tiny_entries(monkeypatch)
    times = [float(law(trace_terms(spec.trace))) for spec in entries.specs]
    fake_measurements[:] = [1.0] * len(times)
    assert max(times[:4]) < times[4] < times[5]
    found = choose_at_latency(times[4], entries, DENSE)
    assert len(fake_measurements) == len(times) - 6  # the one above it was measured, too
    assert [attempt.spec.name for attempt in found.attempts] == [entries.specs[i].name for i in (0, 1, 2, 3, 5, 4)]
    assert {attempt.predicted for attempt in found.attempts} == {None}
    assert (found.attempts[-1].measured, found.settings) == (times[4], DENSE)
    fake_measurements[:] = [1.0] * len(times)
    assert choose_at_latency(1000.0, entries, DENSE).taken.spec.hash == entries.specs[-1].hash
    fake_measurements[:] = [1.0]
    cheapest = entries.specs[0].name
    with pytest.raises(
        BudgetError, match=rf"latency: found 0.01ms, expected at least [\d.]+ms, which {cheapest} takes on ort-cpu"
    ):
        choose_at_latency(0.01, entries, DENSE)


def test_a_model_of_the_entries_saves_measurements(
    fake_measurements: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tiny_entries(monkeypatch)
    model = fit_latency_model(made_up_profile(plan=Plan(layers=10, networks=30, held_out=5), of=entries))
    predicted = [model.predict_spec(spec) for spec in entries.specs]
    budget = 1.001 * max(predicted[:3])
    largest = max(i for i, ms in enumerate(predicted) if ms <= budget)
    fake_measurements[:] = [0.98]
    found = choose_at_latency(budget, entries, DENSE, model)
    assert [attempt.spec.name for attempt in found.attempts] == [entries.specs[largest].name]
    assert found.attempts[0].predicted == predicted[largest]
    accuracy = model.held_out.model_copy(update={"rms": 5.0})  # a poor model: those that it puts 10% above are tried
    poor = model.model_copy(update={"held_out": accuracy})
    larger = max(i for i, ms in enumerate(predicted) if ms <= 1.1 * budget)
    fake_measurements[:] = [0.5]
    assert choose_at_latency(budget, entries, DENSE, poor).taken.spec.name == entries.specs[larger].name
    fake_measurements[:] = [1.5, 0.5]
    attempts = choose_at_latency(budget, entries, DENSE, model).attempts
    assert [attempt.measured <= budget for attempt in attempts] == [False, True]
    assert attempts[1].spec.cost.macs < attempts[0].spec.cost.macs
    fake_measurements[:] = [0.1]  # predicted to be too slow, and is not
    assert choose_at_latency(0.5 * min(predicted), entries, DENSE, model).taken.spec.hash == entries.specs[0].hash
    fake_measurements[:] = [1.0]
    with pytest.raises(BudgetError, match=f"which {entries.specs[0].name} takes on ort-cpu, the cheapest of the zoo's"):
        choose_at_latency(0.5 * min(predicted), entries, DENSE, model)


@pytest.mark.slow
def test_the_command_line_from_profile_to_dense_network(
    run: Run,
    small_range: None,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tiny_entries(monkeypatch)
    entries = find_networks("pose", "hrnet")
    assert isinstance(entries, Entries)
    of_pose = ["--task", "pose", "--family", "hrnet", "--on", "torch", "--threads", "1"]
    built = run.json("build", *of_pose, "--latency", "10s", "--classes", "3", "--size", "32x40")
    attempts = built["latency"]["attempts"]
    assert [attempt["predicted_ms"] for attempt in attempts] == [None] * len(entries.specs)
    assert (built["name"], built["cost"]["macs"]) == (attempts[-1]["name"], max(each["macs"] for each in attempts))
    spec = ArchSpec.load(tmp_path / built["files"]["spec"])
    assert (spec.classes, spec.input.height, spec.input.width) == (3, 32, 40)
    assert run.json("build", "hrnet_w18_pose", "--size", "48")["input"] == {"channels": 3, "height": 48, "width": 48}
    few = ["--layers", "2", "--networks", "6", "--held-out", "2"]
    profiled = run.json("profile", *of_pose, *few)
    assert profiled["settings"]["family"] == "hrnet-pose"
    assert Path(profiled["file"]).parent == cache
    code, out, err = run("build", *of_pose, "--latency", "10s")
    assert code == 0, err
    rows = out.split("quiet\n")[1].splitlines()
    assert [row.split()[0] for row in rows] == [entries.specs[-1].name]  # the model spares the others
    assert " - " not in rows[0]


def test_a_cached_model_is_found(made_up: LatencyModel, cache: Path) -> None:
    made_up.save(model_path(SETTINGS))
    assert model_path(SETTINGS).parent == cache
    assert find_latency_model(SCALENET, SETTINGS) == made_up
    assert model_path(SETTINGS.model_copy(update={"threads": 2})) != model_path(SETTINGS)


@pytest.mark.slow
def test_the_command_line_from_profile_to_network(run: Run, small_range: None, cache: Path, tmp_path: Path) -> None:
    few = ["--layers", "2", "--networks", "6", "--held-out", "2"]
    code, out, err = run("profile", "--on", "torch", "--threads", "1", *few)
    assert code == 0, err
    assert err.splitlines() == [f"profiling on torch: {10 * tenth}%" for tenth in range(11)]  # nobody watches
    (path,) = (file for file in cache.iterdir() if not file.name.endswith(".profile.json"))
    assert out.startswith(f"wrote {path}\n")
    assert [line.split("  ")[0] for line in out.splitlines()[2:]] == [
        "2 networks held out",
        "latency model",
        "MACs alone",
    ]
    model = LatencyModel.load(path)
    budget = model.predict_spec(fit_budget(SCALENET, Macs(300_000_000)))
    built = run.json("build", "--latency", f"{budget:.3f}ms", "--on", "torch", "--threads", "1", "--classes", "10")
    assert sorted(built["files"]) == ["spec", "weights"]
    last = built["latency"]["attempts"][-1]
    assert last["measured_ms"] <= float(f"{budget:.3f}")
    assert min(attempt["predicted_ms"] for attempt in built["latency"]["attempts"]) <= budget
    assert built["latency"]["backend"] == "torch"
    spec = ArchSpec.load(tmp_path / built["files"]["spec"])
    assert (spec.cost.macs, spec.classes) == (last["macs"], 10)


def test_the_library_builds_at_a_latency(
    made_up: LatencyModel, fake_measurements: list[float], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    made_up.save(model_path(SETTINGS))
    fake_measurements[:] = [1.2] * 4
    model = build(latency="10ms", on="ort-cpu", num_classes=10)
    assert spec_of(model).classes == 10
    assert 0.96 * 10 / 1.2 < made_up.predict_spec(spec_of(model)) < 10 / 1.2
    with pytest.raises(BudgetError, match="found one of latency and on, expected both"):
        build(latency="10ms")
    with pytest.raises(BudgetError, match="found two budgets"):
        build(latency="10ms", on="ort-cpu", flops="600M")


def test_a_machine_that_was_never_quiet_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec("scalenet_s0")
    attempts = [Attempt(spec, 3.0, 2.9, (4.0, 4.4), quiet) for quiet in (0, 2)]
    notice = "other work disturbed every measurement of scalenet_s0 (2.9ms): these latencies are less certain"
    for order in ((0, 1), (1, 0)):  # whatever it decided
        print_found(LatencyChoice(tuple(attempts[i] for i in order), SETTINGS))
        assert notice in capsys.readouterr().out
    print_found(LatencyChoice((attempts[1],), SETTINGS))
    printed = capsys.readouterr().out
    assert "disturbed" not in printed
    assert "1 CPU thread; measured at this machine's best speed\n" in printed
    assert "2.9ms  4ms to 4.4ms  2 of 2" in printed


def test_words_are_looked_at_before_torch_is_imported(tmp_path: Path) -> None:
    of_latency = ["build", "--latency=4ms", "--on=ort-cpu"]
    (tmp_path / "file").touch()
    cases = [
        ([*of_latency, "--latency=4xs"], "--latency: found '4xs', expected a positive number with a unit us, ms or s"),
        ([*of_latency, "--on=nothere"], "nothere: found no such back end, expected one of torch"),
        ([*of_latency, "--family=nothere"], "nothere: found no such family for classification"),
        ([*of_latency, "--precision=fp8"], "--precision: found 'fp8', expected fp32, fp16 or int8"),
        ([*of_latency, "--output=file"], "file/network.json: cannot be written: File exists"),
        (["build", "--flops=4X"], "--flops: found '4X'"),
        (["build", "nothere"], "nothere: found no such entry"),
        (["profile", "--on=nothere"], "nothere: found no such back end"),
        (["profile", "--on=ort-cpu", "--family=nothere"], "nothere: found no such family"),
        (["profile", "--on=ort-cpu", "--output=file/model.json"], "model.json: cannot be written"),
        (["profile", "--on=ort-cpu"], "XDG_CACHE_HOME=FOLDER puts it elsewhere"),
        (["benchmark", "nothere.onnx"], "nothere.onnx: cannot be read: No such file or directory"),
        (["benchmark", "nothere"], "nothere: found no such entry"),
        (["benchmark", "scalenet_s0", "--on=torch,nothere"], "nothere: found no such back end"),
        (["benchmark", "scalenet_s0", "--seconds=inf"], "--seconds: found inf, expected a finite number"),
        (["benchmark", "scalenet_s0", "--plot=file/plot.png"], "plot.png: cannot be written"),
    ]
    program = """
import json, sys
from scalenet_zoo.cli import main
for arguments, _ in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert end.code, arguments
    assert "torch" not in sys.modules, arguments
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")}
    command = [sys.executable, "-c", program, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [message in line for (_, message), line in zip(cases, told, strict=True)] == [True] * len(cases), told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
