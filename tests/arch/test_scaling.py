"""Scaling rules, growth laws, and networks at a budget."""

import math
import re
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet_zoo import build, load_spec
from scalenet_zoo.arch.constraints import Macs, Params
from scalenet_zoo.arch.family import LEAST, MOST, Family, Strategy
from scalenet_zoo.arch.rounding import scale_channels, scale_depth, squeeze_channels
from scalenet_zoo.arch.scaling import (
    LARGEST_RESOLUTION,
    MACS_RANGE,
    TIGHTNESS,
    GrowthLaw,
    _within,
    apply_strategy,
    extrapolate,
    fit_budget,
    fit_growth_law,
    follow_law,
)
from scalenet_zoo.arch.spec import ArchSpec, Provenance
from scalenet_zoo.budgets import spec_for
from scalenet_zoo.core.bounds import LAYERS
from scalenet_zoo.core.errors import BudgetError, ModelNotFoundError, QuantityError, SpecError
from scalenet_zoo.core.quantities import format_count, parse_count
from scalenet_zoo.spaces.scalenet import Scaling
from scalenet_zoo.zoo.catalog import FAMILIES, load_family
from scalenet_zoo.zoo.kinship import best_source, hindrances
from tests.helpers.searching import SMALL

# --- exact decimals -------------------------------------------------------------------------------


def test_decimals_are_exact() -> None:
    assert math.ceil(80 * 1.2) == 96
    assert math.ceil(100 * 1.1) == 111  # what binary floating point does
    assert scale_channels(100, 1.1, divisor=1) == 110
    assert scale_channels(80, 1.2, divisor=1) == 96
    assert 1.025 * 1e6 < 1_025_000
    assert scale_channels(160, 1.025, divisor=8) == 168  # of 164, half way between 160 and 168
    assert scale_channels(10, 1.0, divisor=9) == 9  # 0.9 of it is not too little


@given(st.integers(1, 5000), st.integers(1, 3_000_000))
def test_rounding_agrees_with_decimal_arithmetic(amount: int, millionths: int) -> None:
    multiplier = millionths / 1_000_000
    exact = int((amount * Decimal(millionths) / 1_000_000).to_integral_value(ROUND_CEILING))
    assert scale_depth(amount, multiplier) == exact
    assert scale_channels(amount, multiplier, divisor=1) == exact


@given(st.integers(1, 5000), st.integers(1, 300), st.sampled_from([2, 4, 8, 16]))
def test_divisor_rounds_to_the_nearest_but_never_far_below(channels: int, hundredths: int, divisor: int) -> None:
    from timm.layers import make_divisible

    width = hundredths / 100
    found = int(scale_channels(channels, width, divisor))
    assert found % divisor == 0
    assert found >= 0.9 * channels * width - 1e-6
    assert abs(found - channels * width) <= max(divisor, 0.1 * channels * width + divisor / 2)
    if (2 * channels * hundredths) % (100 * divisor):  # where timm's floating point is not at a tie
        assert found == make_divisible(channels * width, divisor)


def test_squeezed_channels_are_a_quarter_and_at_least_one() -> None:
    before, hidden = np.array([2, 8, 19]), np.array([3, 48, 114])
    np.testing.assert_array_equal(squeeze_channels(before, hidden, "input"), [1, 2, 4])
    np.testing.assert_array_equal(squeeze_channels(before, hidden, "expanded"), [1, 12, 28])


def test_rounding_is_vectorised() -> None:
    widths = np.array([0.7, 1.0, 1.04])
    np.testing.assert_array_equal(scale_channels(40, widths, 1), [28, 40, 42])
    np.testing.assert_array_equal(scale_depth([[1], [4]], widths), [[1, 1, 2], [3, 4, 5]])


# --- applying strategies --------------------------------------------------------------------------


def test_added_layers_repeat_the_last_choice() -> None:
    family = load_family("scalenet")
    spec = apply_strategy(family, Strategy(name="deep", stage=1.0, depth=1.5, width=1.0, resolution=224))
    assert spec.network.type == "mbconv"
    assert [layer.kernel for layer in spec.network.stages[2]] == [7, 7, 5, 3, 3, 3]
    assert [layer.stride for layer in spec.network.stages[2]] == [2, 1, 1, 1, 1, 1]
    assert {layer.channels for layer in spec.network.stages[2]} == {40}
    assert spec.network.stages[2][0].hidden == 6 * 32  # six times the input's channels, not its own
    assert spec.network.head.channels == 1280


