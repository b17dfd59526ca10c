"""The study of topologies that inherit: jobs in order, equal cost, tables with known differences, a resumed run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import inherited_topologies
from benchmarks.inherited_topologies import (
    CLASSES,
    NETWORKS_OF_A_STEP,
    RESULTS,
    Plan,
    Tables,
    area,
    drawn,
    hrnet,
    jobs,
    networks,
    work,
)
from benchmarks.real_scalenas.plan import SAMPLERS, SamplerName
from benchmarks.significance import comparison
from scalenet_zoo.search.ledger import Ledger, ScoredNetwork
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.inherit import inherit

TINY: dict[str, Any] = {
    "search": {
        "space": {
            "name": "tiny",
            "width": 2,
            "head": "segmentation",
            "modules": [1, 1, 1],
            "input": {"height": 32, "width": 32},
            "depths": [3, 4],
        },
        "supernet": {"init": "scratch", "recipe": {"epochs": 1, "batch_size": 4, "lr": 1e-3, "amp": "no"}},
        "scoring": {"bn_images": 4, "batch_size": 4},
        "search": {"first": 6, "evaluations": 8, "parents": 2, "tournament": 2},
    },
    "source": {"epochs": 2},
    "sandwich_epochs": 1,
    "supernets": [0, 1],
    "drawn": 3,
    "searches": [0, 1],
    "found": 1,
    "random": 1,
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.load()


def names_of(plan: Plan, answers: dict[str, Any]) -> list[str]:
    return [job.name for job in jobs(plan, Path("run"), answers)]


def made_up(plan: Plan) -> dict[str, dict[str, Any]]:
    """Answers of a whole run with round differences, which alternate from pair to pair: 1 and 3 points, or 2 and 4."""
    space = plan.space
    answers: dict[str, dict[str, Any]] = {name: {"miou": 0.4, "macs": 1} for name in ("source", "teacher")}
    pool = space.sample(np.random.default_rng(3), 9)
    macs = space.cost(pool, CLASSES).macs.tolist()
    front = [[key, 0.4, cost] for key, cost in zip(space.keys(pool), macs, strict=True)]
    for seed in plan.supernets:
        for sampler, behind in zip(SAMPLERS, (0.0, 0.01 + 0.02 * (seed % 2), 0.02 + 0.02 * (seed % 2)), strict=True):
            images = 1000 * NETWORKS_OF_A_STEP[sampler]
            answers[f"supernet/{sampler}/{seed}"] = {"images": images, "image_macs": 10**9 * images}
            answers[f"scores/{sampler}/{seed}"] = {
                "uniform": [0.38 - behind, 0.42 - behind],
                "groups": [0.4 + behind] * 2,
            }
    for seed in plan.searches:
        areas = {"evolution": 0.5, "random": 0.49 - 0.02 * (seed % 2), "ageing": 0.48 - 0.02 * (seed % 2)}
        answers[f"search/{seed}"] = {"front": front, **areas}
    for place, (name, spec) in enumerate(networks(plan, answers).items()):
        figures = {"macs": spec.cost.macs}
        for seed in plan.supernets:
            answers[f"inherited/{name}/{seed}"] = {"miou": 0.3 + 0.01 * (seed - 1), "score": 0.3, **figures}
        for seed in plan.seeds:
            answers[f"alone/{name}/{seed}"] = {"miou": 0.31 + 0.02 * (place % 2) + 0.002 * seed - 0.001, **figures}
    return answers


def test_jobs_wait_for_what_they_need(plan: Plan) -> None:
    assert names_of(plan, {}) == ["source"]
    answers: dict[str, Any] = {"source": {}}
    peers = [f"alone/{name}/{seed}" for name in ("hrnet", "random_0", "random_1", "random_2") for seed in (0, 1)]
    assert names_of(plan, answers) == ["source", "teacher", *peers]
    answers["teacher"] = {}
    grouped = [f"supernet/grouped/{seed}" for seed in (0, 1, 2)]
    others = [f"supernet/{sampler}/{seed}" for seed in (0, 1, 2) for sampler in ("uniform", "sandwich")]
    supernets = [*grouped, *others]
    assert names_of(plan, answers) == ["source", "teacher", *grouped, *peers, *others]
    answers["supernet/uniform/1"] = answers["supernet/grouped/2"] = {}
    new = set(names_of(plan, answers)) - {"source", "teacher", *supernets, *peers}
    judged = {f"inherited/{name[6:-2]}/2" for name in peers}
    assert new == {"scores/uniform/1", "scores/grouped/2", *judged}
    answers["supernet/grouped/0"] = {}
    before = set(names_of(plan, answers))
    assert {f"search/{seed}" for seed in range(5)} <= before
    assert not any("found" in name for name in before)


def test_a_finished_run_has_all_jobs(plan: Plan) -> None:
    answers = made_up(plan)
    names = names_of(plan, answers)
    assert len(names) == len(set(names)) == 1 + 1 + 2 * 9 + 5 + 8 * (3 + 2)
    assert set(names) == set(answers)
    order = "supernet/grouped/2", "search/0", "inherited/hrnet/0", "alone/found_3/1", "search/1", "supernet/uniform/0"
    assert sorted(order, key=names.index) == list(order)


def test_the_networks_found_are_spread_over_the_front(plan: Plan) -> None:
    answers = made_up(plan)
    costs = [macs for _, _, macs in answers["search/0"]["front"]]
    found = [spec.cost.macs for name, spec in networks(plan, answers).items() if name.startswith("found")]
    assert found == sorted(found)
    assert len(set(found)) == 4
    assert (found[0], found[-1]) == (min(costs), max(costs))
    answers["search/0"]["front"] = answers["search/0"]["front"][:2]
    assert sum(name.startswith("found") for name in networks(plan, answers)) == 2


def test_random_networks_are_drawn_in_two_ways(plan: Plan) -> None:
    space, keys = plan.space, drawn(plan)
    assert drawn(plan) == keys
    assert len({*keys["uniform"], *keys["groups"]}) == 2 * plan.drawn == 60
    spreads = {}
    for way, names in keys.items():
        topologies = space.from_keys(names)
        spreads[way] = space.cost(topologies, CLASSES).macs.std()
        depths = topologies.depth[topologies.depth > 0]
        assert set(depths.tolist()) == {2, 3, 4, 5}
    assert spreads["groups"] > 1.5 * spreads["uniform"]  # uniform draws are alike in size; groups are made to differ


def test_only_the_sampler_and_its_epochs_differ(plan: Plan) -> None:
    grouped, uniform, sandwich = (plan.config(Path("/run"), sampler, 2, 4).supernet for sampler in SAMPLERS)
    assert uniform == grouped.model_copy(update={"sampler": "uniform"})
    shorter = {**grouped.recipe, "epochs": plan.sandwich_epochs}
    assert sandwich == grouped.model_copy(update={"sampler": "sandwich", "recipe": shorter})
    assert (grouped.inherit, grouped.teacher.weights, grouped.init) == ("/run/source", "/run/teacher", "scratch")
    assert (grouped.recipe["seed"], plan.config(Path("/run"), "grouped", 2, 4).search.seed) == (2, 4)


def training_cost(plan: Plan, sampler: SamplerName) -> float:
    """Expected multiply-adds of a supernet's training per image of an epoch."""
    config, rng, space = plan.config(Path(), sampler), np.random.default_rng(0), plan.space
    draw = config.supernet.make_sampler(space)
    steps = [space.cost(draw.sample(rng), CLASSES).macs.sum() for _ in range(60)]
    teacher = space.cost(space.largest[None], CLASSES).macs[0]
    return config.make_recipe().epochs * float(3 * np.mean(steps) + teacher)


