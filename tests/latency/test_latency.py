"""Latency models: their terms, how they are measured, fitted and stored, and budgets that use them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet_zoo import build, list_models
from scalenet_zoo.arch.constraints import Latency, Macs, Params
from scalenet_zoo.arch.multipath_cost import BRANCHES
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import MACS_RANGE, TIGHTNESS, encode_kernels, expand, fit_budget
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, Input, MBConvNetwork, spec_of
from scalenet_zoo.arch.trace import trace_layers
from scalenet_zoo.cli.latency import print_found
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import BudgetError, InputError, ModelNotFoundError, OutputError, SpecError, TrainingError
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.latency import budget as latency_budget
from scalenet_zoo.latency import items, measuring, profile, yardstick
from scalenet_zoo.latency import model as latency_model
from scalenet_zoo.latency.budget import (
    Attempt,
    LatencyChoice,
    choose_at_latency,
    find_latency_model,
    search_at_latency,
)
from scalenet_zoo.latency.items import draw_items, sample_items
from scalenet_zoo.latency.measuring import measure_profile
from scalenet_zoo.latency.model import LatencyModel, accuracy, fit_latency_model, make_latency_model, model_path
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile, Settings
from scalenet_zoo.latency.terms import INT8_TERMS, TERMS, multipath_terms, population_terms, trace_terms
from scalenet_zoo.latency.yardstick import QUIET, Visit, Yardstick, quiet, quiet_ms
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.zoo import catalog as zoo
from scalenet_zoo.zoo.catalog import Entries, find_networks, load_family
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.command import Run
from tests.helpers.latency import SCALENET, SETTINGS, law, made_up_profile
from tests.helpers.random_specs import HEADS, mbconv_specs, multipath_specs, populations

TINY = Plan(layers=2, networks=4, held_out=2)


@pytest.fixture(scope="module")
def made_up() -> LatencyModel:
    return fit_latency_model(made_up_profile())


# --- terms ----------------------------------------------------------------------------------------


PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@settings(max_examples=40)
@given(populations(), st.sampled_from(PRECISIONS))
def test_terms_of_a_population_are_those_of_its_networks(
    drawn: tuple[Population, list[list[ArchSpec]]], precision: Precision
) -> None:
    population, members = drawn
    expected = np.array([[trace_terms(spec.trace, precision) for spec in scaled] for scaled in members])
    np.testing.assert_allclose(np.moveaxis(population_terms(population, precision), 0, -1), expected, rtol=1e-12)


def terms_of_topology(spec: ArchSpec, precision: Precision = "fp32") -> np.ndarray:
    network = spec.network
    assert network.type == "multipath"
    depth = np.zeros((1, len(network.modules), BRANCHES), dtype=int)
    fusion = np.zeros((*depth.shape, FUSION_STEPS, BRANCHES), dtype=bool)
    for m, module in enumerate(network.modules):
        branches = len(module.depth)
        depth[0, m, :branches], fusion[0, m, :branches, :, :branches] = module.depth, module.fusion
    return multipath_terms(depth, fusion, network.width, network.head, spec.input, spec.classes, precision)[:, 0]


@given(multipath_specs(HEADS), st.sampled_from(PRECISIONS))
def test_terms_of_topologies_are_those_of_their_networks(spec: ArchSpec, precision: Precision) -> None:
    expected = trace_terms(spec.trace, precision)
    np.testing.assert_allclose(terms_of_topology(spec, precision), expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("name", [*list_models(task="segmentation"), *list_models(task="pose")])
def test_terms_of_published_topologies_are_those_of_their_networks(name: str) -> None:
    spec = load_spec(name)
    np.testing.assert_allclose(terms_of_topology(spec), trace_terms(spec.trace), rtol=1e-9, atol=1e-3)


def test_topologies_are_costed_together() -> None:
    space = MultipathSpace.load("scalenas_pose")
    topologies = space.sample(np.random.default_rng(0), 5)
    together = multipath_terms(topologies.depth, topologies.fusion, space.width, space.head, space.input, 17)
    each = [trace_terms(space.spec(topologies[i], 17).trace) for i in range(5)]
    np.testing.assert_allclose(together, np.transpose(each), rtol=1e-9, atol=1e-3)


@given(st.one_of(mbconv_specs(), multipath_specs(HEADS)))
def test_terms_count_multiply_adds(spec: ArchSpec) -> None:
    terms = dict(zip(TERMS, trace_terms(spec.trace), strict=True))
    depthwise = sum(op.macs for op in spec.trace.ops if op.groups > 1)
    counted = terms["widen.macs"] + terms["narrow.macs"] + terms["dense.macs"] + terms["linear.weights"]
    assert counted + depthwise == spec.cost.macs
    assert terms["graph.calls"] == 1
    assert terms["widen.blocks"] >= terms["widen.macs"]


@given(st.one_of(mbconv_specs(), multipath_specs(HEADS)))
def test_int8_has_the_terms_of_fp32_and_more(spec: ArchSpec) -> None:
    terms = dict(zip(INT8_TERMS, trace_terms(spec.trace, "int8"), strict=True))
    assert [terms.pop(term) for term in TERMS] == list(trace_terms(spec.trace, "fp32"))
    shapes = spec.trace.shapes
    points, left, gated = 0, 0, 0
    for op in spec.trace.ops:
        channels, height, width = shapes[op.output]
        if op.groups > 1:
            points += op.kernel**2 * height * width
            left += op.kernel**2 * height * width * (channels % 16)
        if op.kind == "elementwise" and (1, 1) == shapes[op.inputs[1]][1:] != (height, width):
            gated += height * width
    assert terms == {"depthwise.points": points, "depthwise.left": left, "elementwise.gated": gated}


def test_terms_of_layers_add_up_to_a_network() -> None:
    spec = load_spec("scalenet_s0")
    assert isinstance(spec.network, MBConvNetwork)
    layers = [layer for stage in spec.network.stages for layer in stage]
    whole = trace_layers(layers, (32, 112, 112))
    first, rest = trace_layers(layers[:5], (32, 112, 112)), None
    rest = trace_layers(layers[5:], first.shapes[-1])
    parts = trace_terms(first) + trace_terms(rest)
    inner = np.array([not term.startswith("graph.") for term in TERMS])
    np.testing.assert_allclose(trace_terms(whole)[inner], parts[inner])
    assert whole.macs == first.macs + rest.macs


# --- the yardstick --------------------------------------------------------------------------------


class Machine:
    """A fake machine whose clock advances by what runs on it, and which slows down and recovers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: Callable[[float], bool]) -> None:
        self.now, self.slow = 0.0, slow
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.rest)

    def rest(self, seconds: float) -> None:
        self.now += seconds

    def runner(self, ms: float) -> Any:
        machine = self

        class Runner:
            def lap(self) -> float:
                taken = ms * (1.5 if machine.slow(machine.now) else 1.0)
                machine.now += taken / 1000
                return taken

        return Runner()