def test_stem_and_head_scale_where_the_family_says_so() -> None:
    wide = Strategy(name="wide", stage=1.0, depth=1.0, width=1.5, resolution=224)
    heads, stems = {}, {}
    for name in FAMILIES["classification"]:
        network = apply_strategy(load_family(name), wide).network
        assert network.type == "mbconv"
        heads[name], stems[name] = network.head.channels, network.stem.channels
    assert heads == {"scalenet": 1280, "efficientnet": 1920, "efficientnet_lite": 1280}
    assert stems == {"scalenet": 48, "efficientnet": 48, "efficientnet_lite": 32}


# --- growth laws ----------------------------------------------------------------------------------


def exponential(depth: float, width: float, resolution: float, stage: float) -> Strategy:
    return Strategy(
        name=f"s{stage:g}",
        stage=stage,
        depth=math.exp(depth * stage),
        width=math.exp(width * stage),
        resolution=round(100_00 * math.exp(resolution * stage)),
    )


def test_growth_law_recovers_laws_that_keep_the_budget() -> None:
    depth, width = 0.2, 0.1
    resolution = (math.log(2) - depth - 2 * width) / 2
    law = fit_growth_law([exponential(depth, width, resolution, s) for s in (0, 1, 2, 3)], 100_00)
    assert (law.depth, law.width, law.resolution) == pytest.approx((depth, width, resolution), abs=1e-4)


def test_growth_law_is_the_least_squares_solution_under_the_constraint() -> None:
    family = load_family("scalenet")
    law = fit_growth_law(family.strategies, 224)
    assert law.depth + 2 * law.width + 2 * law.resolution == pytest.approx(math.log(2))

    def error(depth: float, width: float, resolution: float) -> float:
        total = 0.0
        for s in family.strategies:
            logs = (math.log(s.depth), math.log(s.width), math.log(s.resolution / 224))
            total += sum((a * s.stage - b) ** 2 for a, b in zip((depth, width, resolution), logs, strict=True))
        return total

    best = error(law.depth, law.width, law.resolution)
    rng = np.random.default_rng(0)
    for a, b in rng.normal(0, 0.02, (200, 2)):  # steps that keep the constraint
        assert error(law.depth + a, law.width + b, law.resolution - a / 2 - b) >= best


def test_growth_law_of_efficientnet_is_its_compound_rule() -> None:
    law = fit_growth_law(load_family("efficientnet").strategies, 224)
    assert math.exp(law.depth) == pytest.approx(1.2, abs=0.03)
    assert math.exp(law.width) == pytest.approx(1.1, abs=0.03)
    assert math.exp(law.resolution) == pytest.approx(1.15, abs=0.05)


def test_growth_law_needs_a_strategy() -> None:
    with pytest.raises(ValueError, match="expected at least one to fit a growth law"):
        fit_growth_law(load_family("scalenet").strategies[:1], 224)


# --- extrapolation --------------------------------------------------------------------------------


def found_family(seed: int = 0) -> Family:
    """A base model of a small space, of less than a million MACs, under strategies of it."""
    base = SMALL.sample(np.random.default_rng(seed), 1)[0]
    scalings = [SMALL.unscaled, Scaling(1, 1.2, 1.1, 36), Scaling(2, 1.5, 1.3, 40)]
    return SMALL.family(base, scalings, 10, "small", Provenance(source="a test"))


