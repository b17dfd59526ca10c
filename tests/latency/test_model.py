"""Latency models: how they are fitted, stored and used as constraints; the items that they are fitted to."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.constraints import Latency, Macs, Params
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import MACS_RANGE, TIGHTNESS, encode_kernels, expand, fit_budget
from scalenet_zoo.arch.spec import MBConvNetwork
from scalenet_zoo.core.errors import BudgetError, InputError, ModelNotFoundError, SpecError
from scalenet_zoo.latency import model as latency_model
from scalenet_zoo.latency.items import draw_items, sample_items
from scalenet_zoo.latency.model import LatencyModel, accuracy, fit_latency_model
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile
from scalenet_zoo.latency.terms import TERMS, trace_terms
from scalenet_zoo.zoo.catalog import Entries, find_networks
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.latency import RESULTS, SCALENET, TINY, law, made_up_profile


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


def test_the_weights_are_the_optimum() -> None:
    """By the conditions of Karush, Kuhn and Tucker: no weight can change without a larger error or a sign."""
    profile = Profile.load(RESULTS / "latency_model_ort_cpu_int8.profile.json")
    terms = np.array([measurement.terms for measurement in profile.measurements]).T
    ms = np.array(profile.milliseconds)
    used = terms.max(axis=1) > 0
    scale = terms[used].mean(axis=1)
    weights = latency_model._fit_additive(terms, ms)[used] * scale
    rows = (terms[used] / scale[:, None] / ms).T
    slope = rows.T @ (rows @ weights - 1) + latency_model.RIDGE * weights
    assert (weights >= 0).all()
    assert 5 < (weights > 0).sum() < len(weights)
    np.testing.assert_allclose(slope[weights > 0], 0, atol=1e-9)
    assert (slope[weights == 0] > -1e-9).all()


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