def test_only_quiet_visits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, slow=lambda now: int(now) % 4 in (1, 2, 3))  # slow three seconds of four
    steady = Yardstick(machine.runner(3.0))
    visits = steady.visit(machine.runner(10.0), visits=5, patience=60)
    assert steady.best == pytest.approx(3.0)
    assert len(quiet(visits, steady.best)) == 5
    assert len(visits) > 5
    assert quiet_ms(visits, steady.best) == pytest.approx(10.0)


def test_patience_ends_on_a_machine_that_stays_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, slow=lambda now: True)
    steady = Yardstick(machine.runner(3.0), known=3.0)
    visits = steady.visit(machine.runner(10.0), visits=5, patience=20)
    assert quiet(visits, steady.best) == []
    assert 20 < machine.now < 25
    assert quiet_ms(visits, steady.best) == pytest.approx(10.0)  # as much shortened as the yardstick was slowed down


def test_a_slow_start_is_found_out_later() -> None:
    visits = [Visit(15.0, 4.5, 4.5), Visit(15.1, 4.4, 4.5), Visit(10.0, 3.0, 3.0)]
    assert quiet_ms(visits[:2], best=4.4) == pytest.approx(14.8, abs=0.2)
    assert quiet_ms(visits, best=3.0) == 10.0
    assert quiet([Visit(1.0, 3.0, 3.0 * QUIET)], best=3.0)
    assert not quiet([Visit(1.0, 3.0 * QUIET + 0.01, 3.0)], best=3.0)
    assert quiet_ms([Visit(10.5, 3.15, 3.15)], best=3.0) == pytest.approx(10.0)  # quiet, but not quite as fast