def eights_family() -> Family:
    """A small base model, all of whose resolutions are multiples of 8."""
    strategies = [
        each.model_copy(update={"resolution": each.resolution // 8 * 8}) for each in found_family().strategies
    ]
    return found_family().model_copy(update={"strategies": tuple(strategies)})


@pytest.mark.parametrize(
    ("family", "unit"),
    [
        (load_family("scalenet"), 1),
        (load_family("efficientnet"), 1),
        (load_family("efficientnet_lite"), 1),
        (eights_family(), 8),
        *((found_family(seed), 1) for seed in range(4)),
    ],
)
def test_later_stages_follow_the_law_within_their_budget(family: Family, unit: int) -> None:
    strategies = extrapolate(family, stages=(3, 4, 5, 6))
    law = fit_growth_law(family.strategies, family.base.resolution)
    base = apply_strategy(family, Strategy(name="x", stage=0, depth=1, width=1, resolution=family.base.resolution))
    for strategy, stage in zip(strategies, (3, 4, 5, 6), strict=True):
        assert (strategy.name, strategy.stage) == (f"{family.name}_s{stage}", stage)
        along = math.log(strategy.depth) / law.depth
        assert along <= stage + 1e-4
        assert strategy.width == pytest.approx(math.exp(law.width * along), rel=1e-4)
        exact = family.base.resolution * math.exp(law.resolution * along)
        assert abs(strategy.resolution - exact) < 1.01 * unit
        assert strategy.resolution % unit == 0
        budget = 2**stage * base.cost.macs
        assert 0.8 * budget <= apply_strategy(family, strategy).cost.macs <= budget


def test_strategies_slide_back_no_farther_than_the_budget_requires() -> None:
    family = load_family("scalenet")
    law = fit_growth_law(family.strategies, 224)
    base = family.base.resolution
    (strategy,) = extrapolate(family, stages=(4,))
    along = math.log(strategy.depth) / law.depth
    step = along + 0.01
    further = Strategy(
        name="further",
        stage=4,
        depth=math.exp(law.depth * step),
        width=math.exp(law.width * step),
        resolution=round(base * math.exp(law.resolution * step) / 8) * 8,
    )
    plain = apply_strategy(family, Strategy(name="x", stage=0, depth=1, width=1, resolution=base))
    assert apply_strategy(family, further).cost.macs > 16 * plain.cost.macs
    free = follow_law(family, GrowthLaw(0.01, 0.01, 0.01), 4, 4.0, "free")  # a law far below the budget
    assert free.depth == pytest.approx(math.exp(0.04), abs=1e-5)


def test_no_law_can_be_fitted_to_the_base_model_alone() -> None:
    family = found_family()
    with pytest.raises(ValueError, match="expected at least one to fit a growth law"):
        extrapolate(family.model_copy(update={"strategies": family.strategies[:1]}))


# --- budgets --------------------------------------------------------------------------------------


def channels(spec: ArchSpec) -> list[int]:
    assert spec.network.type == "mbconv"
    return [spec.network.stem.channels, *(layer.channels for stage in spec.network.stages for layer in stage)]


@settings(max_examples=30)
@given(
    st.floats(math.log(MACS_RANGE[0]), math.log(MACS_RANGE[1])).map(math.exp),
    st.sampled_from(FAMILIES["classification"]),
    st.sampled_from([8, 1]),
)
def test_networks_at_a_budget_of_macs(budget: float, family: str, divisor: int) -> None:
    budget = min(max(int(budget), int(MACS_RANGE[0])), int(MACS_RANGE[1]))
    spec = spec_for(flops=budget, family=family, divisor=divisor)
    assert TIGHTNESS * budget <= spec.cost.macs <= budget
    assert spec.input.height == spec.input.width
    assert spec.input.height % 8 == 0
    assert all(c % divisor == 0 for c in channels(spec))


@settings(max_examples=20)
@given(
    st.floats(math.log(3.3e6), math.log(25e6)).map(math.exp),
    st.sampled_from(FAMILIES["classification"]),
    st.sampled_from([10, 1000]),
)
def test_networks_at_a_budget_of_parameters(amount: float, family: str, classes: int) -> None:
    budget = int(amount)
    spec = spec_for(params=budget, family=family, num_classes=classes)
    assert TIGHTNESS * budget <= spec.cost.params <= budget
    assert spec.input.height % 8 == 0


@pytest.mark.parametrize("family", ["efficientnet", "efficientnet_lite"])
@pytest.mark.parametrize("flops", ["390M", "500M", "550M", "1G", "6G"])
def test_networks_that_are_to_inherit_can_be_grown(family: str, flops: str) -> None:
    """At 500M the law's networks are narrower than the base model: nothing published could be grown into them."""
    budget, plain = parse_count(flops, "--flops"), spec_for(flops=flops, family=family)
    spec = spec_for(flops=flops, family=family, pretrained=True)
    assert 0.97 * budget <= spec.cost.macs <= budget
    assert hindrances(spec, load_spec(best_source(spec))) == ()
    if not hindrances(plain, load_spec(best_source(plain))):
        assert spec == plain
    assert (spec == plain) == (flops != "500M" and (family, flops) != ("efficientnet", "550M"))


def test_networks_below_what_is_published_are_the_laws() -> None:
    assert spec_for(flops="200M", family="efficientnet_lite", pretrained=True) == spec_for(
        flops="200M", family="efficientnet_lite"
    )
    assert spec_for(flops="600M", pretrained=True) == spec_for(flops="600M")  # nothing of ScaleNet's is published


def test_larger_budgets_give_larger_networks() -> None:
    specs = [spec_for(flops=f"{2**i * 100}M") for i in range(8)]
    for smaller, larger in pairwise(specs):
        assert smaller.input.height <= larger.input.height
        assert len(channels(smaller)) <= len(channels(larger))
        assert channels(smaller)[-1] <= channels(larger)[-1]


def test_provenance_says_how_to_get_the_network_again() -> None:
    spec = spec_for(flops="600M")
    family = load_family("scalenet")
    details = spec.provenance.details
    strategy = Strategy(
        name=spec.name,
        stage=0.0,
        depth=float(str(details["depth"])),
        width=float(str(details["width"])),
        resolution=int(str(details["resolution"])),
    )
    assert apply_strategy(family, strategy, divisor=8).network == spec.network
    assert spec.name == "scalenet_600m"


@pytest.mark.parametrize(
    ("task", "flops", "name"),
    [
        ("segmentation", "300G", "scalenas_s1"),
        ("segmentation", "700G", "scalenas_s3"),
        ("pose", "8G", "hrnet_w32_pose"),
        ("pose", "9G", "scalenas_p2"),
    ],
)
def test_dense_tasks_take_the_largest_entry_within_the_budget(task: str, flops: str, name: str) -> None:
    assert spec_for(flops=flops, task=task).name == name  # type: ignore[arg-type]


def test_dense_tasks_by_family_parameters_and_classes() -> None:
    assert spec_for(flops="9G", task="pose", family="hrnet").name == "hrnet_w32_pose"
    assert spec_for(params="30M", task="segmentation").name == "hrnet_w32"
    assert spec_for(flops="300G", task="segmentation", num_classes=11).classes == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flops": "99M"}, "macs: found 99M, expected 100M to 20G for the family scalenet"),
        ({"flops": "21G"}, "macs: found 21G, expected 100M to 20G for the family scalenet"),
        ({"params": "1M"}, r"params: found 1M, expected 3\.201M to 32\.56M for the family scalenet"),
        ({"params": "1G", "family": "efficientnet"}, r"params: found 1G, expected .* for the family efficientnet"),
        ({"flops": "1G", "task": "segmentation"}, "expected 147.5G to 747.5G for the zoo's segmentation networks"),
        ({"flops": "1T", "task": "segmentation"}, "expected 147.5G to 747.5G for the zoo's segmentation networks"),
        ({"flops": "100M", "divisor": 256}, r"macs: found 100M, expected 1\.\d+G to 20G for the family scalenet"),
        ({"flops": "8G", "divisor": 640}, "found no network of the family scalenet between 97% and 100% of 8G"),
        ({}, "found neither or both of flops and params, expected exactly one"),
        ({"flops": "1G", "params": "5M"}, "found neither or both of flops and params"),
    ],
)
def test_budgets_out_of_range_state_the_range(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        spec_for(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"task": "classification"},
        {"task": "classification", "family": "efficientnet"},
        {"task": "segmentation"},
        {"task": "segmentation", "family": "hrnet"},
        {"task": "pose", "num_classes": 3},
    ],
)
@pytest.mark.parametrize("measure", ["flops", "params"])
def test_the_stated_ends_of_a_range_can_be_built(arguments: dict[str, Any], measure: str) -> None:
    with pytest.raises(BudgetError) as caught:
        spec_for(**(arguments | {measure: "1K"}))
    stated = re.search(r"expected (\S+) to (\S+) for", str(caught.value))
    assert stated
    for end in stated.groups():
        assert spec_for(**(arguments | {measure: end})).cost.params > 0
    if family := arguments.get("family"):
        assert f"family {family}" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"divisor": 0}, "divisor: found 0, expected a whole number from 1 to 1024"),
        ({"divisor": -8}, "divisor: found -8, expected"),
        ({"divisor": 2.5}, "divisor: found 2.5, expected a whole number"),
        ({"num_classes": -1}, "num_classes: found -1, expected a whole number from 0 to 1000000"),
        ({"num_classes": "10"}, "num_classes: found '10', expected a whole number"),
        ({"in_chans": 0}, "in_chans: found 0, expected a whole number from 1 to 65536"),
    ],
)
def test_arguments_out_of_their_ranges(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantityError, match=message):
        spec_for(flops="600M", **arguments)