@pytest.mark.parametrize("sampler", ["uniform", "sandwich"])
def test_supernets_cost_the_same(plan: Plan, sampler: SamplerName) -> None:
    assert training_cost(plan, sampler) == pytest.approx(training_cost(plan, "grouped"), rel=0.08)


def test_networks_alone_learn_as_supernets_do(plan: Plan) -> None:
    alone, supernet = plan.recipe(seed=1).to_dict(), plan.config(Path()).make_recipe().to_dict()
    assert {name for name in alone if alone[name] != supernet[name]} == {"seed"}
    source = plan.recipe(**plan.source).to_dict()
    assert {name for name in source if source[name] != alone[name]} <= {"seed", "epochs", "lr"}
    assert source["epochs"] == 60


def test_the_largest_network_inherits_all_of_the_source(plan: Plan) -> None:
    space = plan.space
    source = create_seeded(hrnet(space), 0)
    largest = create_seeded(space.spec(space.largest, CLASSES, "largest"), 1)
    assert inherit(largest, source).exact


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(0, 99))
def test_the_area_is_the_mean_of_the_best_scores_within_budgets(scores: list[float], seed: int) -> None:
    space = Plan.load().space
    found = space.sample(np.random.default_rng(seed), len(scores))
    macs = space.cost(found, CLASSES).macs.tolist()
    rows = zip(space.keys(found), scores, macs, strict=True)
    ledger = Ledger(
        method="scalenas",
        search="random",
        name="tiny",
        space={},
        space_hash="",
        settings={},
        networks=tuple(ScoredNetwork(key=key, generation=0, score=s, macs=m, params=1) for key, s, m in rows),
    )
    ends = [int(space.cost(end[None], CLASSES).macs[0]) for end in (space.smallest, space.largest)]
    edges = [ends[0], *sorted(macs), ends[1]]
    best = [max((s for s, m in zip(scores, macs, strict=True) if m <= budget), default=0.0) for budget in edges[:-1]]
    expected = float(np.dot(best, np.diff(edges))) / (ends[1] - ends[0])
    assert area(space, ledger) == pytest.approx(expected, abs=1e-9)


def test_a_comparison_has_its_interval() -> None:
    assert comparison([11.0, 13.0, 12.0], [10.0, 10.0, 10.0]) == ["3", "2.00 ± 0.58", "-0.48 to 4.48", "0.074"]
    assert comparison([1.0, 1.0], [1.0, 1.0]) == ["2", "0.00 ± 0.00", "0.00 to 0.00", "-"]