# --- sampling and fitting -------------------------------------------------------------------------


def test_items_are_distinct_in_range_and_the_same_for_a_seed() -> None:
    plan = Plan(layers=30, networks=20, held_out=10, seed=3)
    items = sample_items(SCALENET, plan, divisor=8)
    assert [item.role for item in items].count("layers") == 30
    assert [item.role for item in items].count("networks") == 20
    networks = [item.macs for item in items if item.role != "layers"]
    assert MACS_RANGE[0] <= min(networks) < 400e6
    assert 5e9 < max(networks) <= MACS_RANGE[1]
    assert len({item.macs for item in items}) > 55
    again = sample_items(SCALENET, plan, divisor=8)
    assert all(a.trace == b.trace for a, b in zip(items, again, strict=True))
    other = sample_items(SCALENET, plan.model_copy(update={"seed": 4}), divisor=8)
    assert [item.macs for item in other] != [item.macs for item in items]


def test_few_distinct_layers_are_all_that_is_measured() -> None:
    spec = load_spec("scalenet_s0")
    items = draw_items(lambda rng: spec, Plan(layers=100, networks=4, held_out=2))
    layers = [item for item in items if item.role == "layers"]
    assert isinstance(spec.network, MBConvNetwork)
    assert 10 < len(layers) <= sum(map(len, spec.network.stages))
    assert len({(item.shape, item.macs) for item in layers}) > 10


def test_an_items_module_is_what_its_terms_describe() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for item in sample_items(SCALENET, Plan(layers=6, networks=4, held_out=2), divisor=8):
        if item.role == "layers":
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                item.module().eval()(torch.zeros(1, *item.shape))
            assert counter.get_total_flops() // 2 == item.macs


def test_items_of_dense_tasks_are_topologies_at_the_entries_widths_and_sizes() -> None:
    entries = find_networks("pose")
    plan = Plan(layers=10, networks=20, held_out=4, seed=2)
    items = sample_items(entries, plan, divisor=8)
    specs: dict[str, list[Any]] = {"layers": [], "networks": [], "held_out": []}
    for item in items:
        assert isinstance(item.module, partial)
        (spec,) = item.module.args
        assert (item.macs, item.shape[1:]) == (spec.cost.macs, (spec.input.height, spec.input.width))
        specs[item.role].append(spec)
    assert {role: len(drawn) for role, drawn in specs.items()} == {"layers": 10, "networks": 20, "held_out": 4}
    assert {len(spec.network.modules) for spec in specs["layers"]} == {3}
    assert {len(spec.network.modules) for spec in specs["networks"]} == {8}
    assert {spec.network.width for spec in specs["networks"]} == {18, 32, 48}
    assert len({spec.hash for drawn in specs.values() for spec in drawn}) == 34
    again = sample_items(entries, plan, divisor=8)
    assert all(a.trace == b.trace for a, b in zip(items, again, strict=True))