def test_many_classes_narrow_the_range() -> None:
    with pytest.raises(BudgetError, match=r"macs: found 600M, expected 1\.\d+G to 20G for the family scalenet"):
        spec_for(flops="600M", num_classes=1_000_000)
    assert spec_for(flops="2G", num_classes=np.int64(1_000_000)).classes == 1_000_000  # type: ignore[arg-type]


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(ModelNotFoundError, match="detection: found no such task, expected one of classification,"):
        spec_for(flops="600M", task="detection")  # type: ignore[arg-type]


def test_strategies_out_of_bounds_are_one_line() -> None:
    huge = Strategy(name="huge", stage=1.0, depth=1.0, width=100.0, resolution=224)
    with pytest.raises(SpecError, match=r"huge: hidden: found \d+, expected less than or equal to 65536"):
        apply_strategy(load_family("scalenet"), huge)
    with pytest.raises(SpecError, match="huge: depth: found 100, which gives 1,400 layers"):
        apply_strategy(load_family("scalenet"), huge.model_copy(update={"depth": 100.0}))


def family_of(**changes: object) -> Family:
    """The family scalenet with each of its strategies changed."""
    values = load_family("scalenet").model_dump(mode="json")
    values["strategies"] = [{**strategy, **changes} for strategy in values["strategies"]]
    return Family.from_dict(values, "file.json")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"depth": 1e-9}, "file.json: strategies.0.depth: found 1e-09, expected greater than or equal to 0.01"),
        ({"width": 1e9}, "file.json: strategies.0.width: found 1000000000.0, expected less than or equal to 100"),
        (
            {"stage": 1e-9},
            r"scalenet: strategies: found growth by a factor of about 1e\d+ per stage, expected at most 100",
        ),
        ({"stage": 0.0}, "scalenet: strategies: found none with a stage above 0"),
    ],
)
def test_families_of_extreme_figures_are_one_line(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint) as caught:
        fit_budget(family_of(**changes), Macs(600e6))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("changes", [{"depth": 0.01}, {"depth": 100.0}, {"width": 100.0}])
