"""The tables of docs/evidence.md are those that the committed results give; their statistics are what they say."""

import json
import math
import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.evidence.answers import Answers, Searched
from benchmarks.evidence.power import deviations, expected_tau, least_concordance, networks_needed, pairs_needed
from benchmarks.evidence.run import METHODS, STAGES, Run
from benchmarks.evidence.tables import RESULTS, accuracies, against, differences, searches, tables
from benchmarks.evidence.workers import Workers

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"


def shown(text: str) -> list[str]:
    """The tables with figures of a run in a document, in order: those of its results, and of what is missing."""
    results = text[text.index("## Results") : text.index("## Commands")]
    found = [match.group(0).rstrip("\n") for match in re.finditer(r"(?:^\|.*\n)+", results, re.MULTILINE)]
    return [table for table in found if not table.startswith("| claim |")]


@pytest.fixture(scope="module")
def committed() -> Answers:
    return Answers.load(RESULTS)


@pytest.fixture(scope="module")
def printed(committed: Answers) -> list[str]:
    return list(tables(committed).values())


def test_the_documents_tables_are_what_the_results_give(printed: list[str]) -> None:
    assert shown(DOCUMENT.read_text()) == printed


def test_a_figure_that_is_edited_is_seen(printed: list[str], committed: Answers, tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    figure = re.search(r"\d\.\d\d", printed[0])
    assert figure is not None
    place = text.index(printed[0]) + figure.start()
    assert shown(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]) != printed
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    rows[0]["top1"] += 0.01
    (tmp_path / RESULTS.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = Answers.load(tmp_path / RESULTS.name)
    assert any(
        not np.array_equal(committed.accuracies(keys), other.accuracies(keys)) for keys in committed.drawn.values()
    )
    assert accuracies(other) not in text


def test_what_was_done_is_what_the_plan_asks_for(committed: Answers, tmp_path: Path) -> None:
    plan = committed.plan
    wanted: set[str] = set()
    for device in ("cpu", "cuda"):  # no process is begun
        run = Run(plan, Workers(1, device, tmp_path), tmp_path, tmp_path, math.inf, record=False)
        run.results.answers.update(committed.rows)
        wanted |= {job.name for job in run.wanted()}
    assert set(committed.rows) <= wanted
    for stage, keys in committed.drawn.items():
        assert plan.draw(stage, plan.study.drawn, 100)[: len(keys)] == keys
        assert len(keys) >= 8
    for stage, most in zip(STAGES, (3.36e6, 6.72e6, 13.44e6), strict=True):
        assert all(committed.macs(key) <= 1.05 * most for key in committed.drawn[stage])


def test_deviations_are_found_in_noise() -> None:
    rng = np.random.default_rng(0)
    reached = 70 + 2 * rng.standard_normal((4000, 1)) + 0.5 * rng.standard_normal((4000, 2))
    assert deviations(reached) == pytest.approx((2.0, 0.5), rel=0.05)
    networks, seed = deviations(rng.standard_normal((1, 2)).repeat(5, axis=0))
    assert networks == 0
    assert seed > 0


def test_the_tau_expected_is_that_of_noisy_means() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(4000)
    means = truth + (0.8 * rng.standard_normal((2, 4000))).mean(axis=0)
    score = math.sin(math.pi / 4) * truth + math.sqrt(0.5) * rng.standard_normal(4000)  # tau 0.5 with the truth
    for given, scores in ((1.0, truth), (0.5, score)):
        assert expected_tau(given, 1.0, 0.8, 2) == pytest.approx(kendalltau(scores, means).statistic, abs=0.02)


def test_the_least_concordance_is_the_exact_tests() -> None:
    for count in (4, 5, 6, 7):
        pairs, all_orders = count * (count - 1) // 2, list(permutations(range(count)))
        sums = [round(pairs * float(kendalltau(range(count), order).statistic)) for order in all_orders[::7]]
        least = least_concordance(count)
        for value in sorted(set(sums)):
            order = next(order for order, each in zip(all_orders[::7], sums, strict=True) if each == value)
            p = kendalltau(range(count), order, method="exact").pvalue
            assert (p < 0.05) == (abs(value) >= least)


def test_sizes_are_those_of_the_protocol() -> None:
    """Its tables: 14 networks have a power of 0.75 for a tau of 0.5, 16 one of 0.81; 6 pairs 0.80 at 0.7 points."""
    found = networks_needed(0.5)
    assert found in (15, 16)
    assert networks_needed(0.1) is None
    assert pairs_needed(1.0, 0.7) in (6, 7)
    assert pairs_needed(1.0, 0.5) == 5  # 4 pairs: 0.75
    assert pairs_needed(0.01, 1.0) is None


@pytest.fixture
def searched(committed: Answers) -> Searched:
    """The joint search's networks are about a point better in stage 1 and two in stage 2; one has no peer.

    Of the separate search, the networks of stage 2 were trained with the first seed alone, which is worth two points.
    """
    plan, rows = committed.plan, {}
    pools = {stage: plan.draw(stage, 40, 3) for stage in STAGES}
    for number, name in enumerate(plan.study.searches[:3]):
        for place, method in enumerate(METHODS):
            found = [pools[stage][4 * number + place] for stage in STAGES]
            rows[f"search/{name}/{method}"] = {"found": found, "evaluations": 100, "images": 1_000_000}
            for stage, key in enumerate(found):
                for seed in plan.study.seeds:
                    missing = (number, method, stage) == (2, "random", 1) or (method, stage, seed) == ("separate", 2, 1)
                    if stage and not missing:
                        better = stage / 100 + number / 1000 if method == "joint" else 0.0
                        rows[f"alone/{key}/{seed}"] = {"top1": 0.7 + 0.01 * number + better - 0.02 * seed}
    return Searched.of(Answers(rows, plan))


def test_searches_are_compared_at_the_same_supernet_stage_and_seeds(searched: Searched) -> None:
    lines = [line.removeprefix("| ").split(" | ") for line in against(searched).splitlines()[2:]]
    figures = {(line[0], line[1]): line[2:5] for line in lines}
    spreads = {(line[0], line[1]): line[6:] for line in lines}
    assert spreads["compound", "stage of a search"] == ["0.55", f"{pairs_needed(1.0, 0.555)} |"]
    by_stage = ["6", "1.60 ± 0.23", "1.02 to 2.18"]  # 0.555 / sqrt(6); t of 5 degrees of freedom is 2.571
    assert figures["compound", "stage of a search"] == figures["separate", "stage of a search"] == by_stage
    assert figures["compound", "search"][:2] == ["3", "1.60 ± 0.06"]
    assert figures["random", "stage of a search"] == ["5", "1.68 ± 0.26", "0.96 to 2.40"]
    assert figures["random", "search"][0] == "2"


def test_differences_are_shown_by_search(searched: Searched) -> None:
    lines = [line.strip("| ").split(" | ") for line in differences(searched).splitlines()[2:]]
    assert ["compound", "hss-0", "1.00", "2.00"] in lines
    assert ["random", "hss-2", "-", "2.20"] in lines
    assert ["separate", "hss-1", "1.10", "2.10"] in lines


def test_what_searches_found_is_shown_by_stage(searched: Searched) -> None:
    reached = {tuple(line.split(" | ")[:2]): line.split(" | ")[2:] for line in searches(searched).splitlines()[2:]}
    assert reached["| 1", "joint"][:2] == ["3", "6"]
    assert reached["| 1", "joint"][3:] == ["71.10", "70.0 to 72.2 |"]
    assert reached["| 1", "compound"][3] == "70.00"
    assert reached["| 1", "random"][:2] == ["2", "4"]
    assert reached["| 2", "separate"][:2] == ["3", "3"]
    assert reached["| 2", "separate"][3] == "71.00"