def test_entries_are_those_of_a_task_the_cheapest_first() -> None:
    pose = find_networks("pose", img_size=(64, 48), num_classes=5)
    assert isinstance(pose, Entries)
    assert pose.name == "pose-64x48"
    assert {(spec.input.height, spec.input.width, spec.classes) for spec in pose.specs} == {(64, 48, 5)}
    assert [spec.name for spec in pose.specs][:3] == ["hrnet_w18_pose", "scalenas_p3", "scalenas_p1"]
    assert not any(spec.bottom_up for spec in pose.specs)
    higher = find_networks("pose", "higherhrnet")
    assert isinstance(higher, Entries)
    assert (higher.name, [spec.name for spec in higher.specs]) == (
        "higherhrnet-pose",
        ["higherhrnet_w32", "higherhrnet_w48"],
    )
    with pytest.raises(
        ModelNotFoundError, match="higherhrnet: found no such family for segmentation, expected scalenas"
    ):
        find_networks("segmentation", "higherhrnet")


def test_the_law_of_dense_networks_is_recovered() -> None:
    entries = find_networks("segmentation", img_size=(256, 512))
    assert isinstance(entries, Entries)
    model = fit_latency_model(made_up_profile(noise=0.01, plan=Plan(layers=10, networks=30, held_out=12), of=entries))
    assert model.held_out.within_5 == 1.0
    assert model.held_out.rms < model.macs_alone.rms
    predicted = [model.predict_spec(spec) for spec in entries.specs]
    truth = [float(law(trace_terms(spec.trace))) for spec in entries.specs]
    np.testing.assert_allclose(predicted, truth, rtol=0.05)


def test_a_law_is_recovered_and_beats_macs_alone(made_up: LatencyModel) -> None:
    assert made_up.held_out.within_5 == 1.0
    assert made_up.held_out.spearman > 0.999
    assert made_up.held_out.rms < made_up.macs_alone.rms / 10
    specs = expand(SCALENET)
    for spec in specs[:4]:
        assert made_up.predict_spec(spec) == pytest.approx(float(law(trace_terms(spec.trace))), rel=0.05)


def test_noise_is_not_learnt() -> None:
    noisy = fit_latency_model(made_up_profile(noise=0.05))
    assert noisy.held_out.rms < 0.08
    networks = sample_items(SCALENET, Plan(layers=0, networks=4, held_out=30, seed=9), divisor=8)
    truth = np.array([law(item.terms("fp32")) for item in networks])
    predicted = np.array([noisy.predict_terms(item.terms("fp32")) for item in networks])
    assert accuracy(predicted, truth).rms < 0.04


def test_accuracy_by_hand() -> None:
    found = accuracy(np.array([1.0, 2.14, 3.6]), np.array([1.0, 2.0, 3.0]))
    assert found.networks == 3
    assert found.spearman == pytest.approx(1.0)
    assert found.within_5 == pytest.approx(1 / 3)
    assert found.within_10 == pytest.approx(2 / 3)
    assert found.worst == pytest.approx(0.2)
    assert found.rms == pytest.approx(math.sqrt((0.07**2 + 0.2**2) / 3))
    assert accuracy(np.array([2.0, 2.0]), np.array([1.0, 2.0])).spearman == 0.0  # there is no rank among equals


def test_a_population_is_predicted_as_its_networks_are(made_up: LatencyModel) -> None:
    strategies = SCALENET.strategies
    population = Population(
        SCALENET,
        encode_kernels(SCALENET.base),
        np.array([strategy.depth for strategy in strategies]),
        np.array([strategy.width for strategy in strategies]),
        np.array([strategy.resolution for strategy in strategies]),
    )
    expected = [made_up.predict_spec(spec) for spec in expand(SCALENET)]
    np.testing.assert_allclose(made_up.predict(population)[0], expected, rtol=1e-9)