def test_growth_laws_are_followed_as_far_as_strategies_go(changes: dict[str, object]) -> None:
    family = family_of(**changes)
    found = fit_budget(family, Macs(600e6))
    assert TIGHTNESS * 600e6 <= found.cost.macs <= 600e6
    for strategy in extrapolate(family, stages=(4, 20)):
        assert 0.01 <= strategy.depth <= 100
        assert 0.01 <= strategy.width <= 100
        assert 1 <= strategy.resolution <= 65_536


def test_families_have_an_end() -> None:
    values = load_family("scalenet").model_dump(mode="json")
    with pytest.raises(SpecError, match="file.json: strategies: .* at most 100 items"):
        Family.from_dict({**values, "strategies": values["strategies"] * 20}, "file.json")


def test_unknown_families_are_named() -> None:
    with pytest.raises(
        ModelNotFoundError, match="hrnet: found no such family for classification, expected scalenet or"
    ):
        spec_for(flops="600M", family="hrnet")


def test_build_makes_the_network() -> None:
    model = build(flops="150M", num_classes=10, drop_rate=0.1)
    spec = spec_for(flops="150M", num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == spec.cost.params
    assert model.spec == spec
    assert build(flops=150e6, num_classes=10).spec == spec


def test_the_family_of_a_budget_is_not_tied_to_the_zoo() -> None:
    family = load_family("scalenet").model_copy(update={"name": "mine"})
    assert fit_budget(family, Macs(500_000_000), classes=10, in_channels=1).name == "mine_500m"


def test_every_stage_of_the_zoo_lies_in_the_range() -> None:
    assert all(MACS_RANGE[0] <= load_spec(f"scalenet_s{i}").cost.macs <= MACS_RANGE[1] for i in range(6))


# --- quantities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("600M", 600_000_000), ("1.2G", 1_200_000_000), (" 5m ", 5_000_000), ("0.1K", 100), ("2 T", 2 * 10**12)],
)
def test_quantities(text: str, value: int) -> None:
    assert parse_count(text, "--flops") == value


