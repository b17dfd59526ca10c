"""The tables of docs/evidence.md are those that the committed results give; their statistics are what they say."""

import json
import math
import re
from itertools import permutations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import kendalltau, linregress

from benchmarks.evidence.answers import Answers, Searched
from benchmarks.evidence.power import deviations, expected_tau, least_concordance, networks_needed, pairs_needed
from benchmarks.evidence.run import METHODS, STAGES, Run
from benchmarks.evidence.tables import RESULTS, accuracies, against, differences, equal_macs, searches, tables
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
        assert [key for key in plan.draw(stage, plan.study.drawn, 100) if key in keys] == keys
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

    The last of the three searches is an added one, and the second one's networks were trained on a GPU.

    Of the separate search, the networks of stage 2 were trained with the first seed alone, which is worth two points.
    """
    plan, rows = committed.plan, {}
    pools = {stage: plan.draw(stage, 40, 3) for stage in STAGES}
    for number, name in enumerate([*plan.study.searches[:2], plan.study.added[0]]):
        for place, method in enumerate(METHODS):
            found = [pools[stage][4 * number + place] for stage in STAGES]
            rows[f"search/{name}/{method}"] = {"found": found, "evaluations": 100, "images": 1_000_000}
            for stage, key in enumerate(found):
                for seed in plan.study.seeds:
                    missing = (number, method, stage) == (2, "random", 1) or (method, stage, seed) == ("separate", 2, 1)
                    if stage and not missing:
                        better = stage / 100 + number / 1000 if method == "joint" else 0.0
                        top1 = 0.7 + 0.01 * number + better - 0.02 * seed
                        rows[f"alone/{key}/{seed}"] = {"top1": top1, "recorded": number == 1}
    return Searched.of(Answers(rows, plan))


def rows_of(table: str, key_columns: int) -> dict[tuple[str, ...], list[str]]:
    """The rows of a table, by their first cells."""
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {tuple(row[:key_columns]): row[key_columns:] for row in cells}


def test_searches_are_compared_at_the_same_supernet_stage_and_seeds(searched: Searched) -> None:
    rows = rows_of(against(searched), 3)
    by_stage = ["6", "1.60 ± 0.23", "1.02 to 2.18"]  # 0.555 / sqrt(6); t of 5 degrees of freedom is 2.571
    assert rows["compound", "all", "stage of a search"][:3] == by_stage
    assert rows["separate", "all", "stage of a search"][:3] == by_stage
    assert rows["compound", "all", "stage of a search"][4:] == ["0.55", str(pairs_needed(1.0, 0.555))]
    assert rows["compound", "all", "search"][:2] == ["3", "1.60 ± 0.06"]
    assert rows["random", "all", "stage of a search"][:3] == ["5", "1.68 ± 0.26", "0.96 to 2.40"]
    assert rows["random", "first", "search"][0] == "2"


def test_at_equal_macs_what_more_of_them_are_worth_is_taken_off(committed: Answers) -> None:
    searched, drawn = Searched.of(committed), [key for keys in committed.drawn.values() for key in keys]
    macs = {key: math.log2(committed.macs(key)) for keys in searched.keys.values() for key in keys.values()}
    slope = linregress(
        [math.log2(committed.macs(key)) for key in drawn], committed.accuracies(drawn).mean(axis=1)
    ).slope
    joint, compound = searched.keys["joint"], searched.keys["compound"]
    pairs = searched.pairs("compound").items()
    differences = [ours - theirs - slope * (macs[joint[at]] - macs[compound[at]]) for at, (ours, theirs) in pairs]
    more = fmean(macs[joint[at]] - macs[compound[at]] for at, _ in pairs)
    row = rows_of(equal_macs(searched), 2)["compound", "all"]
    assert row[:3] == [f"{2**more:.2f} times", f"{slope:.2f}", str(len(pairs))]
    assert row[3].startswith(f"{fmean(differences):.2f} ±")


def test_added_searches_are_compared_by_themselves(searched: Searched) -> None:
    rows = rows_of(against(searched), 3)
    assert rows["compound", "first", "stage of a search"][:2] == ["4", "1.55 ± 0.29"]
    assert rows["compound", "added", "stage of a search"][:2] == ["2", "1.70 ± 0.50"]
    assert ("compound", "added", "search") not in rows  # one pair has no spread
    assert rows["random", "all", "stage of a search"][0] == "5"
    assert ("random", "added", "stage of a search") not in rows


def test_networks_trained_on_different_devices_are_not_compared(searched: Searched) -> None:
    key = searched.keys["compound"]["hss-0", 1]
    for seed in searched.found.plan.study.seeds:
        searched.found.rows[f"alone/{key}/{seed}"]["recorded"] = True
    assert set(searched.pairs("compound")) == set(searched.pairs("separate")) - {("hss-0", 1)}
    assert rows_of(differences(searched), 2)["compound", "hss-0"] == ["-", "2.00"]


def test_differences_are_shown_by_search(searched: Searched) -> None:
    rows = rows_of(differences(searched), 2)
    assert rows["compound", "hss-0"] == ["1.00", "2.00"]
    assert rows["random", "hss-5"] == ["-", "2.20"]
    assert rows["separate", "hss-1"] == ["1.10", "2.10"]


def test_what_searches_found_is_shown_by_stage_and_device(searched: Searched) -> None:
    rows = rows_of(searches(searched), 3)
    assert rows["1", "joint", "CPU"][:2] == ["2", "4"]
    assert rows["1", "joint", "CPU"][4:] == ["71.10", "70.0 to 72.2"]
    assert rows["1", "joint", "GPU"][4:] == ["71.10", "71.1 to 71.1"]
    assert rows["1", "compound", "CPU"][4] == "70.00"
    macs = [searched.found.macs(searched.keys["joint"][name, 1]) / 1e6 for name in ("hss-0", "hss-5")]
    assert rows["1", "joint", "CPU"][2:4] == [f"{fmean(macs):.1f}", f"{min(macs):.1f} to {max(macs):.1f}"]
    assert rows["1", "random", "CPU"][:2] == ["1", "2"]
    assert rows["2", "separate", "CPU"][:2] == ["2", "2"]
    assert rows["2", "separate", "GPU"][4] == "71.00"