def test_a_model_is_json_and_survives_saving(made_up: LatencyModel, tmp_path: Path) -> None:
    made_up.save(tmp_path / "model.json")
    loaded = LatencyModel.load(tmp_path / "model.json")
    assert loaded == made_up
    assert loaded.predict_spec(load_spec("scalenet_s2")) == made_up.predict_spec(load_spec("scalenet_s2"))
    text = json.loads((tmp_path / "model.json").read_text())
    text["milliseconds"][0] = -1.0
    (tmp_path / "model.json").write_text(json.dumps(text))
    with pytest.raises(SpecError, match=r"model.json: milliseconds.0: found -1.0, expected"):
        LatencyModel.load(tmp_path / "model.json")


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["milliseconds"].pop(), rf"milliseconds: found {len(TERMS) - 1} numbers, expected {len(TERMS)}"),
        (lambda m: m.update(milliseconds=[]), rf"milliseconds: found 0 numbers, expected {len(TERMS)}"),
        (lambda m: m["correction"].update(points=[], weights=[]), r"correction.points: .* at least 1"),
        (lambda m: m["correction"]["points"][3].pop(), r"correction.points.3: .* at least \d+ items"),
        (lambda m: m["correction"]["points"][3].append(0.0), r"correction.points.3: .* at most \d+ items"),
        (lambda m: m["correction"]["weights"].pop(), r"correction: weights: found \d+, expected \d+, one per point"),
        (lambda m: m["correction"]["mean"].pop(), r"correction.mean: .* at least \d+ items"),
        (lambda m: m["correction"]["scale"].append(1.0), r"correction.scale: .* at most \d+ items"),
        (lambda m: m["correction"]["scale"].__setitem__(0, -1.0), r"correction.scale.0: found -1.0, expected"),
        (lambda m: m["correction"].update(gamma=-0.1), r"correction.gamma: found -0.1, expected"),
        (lambda m: m["correction"].update(gamma=math.nan), r"correction.gamma: found NaN, expected a finite number"),
        (lambda m: m["correction"]["mean"].__setitem__(0, 1e300), r"correction.mean.0: found 1e\+300, expected"),
        (lambda m: m.update(yardstick=0.0), r"yardstick: found 0.0, expected"),
        (lambda m: m["settings"].update(threads=10**6), r"settings.threads: found 1000000, expected"),
        (lambda m: m["held_out"].update(rms=-1.0), r"held_out.rms: found -1.0, expected"),
    ],
)
def test_a_damaged_model_is_refused_in_a_line(
    change: Change, complaint: str, made_up: LatencyModel, tmp_path: Path
) -> None:
    document = json.loads(made_up.to_json())
    change(document)
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(SpecError, match=rf"model.json: {complaint}") as refused:
        LatencyModel.load(tmp_path / "model.json")
    assert len(str(refused.value).removeprefix(str(tmp_path))) < 200


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda p: p["measurements"][2]["terms"].pop(),
            r"measurements.2.terms: found \d+ numbers, expected \d+, one per term",
        ),
        (lambda p: p["measurements"][2]["terms"].__setitem__(0, -1.0), r"measurements.2.terms.0: found -1.0, expected"),
        (lambda p: p["measurements"][2].update(visits=[]), r"measurements.2.visits: .* at least 1 item"),
        (lambda p: p["measurements"][2]["visits"][0].pop(), r"measurements.2.visits.0"),
        (lambda p: p["measurements"][2]["visits"][0].__setitem__(1, 0.0), r"measurements.2.visits.0.1: found 0.0, exp"),
        (lambda p: p["measurements"][2].update(macs=0), r"measurements.2.macs: found 0, expected"),
        (lambda p: p["plan"].update(networks=10**9), r"plan.networks: found 1000000000, expected"),
    ],
)
def test_a_damaged_profile_is_refused_in_a_line(change: Change, complaint: str, tmp_path: Path) -> None:
    document = json.loads(made_up_profile(plan=TINY).to_json())
    change(document)
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(SpecError, match=rf"p.json: {complaint}") as refused:
        Profile.load(tmp_path / "p.json")
    assert len(str(refused.value).removeprefix(str(tmp_path))) < 200