def rows_of(table: str) -> dict[str, list[str]]:
    """The rows of a table by their first cells."""
    lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:])
    return {line[0]: line[1:] for line in lines}


def test_tables_show_known_differences(plan: Plan) -> None:
    tables = Tables(plan, made_up(plan))
    rows = rows_of(tables.tests())
    assert {name: cells[:2] for name, cells in rows.items()} == {
        "(1) supernets' weights, trained alone": ["8", "-2.00 ± 0.38"],
        "(2) grouped, uniform; drawn uniformly": ["3", "1.67 ± 0.67"],
        "(2) grouped, sandwich; drawn uniformly": ["3", "2.67 ± 0.67"],
        "(2) grouped, uniform; drawn from the groups": ["3", "-1.67 ± 0.67"],
        "(2) grouped, sandwich; drawn from the groups": ["3", "-2.67 ± 0.67"],
        "(3) evolution, random": ["5", "1.80 ± 0.49"],
        "(3) evolution, ageing": ["5", "2.80 ± 0.49"],
    }
    usable = rows_of(tables.usable())
    assert usable["hrnet"][1:] == ["30.00", "29.00 to 31.00", "31.00", "30.90 to 31.10"]
    costs = [float(cells[0]) for cells in usable.values()]
    assert costs == sorted(costs)
    teacher = plan.space.cost(plan.space.largest[None], CLASSES).macs[0]
    samplers = rows_of(tables.samplers())
    assert samplers["grouped"][:4] == ["3", f"{(3e12 + 1000 * teacher) / 1e12:.1f}", "40.00", "40.00 to 40.00"]
    assert samplers["sandwich"][1:4] == [f"{(12e12 + 1000 * teacher) / 1e12:.1f}", "37.33", "36.00 to 38.00"]
    assert rows_of(tables.evolution())["random"] == ["5", "48.20", "47.00 to 49.00"]


def test_tables_leave_out_what_is_not_finished(plan: Plan) -> None:
    answers = made_up(plan)
    for name in ("alone/random_1/1", "inherited/hrnet/0", "scores/sandwich/0", "search/2", "search/3", "search/4"):
        del answers[name]
    rows = rows_of(Tables(plan, answers).tests())
    assert {name.split(";")[0]: int(cells[0]) for name, cells in rows.items()} == {
        "(1) supernets' weights, trained alone": 6,
        "(2) grouped, uniform": 2,
        "(2) grouped, sandwich": 2,
        "(3) evolution, random": 2,
        "(3) evolution, ageing": 2,
    }
    assert rows_of(Tables(plan, {}).tests()) == rows_of(Tables(plan, {}).usable()) == {}


def test_the_documents_tables_are_what_the_results_give() -> None:
    text = (Path(inherited_topologies.__file__).parents[1] / "docs" / "evidence.md").read_text()
    for table in str(Tables.load(RESULTS)).split("\n\n"):
        assert table in text


# --- a whole run ---------------------------------------------------------------------------------------------------


def write_camvid(folder: Path, size: int = 32) -> None:
    """Images of patches, whose colour is their class, in three splits; some pixels are void."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (CLASSES + 1, 3), dtype=np.uint8)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        names = [f"{split}{place}" for place in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            mask = rng.integers(0, CLASSES + 1, (4, 4)).astype(np.uint8).repeat(size // 4, 0).repeat(size // 4, 1)
            Image.fromarray(colours[mask]).save(folder / "images" / f"{name}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    classes = [{"index": place, "name": f"class{place}", "ignore": place == CLASSES} for place in range(CLASSES + 1)]
    (folder / "classes.json").write_text(json.dumps(classes))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    values = {**Plan.load().model_dump(mode="json"), **TINY}
    values["search"] = {**Plan.load().search, **TINY["search"]}
    tiny = Plan.model_validate_json(json.dumps(values))
    monkeypatch.setattr(Plan, "load", lambda *_: tiny)
    monkeypatch.setattr(inherited_topologies, "RESULTS", tmp_path / "results.jsonl")
    write_camvid(tmp_path / "camvid")
    return tiny


@pytest.mark.nightly
def test_a_stopped_run_is_resumed_to_the_tables(tiny: Plan, tmp_path: Path) -> None:
    run, results = tmp_path / "run", tmp_path / "results.jsonl"
    work(tiny, tmp_path / "camvid", run, 2)
    lines = results.read_text().splitlines()
    assert len(lines) == 1 + 1 + 2 * 6 + 2 + 3 * (2 + 2)
    (run / "results.jsonl").write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:20])
    work(tiny, tmp_path / "camvid", run, 1)
    assert sorted(results.read_text().splitlines()) == sorted(lines)  # what was repeated gave the same
    page = results.with_suffix(".html").read_text()
    assert "<script" not in page
    assert str(run) not in page
    tables = str(Tables.load(results))
    assert "| found_0 |" in tables
    assert "| (3) evolution, ageing | 2 |" in tables
