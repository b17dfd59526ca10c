"""The figures of the pages are those of the committed results, rounded."""

import json
import re
from functools import cache
from typing import Any

import pytest

from tests.helpers.docs import ROOT, page


@cache
def result(name: str) -> Any:
    """What a benchmark measured."""
    found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found.get("measured", found)


def row(name: str, start: str) -> list[str]:
    """The cells of the one row of a page's tables that starts with these cells."""
    lines = [line for line in page(name).splitlines() if line.startswith(f"| {start} |")]
    assert len(lines) == 1, f"{name}: {len(lines)} rows start with {start!r}"
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def section(name: str, title: str) -> str:
    """The text below a heading of a page, on one line."""
    found = re.search(rf"^##+ {re.escape(title)}[^\n]*\n(.*?)(?=^## |\Z)", page(name), re.DOTALL | re.MULTILINE)
    assert found, f"{name}: no heading {title!r}"
    return " ".join(found[1].split())


def quartiles(measured: dict[str, float]) -> list[str]:
    low, high = measured["ratio_low_quartile"], measured["ratio_high_quartile"]
    return [f"{measured['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]


def percent(share: float) -> str:
    """A percentage with one decimal; half goes up."""
    return f"{100 * share + 1e-5:.1f}%"


B0, EVALUATE = "efficientnet_b0", "evaluate_speed"


@pytest.mark.parametrize(
    ("start", "name", "key"),
    [
        ("`efficientnet_b0`, built from its spec | timm's", B0, "construction"),
        ("inference, batch 8, channels-last, 1 thread | timm's", B0, "inference"),
        ("training step, the same | timm's", B0, "training"),
        ("our ONNX export in ONNX Runtime, 1 image, 1 thread", B0, "onnxruntime_against_torchvision"),
        ("export of `scalenet_s0` to a checked ONNX file", "export_speed", "checked_export"),
        ("`evaluate`, `efficientnet_b0`", EVALUATE, "efficientnet_b0_on_64_images"),
        ("the same, its ONNX file", EVALUATE, "efficientnet_b0_onnx_on_64_images"),
        ("`evaluate`, `hrnet_w18`, 360x480", EVALUATE, "hrnet_w18_on_8_images"),
        ("`evaluate`, `hrnet_w18_pose`", EVALUATE, "hrnet_w18_pose_on_24_images"),
        ("`scalenet-zoo --help`", "cli_start", "--help"),
    ],
)
def test_speed_has_the_ratios_that_were_measured(start: str, name: str, key: str) -> None:
    assert row("speed.md", start)[2:4] == quartiles(result(name)[key])


def test_speed_has_the_times_per_multiply_add() -> None:
    networks = result("per_mac")["networks"]
    names = {
        "`scalenet_s0`": "scalenet_s0",
        "`scalenet_s1`": "scalenet_s1",
        "`scalenet_s1`, channels in multiples of 8": "scalenet_s1, channels in multiples of 8",
    }
    for start, name in names.items():
        found = networks[name]
        wanted = [f"{found['per_mac_ratio']:.2f}"]
        wanted += [f"{found['per_mac_ratio_low']:.2f} to {found['per_mac_ratio_high']:.2f}"]
        assert row("speed.md", start)[1:3] == wanted


def test_speed_has_the_error_of_the_latency_model() -> None:
    measured = result("latency_budgets")
    for start, key in (("latency model", "held_out"), ("best power law of MACs", "macs_alone")):
        found = measured[key]
        shares = [f"{100 * found[name]:g}%" for name in ("within_10", "within_5")]
        errors = [percent(found["rms"]), percent(found["worst"]), f"{found['spearman']:.4f}"]
        assert row("speed.md", start)[1:] == shares + errors
    text = section("speed.md", "Latency model")
    assert f"{measured['predictions_per_second_median'] / 1000:.0f},000 networks per second" in text
    assert f"at least {measured['predictions_per_second_min'] / 1000:.0f},000 in 7 repeats" in text
    assert f"met {measured['met']} of {len(measured['budgets'])} budgets from 1.36 ms to 136 ms" in text
    assert sorted(budget["attempts"] for budget in measured["budgets"]) == [1] * 9 + [2]
    int8 = result("latency_model_ort_cpu_int8")["held_out"]
    assert (int8["networks"], int8["within_10"], int8["within_5"]) == (40, 1.0, 0.925)


def test_speed_has_the_times_of_supernets() -> None:
    times, scoring = result("supernet_speed")["times"], result("scoring_speed")
    rows = {
        "training step | that of the extracted network": [times[size]["against_the_network_alone"] for size in times],
        "training step | the imitation's": [times[size]["against_the_imitation"] for size in times],
        "scoring a network, 384 images": [scoring[name] for name in scoring if isinstance(scoring[name], dict)],
    }
    for start, found in rows.items():
        wanted = [f"{ratio} ({spread})" for ratio, spread in map(quartiles, found)]
        assert row("speed.md", start)[2:] == wanted
    text = section("speed.md", "Dense networks")
    steps = [
        f"{found['against_the_network_alone']['ratio']:.2f}" for found in result("scalenas_speed")["times"].values()
    ]
    assert f"takes {steps[0]}, {steps[1]} and {steps[2]} times" in text
    tiled = result("tiled")
    assert f"takes {tiled['per_mac_ratio']:.2f} (quartiles {tiled['per_mac_ratio_low_quartile']:.2f}" in text
    for backend, before in (("torch", "takes"), ("ort-cpu", "and")):
        found = result("per_mac_dense")[backend]["hrnet_w32_pose"]
        low, high = found["per_mac_ratio_low"], found["per_mac_ratio_high"]
        assert f"{before} {found['per_mac_ratio']:.2f} ({low:.2f} to {high:.2f})" in text


def test_speed_has_the_rates_and_sizes() -> None:
    costs, training, sizes = result("population_cost"), result("train_speed"), result("export_speed")["size_ratios"]
    text = section("speed.md", "Cost of many networks")
    for key in ("100000 base models x 1 strategies", "1000 base models x 100 strategies"):
        rate = costs[key]["networks_per_second_median"] / 1e6
        assert f"{rate:.1f} million" in text or f"of {rate:.0f} million" in text
    text = section("speed.md", "Training")
    assert f"at {training['ratio']:.3f} of the images" in text
    assert f"{min(training['ratios']):.3f} to {max(training['ratios']):.3f}" in text
    text = section("speed.md", "File sizes")
    for kind in ("onnx", "engine", "compressed engine"):
        assert f"{sizes[kind]['fp16']:.2f}" in text
        assert f"{sizes[kind]['int8']:.2f}" in text


def test_choose_has_the_choices_that_were_made() -> None:
    for budget in result("choice")["budgets"]:
        assert row("choose.md", f"{budget['budget_ms']:g} ms")[1:] == [
            str(budget["measured_for_it"]),
            f"`{budget['weights']}`",
            budget["precision"],
            f"{budget['top1']:.2f}%",
            f"{budget['ms']:.2f} ms",
            f"{budget['ms_again']:.2f} ms",
        ]
        assert not budget["more_accurate_within_budget"]


def test_deploy_has_what_int8_was_worth() -> None:
    for name, found in result("int8")["latency"].items():
        wanted = []
        for backend in ("ort-cpu", "openvino"):
            times = found[backend]
            wanted += [f"{times['fp32_ms']:.1f} ms", f"{times['int8_ms']:.1f} ms"]
            wanted += [f"{times['ratio_median']:.2f} ({times['ratio_low']:.2f} to {times['ratio_high']:.2f})"]
        assert row("deploy.md", f"`{name}`")[1:] == wanted
    text, accuracy = section("deploy.md", "int8"), result("int8")["accuracy"]
    assert f"reaches {percent(accuracy['ort-cpu']['fp32_top1_of_1000'])} in fp32" in text
    assert f"{percent(accuracy['ort-cpu']['int8_top1_of_1000'])} in int8 on `ort-cpu`" in text
    assert f"{100 * accuracy['openvino']['int8_top1_of_1000']:.2f}% on OpenVINO" in text


def test_results_have_the_short_trainings() -> None:
    trainings = result("real_training")
    rows = {
        "`scalenet_s0`": ("imagenette_scalenet_s0", "top1"),
        "`hrnet_w18` at width 8": ("camvid_hrnet_w8", "miou"),
        "`scalenas_s1` at width 8": ("camvid_scalenas_s1_w8", "miou"),
        "`hrnet_w18_pose` at width 8": ("leeds_hrnet_w8", "ap"),
    }
    for start, (name, metric) in rows.items():
        cells, found = row("results.md", start), trainings[name]
        assert cells[4] == f"{found['seconds'] / 60:.0f}"
        assert cells[5].startswith(percent(found["metrics"][metric]))
        assert f"({found['split']})" in cells[5]
        assert cells[6].startswith(percent(found["metrics_flipped"][metric]))


def test_results_have_what_inheriting_gave() -> None:
    text = section("results.md", "Inherited weights")
    source = result("lite0_imagenette")
    for crop in ("crop 1", "crop 0.875"):
        found = source[crop]["torch"]
        assert percent(found["top1_of_1000"]) in text
        assert percent(found["top1_of_10"]) in text
        assert found == source[crop]["onnx"]
    budgets = result("inherited_budgets")
    grown = {name: found for name, found in budgets.items() if "at its own resolution" in found}
    assert len(grown) == 10
    assert {found["at the source's resolution"]["ours"]["top1_of_1000"] for found in grown.values()} == {0.614}
    at_own = {name: found["at its own resolution"]["top1_of_1000"] for name, found in grown.items()}
    assert (at_own.pop("4.2G"), at_own.pop("6G")) == (0.54, 0.49)
    assert f"{min(at_own.values()):.0%} to {max(at_own.values()):.0%} up to 3G" in text
    for name in ("100M", "150M", "200M", "270M", "350M"):
        for kind in ("inherited", "initial"):
            assert percent(budgets[name]["after one epoch"][kind]) in text
    tuned = result("fine_tuning")
    for data, metric in (("imagenette", "top1 by seed"), ("camvid", "miou by seed")):
        for kind in ("inherited", "initial"):
            first, second = (percent(value) for value in tuned[data][metric][kind])
            assert f"{first} and {second}" in text
    search = result("inherited_search")
    for name in ("lite_s0", "lite_s1", "lite_s2"):
        found = search["inherited"][name]
        assert re.search(rf"{percent(found['top1'])} at {found['macs'] / 1e6:.1f}M", text)
        assert percent(search["from nothing"][name]["top1"]) in text


def test_results_have_what_the_search_gave() -> None:
    text, found = section("results.md", "ScaleNet's search"), result("real_search")
    rank, samplers, family = found["rank"], found["samplers"]["all"], found["family"]
    assert f"tau {rank['all']['tau']:.2f} (95%" in text
    assert f"{rank['with_those_that_searches_found']['tau']:.2f} (" in text
    difference, error = 100 * samplers["difference"], 100 * samplers["difference_standard_error"]
    assert f"{difference:+.2f} points (standard error {error:.2f}" in text
    for key, begin in (("found_minus_compound", "by"), ("found_minus_random", "by")):
        first, second, third = (f"{100 * family[key][f'stage_{stage}']:.1f}" for stage in range(3))
        assert re.search(rf"{begin} {first}, {second} and {third} points", text), key
    costs = found["costs"]
    assert f"{costs['ratio_passes']:.2f} times fewer images" in text
    assert f"{costs['ratio_image_macs']:.2f} times fewer multiply-adds" in text


def test_results_have_what_scalenas_search_gave() -> None:
    starts = {
        "inherited_and_alone": "a network needs no training besides the supernet's",
        "grouped_and_uniform": "grouped sampling trains a better supernet than uniform sampling",
        "grouped_and_sandwich": "grouped sampling beats the sandwich rule at equal cost (5% less, 5% more)",
    }
    for column, name in ((1, "real_camvid"), (2, "real_leeds")):
        found = result(name)
        for key, start in starts.items():
            pair = (found["samplers"] | found["without_retraining"])[key]
            difference, error = 100 * pair["difference"], 100 * pair["difference_standard_error"]
            cell = row("results.md", start)[column]
            assert f"{difference:+.1f}" in cell
            assert f"{error:.1f}" in cell
        alone = found["without_retraining"]
        cell = row("results.md", starts["inherited_and_alone"])[column]
        shares = (alone["inherited_and_longer"][kind]["mean"] for kind in ("alone_for_longer", "inherited"))
        assert all(percent(share) in cell for share in shares)
        assert f"{100 * alone['inherited_and_longer']['difference']:+.1f}" in cell
        assert f"{alone['rank']['tau']:.2f} (" in row("results.md", "the supernet ranks networks")[column]
        cell = row("results.md", "topology evolution finds a better front than random search")[column]
        pair = found["hypervolume"]["evolution_and_random"]
        assert f"{pair['evolution']['mean']:.4f} and {pair['random']['mean']:.4f}" in cell
        assert f"{pair['difference']:+.4f} (" in cell
        cell = row("results.md", "topology evolution beats ageing evolution")[column]
        pair = found["hypervolume"]["evolution_and_ageing"]
        assert cell.startswith(f"{pair['ageing']['mean']:.4f}: {pair['difference']:+.4f} (")