def test_an_incomplete_profile_is_refused() -> None:
    made = made_up_profile(plan=TINY)
    for role, found in (("networks", "0 of networks, expected 4"), ("held_out", "0 of held_out, expected 2")):
        rest = tuple(each for each in made.measurements if each.role != role)
        with pytest.raises(InputError, match=f"profile: measurements: found {found} or more: profile again"):
            fit_latency_model(made.model_copy(update={"measurements": rest}))


def test_a_model_that_predicts_no_time_is_refused(made_up: LatencyModel) -> None:
    spec = load_spec("scalenet_s0")
    nothing = made_up.model_copy(update={"milliseconds": (0.0,) * len(TERMS)})
    weights = tuple(1e6 for _ in made_up.correction.weights)
    endless = made_up.model_copy(update={"correction": made_up.correction.model_copy(update={"weights": weights})})
    for model in (nothing, endless):
        with pytest.raises(InputError, match="found numbers that predict no valid time"):
            model.predict_spec(spec)


def test_many_networks_are_predicted_as_few_are(made_up: LatencyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = np.stack([item.terms("fp32") for item in sample_items(SCALENET, TINY, divisor=8)], axis=1)
    expected = made_up.predict_terms(terms)
    monkeypatch.setattr(latency_model, "PREDICTED_AT_ONCE", 3 * len(made_up.correction.points))
    np.testing.assert_allclose(made_up.predict_terms(terms), expected, rtol=1e-12)


def test_a_model_with_other_terms_is_refused(made_up: LatencyModel, tmp_path: Path) -> None:
    made_up.model_copy(update={"terms": TERMS[1:]}).save(tmp_path / "model.json")
    with pytest.raises(SpecError, match=r"model.json: terms: found another version's, expected this version's"):
        LatencyModel.load(tmp_path / "model.json")


def test_a_profile_with_other_terms_is_refused() -> None:
    made = made_up_profile(plan=Plan(layers=1, networks=4, held_out=2))
    with pytest.raises(InputError, match="profile: terms: found another version's"):
        fit_latency_model(made.model_copy(update={"terms": TERMS[1:]}))


# --- constraints ----------------------------------------------------------------------------------


@given(st.floats(1.0, 1e11), st.sampled_from([Macs, Params]))
def test_constraints_say_what_is_feasible(budget: float, kind: type[Macs] | type[Params]) -> None:
    population = Population(SCALENET, encode_kernels(SCALENET.base), 1.0, [1.0, 1.5, 2.0], [224, 300, 400])
    constraint = kind(budget)
    costs = constraint.measure(population)
    np.testing.assert_array_equal(costs, getattr(population.cost, constraint.measure_name))
    feasible, violation = constraint.feasible(population), constraint.violation(population)
    np.testing.assert_array_equal(feasible, costs <= budget)
    np.testing.assert_array_equal(feasible, violation == 0)
    np.testing.assert_allclose((1 + violation[~feasible]) * budget, costs[~feasible])


@pytest.mark.parametrize("budget", [2.5, 7.5, 40.0, 200.0])
def test_a_latency_budget_is_used_well(made_up: LatencyModel, budget: float) -> None:
    spec = fit_budget(SCALENET, Latency(budget, made_up))
    assert TIGHTNESS * budget <= made_up.predict_spec(spec) <= budget
    assert spec.name == f"scalenet_{budget:g}ms"


def test_latencies_out_of_range_are_reported(made_up: LatencyModel) -> None:
    with pytest.raises(
        BudgetError, match=r"latency: found 0.01ms, expected [\d.]+ms to [\d.]+ms for the family scalenet"
    ):
        fit_budget(SCALENET, Latency(0.01, made_up))


# --- measuring for real ---------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scalenet-zoo" / "latency"


@pytest.fixture
def small_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only small networks and few visits, which are quick to measure."""
    monkeypatch.setattr(items, "macs_range", lambda base_macs: (100e6, 200e6))
    monkeypatch.setattr(measuring, "VISITS", 1)
    monkeypatch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine too
    monkeypatch.setattr(yardstick, "REST", 0.01)


@pytest.mark.slow
def test_a_real_profile_predicts_in_the_right_range(small_range: None, tmp_path: Path) -> None:
    told = []
    model = make_latency_model(SCALENET, SETTINGS, TINY, tmp_path / "model.json", lambda *what: told.append(what))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.profile.json"]
    assert [(done, total) for _, done, total in told] == [(i, 8) for i in range(9)]
    assert LatencyModel.load(tmp_path / "model.json") == model
    measured = Profile.load(tmp_path / "model.profile.json")
    times = [ms for m, ms in zip(measured.measurements, measured.milliseconds, strict=True) if m.role == "networks"]
    assert all(0.1 < ms < 1000 for ms in times)
    assert (
        0.2 * min(times) < model.predict_spec(load_spec("scalenet_s0").replace(height=160, width=160)) < 5 * max(times)
    )
    assert measured.machine["cpu"]


PROGRAM = """
import sys
from pathlib import Path
from scalenet_zoo.latency import items, measuring, yardstick
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.zoo.catalog import load_family
items.macs_range, measuring.VISITS, yardstick.QUIET = lambda base_macs: (100e6, 200e6), 1, float("inf")
settings = Settings(family="scalenet", backend="torch", threads=1)
plan = Plan(layers=4, networks=4, held_out=2)
tell = lambda what, done, total: print(done, flush=True)
measuring.measure_profile(load_family("scalenet"), settings, plan, Path(sys.argv[1]), tell)
"""


@pytest.mark.slow
def test_a_killed_profile_resumes_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 3:
                process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob("*.json")) == []
    kept = Profile.load(tmp_path / "p.partial" / "p.json").measurements
    assert 3 <= len(kept) < 10
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True).stdout
    assert int(done.split()[0]) == len(kept)
    finished = Profile.load(path)
    assert finished.measurements[: len(kept)] == kept
    assert len(finished.measurements) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


def test_a_partial_profile_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "p.partial" / "p.json"
    made = made_up_profile(plan=TINY)
    made.save(part)
    with pytest.raises(InputError, match=r"p.partial/p.json: plan: found another run's, expected this run's; delete"):
        measure_profile(SCALENET, SETTINGS, TINY.model_copy(update={"seed": 5}), tmp_path / "p.json")
    with pytest.raises(InputError, match=r"p.partial/p.json: machine.cpu: found another run's"):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")
    monkeypatch.setattr(profile, "machine", lambda: {"cpu": None, "gpu": None, "versions": None})
    first, *others = made.measurements
    for measurements in ((*others, first), (*made.measurements, first)):
        made.model_copy(update={"measurements": measurements}).save(part)
        with pytest.raises(InputError, match=r"p.partial/p.json: measurements: found another run's, expected this"):
            measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")
    part.write_text(made.to_json()[:-9])
    with pytest.raises(SpecError, match=r"p.partial/p.json: is not valid JSON"):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")


def test_one_process_at_a_time_measures_a_profile(tmp_path: Path) -> None:
    with (
        hold(tmp_path / "p.partial"),  # as another process would
        pytest.raises(TrainingError, match=r"p.partial: found another process at work in it, expected one at a time"),
    ):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_cannot_be_written_is_reported_before_measuring(
    cached: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("file" if cached else "cache")))
    monkeypatch.setattr(measuring, "prepare_yardstick", None)  # nothing may be measured
    path = model_path(SETTINGS) if cached else tmp_path / "file" / "model.json"
    hint = "; XDG_CACHE_HOME=FOLDER puts it elsewhere" if cached else ""
    with pytest.raises(OutputError, match=f"profile.json: cannot be written: (Not a directory|File exists){hint}$"):
        make_latency_model(SCALENET, SETTINGS, TINY, path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_checking_that_a_file_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "newer" / "file.json")
    (tmp_path / "old.json").write_text("old")
    check_writable(tmp_path / "old.json")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


# --- budgets by measurement -----------------------------------------------------------------------


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