@pytest.mark.parametrize("text", ["600", "600X", "-5M", "nan", "", "M", "1e9", "1.2.3M", "0M", "600MB", "١M", "inf"])
def test_bad_quantities(text: str) -> None:
    with pytest.raises(QuantityError, match="--flops: found .* expected a positive number with a unit K, M, G or T"):
        parse_count(text, "--flops")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_no_budget(value: float) -> None:
    with pytest.raises(QuantityError, match="--params: found (nan|inf), expected a finite number"):
        spec_for(params=value)


@pytest.mark.parametrize(
    ("value", "text"), [(352_691_328, "352.7M"), (1_200_000_000, "1.2G"), (999, "999"), (1_500, "1.5K"), (10**12, "1T")]
)
def test_counts_as_text(value: int, text: str) -> None:
    assert format_count(value) == text


def test_a_network_may_have_as_many_layers_as_specs_allow() -> None:
    family = load_family("scalenet")
    stage = family.base.stages[1].model_copy(update={"kernels": (3,) * 64, "channels": 8, "stride": 1})
    family = family.model_copy(update={"base": family.base.model_copy(update={"stages": (stage,) * 8})})
    allowed = Strategy(name="deep", stage=0.0, depth=2.0, width=1.0, resolution=32)
    network: Any = apply_strategy(family, allowed).network
    assert sum(len(layers) for layers in network.stages) == LAYERS
    with pytest.raises(SpecError, match=r"deep: depth: found 2.01, which gives 1,032 layers, expected"):
        apply_strategy(family, allowed.model_copy(update={"depth": 2.01}))


def test_the_bounds_are_those_of_strategies() -> None:
    ones = np.ones(4)
    pixels = np.array([0.99, 1.0, LARGEST_RESOLUTION, LARGEST_RESOLUTION + 1])
    assert _within(ones, ones, pixels).tolist() == [False, True, True, False]
    multipliers = np.array([LEAST / 2, LEAST, MOST, 2 * MOST])
    assert _within(multipliers, ones, ones).tolist() == [False, True, True, False]
    assert _within(ones, multipliers, ones).tolist() == [False, True, True, False]
    for multiplier in (LEAST, MOST):
        Strategy(name="end", stage=0.0, depth=multiplier, width=multiplier, resolution=LARGEST_RESOLUTION)


def test_a_network_without_a_classifier_can_be_scaled() -> None:
    family = load_family("scalenet")
    whole, headless = (apply_strategy(family, family.strategies[0], classes=classes) for classes in (None, 0))
    assert (whole.classes, headless.classes) == (1000, 0)
    assert whole.cost.params - headless.cost.params == 1000 * (headless.trace.shapes[-1][0] + 1)


def test_constraints_give_the_excess_as_a_share_of_the_budget() -> None:
    constraint = Macs(200.0, floor=100.0)
    found = constraint.excess(np.array([50.0, 100.0, 150.0, 200.0, 300.0]))
    np.testing.assert_array_equal(found, [0.25, 0.0, 0.0, 0.0, 0.5])
    assert Macs.sees_resolution
    assert not Params.sees_resolution
    for budget in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BudgetError, match=r"macs: found .*, expected a positive, finite number"):
            Macs(budget)
