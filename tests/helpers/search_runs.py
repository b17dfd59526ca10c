"""A made-up run of a search in a tiny space: every file of it, through the real classes; figures are invented."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.scaling import apply_strategy, fit_growth_law
from scalenet_zoo.arch.spec import Provenance
from scalenet_zoo.search.ledger import LatencyRound, ScoredNetwork, TimedNetwork
from scalenet_zoo.search.scalenet.ledger import Generation, HalfStep, ScaleNetLedger, ScoredBase, ScoredScaling
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.standalone import Standalone, StandaloneRow
from scalenet_zoo.spaces.candidates import Candidate, to_kernels
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.summary import SUMMARY, SupernetSummary

SPACE = Space.from_values(
    {
        "name": "tiny",
        "stem": {"channels": 8, "kernel": 3, "stride": 2},
        "stages": [
            {"channels": 8, "stride": 1, "expand": 1, "depths": [1], "kernels": [3, 5, 7]},
            {"channels": 12, "stride": 2, "expand": 4, "depths": [1, 2, 3], "kernels": [3, 5, 7]},
            {"channels": 24, "stride": 2, "expand": 4, "depths": [1, 2, 3], "kernels": [3, 5, 7]},
        ],
        "head": {"channels": 64},
        "scaling": [
            {"stage": 0, "depth": [1.0], "width": [1.0], "resolution": [32]},
            {"stage": 1, "depth": [1.1, 1.2], "width": [1.1, 1.2], "resolution": [32, 40]},
            {"stage": 2, "depth": [1.3, 1.5], "width": [1.2, 1.4], "resolution": [40, 48]},
        ],
    },
    "tiny",
)
STAGES = (1, 2)
CLASSES = 10


def _macs(kernels: np.ndarray, scaling: Scaling) -> int:
    return SPACE.spec(kernels, scaling, CLASSES).cost.macs


def _score(macs: float, shift: float = 0.0) -> float:
    """Larger is better, with something on top that differs from network to network."""
    return round(0.5 + 0.05 * float(np.log2(macs / 1e6)) + 0.003 * (macs % 7) + shift, 4)


def _scored(
    count: int, candidates: Sequence[Candidate], found: Sequence[Candidate], latency: bool, shift: float = 0.0
) -> Any:
    """`networks` and `chosen` of a ledger: so many were scored; those that were found are timed and scored higher."""
    ends = list(dict.fromkeys(candidate.key for candidate in found))
    keys = list(dict.fromkeys([*(candidate.key for candidate in candidates), *ends]))
    rng = np.random.default_rng(count)
    while len(keys) < count:
        if (key := Candidate(SPACE.sample(rng, 1)[0], SPACE.unscaled).key) not in keys:
            keys.append(key)
    costs = Bounds(SPACE, CLASSES, Limits()).costs(keys)
    networks = tuple(
        ScoredNetwork(
            key=key,
            generation=0,
            score=_score(macs, shift if key in ends else 0.0),
            macs=macs,
            params=params,
            measured_ms=round(macs / 5e5, 3) if latency and key in ends else None,
        )
        for key, macs, params in zip(keys, costs.macs.tolist(), costs.params.tolist(), strict=True)
    )
    return {"networks": networks, "chosen": tuple(map(keys.index, ends))}


def joint_ledger(rounds: int = 3, ended: bool = True, latency: bool = True, seed: int = 0) -> ScaleNetLedger:
    """A joint search of so many rounds, each with three generations."""
    rng = np.random.default_rng(seed)
    steps: list[HalfStep] = []
    scored_networks: list[Candidate] = []
    scalings = tuple(SPACE.scalings(stage)[0] for stage in STAGES)
    for r in range(rounds + 1):
        bases = SPACE.sample(rng, 6)
        if r:
            scored = [
                ScoredBase(
                    kernels=to_kernels(kernels),
                    macs=_macs(kernels, SPACE.unscaled),
                    fitness=float(np.mean(scores)),
                    scores=scores,
                )
                for kernels in bases
                for scores in [tuple(_score(_macs(kernels, scaling)) for scaling in scalings)]
            ]
            scored_networks += [Candidate(kernels, scaling) for kernels in bases for scaling in scalings]
            scored.sort(key=lambda base: -base.fitness)
            best, mean = scored[0].fitness, float(np.mean([base.fitness for base in scored]))
            generations = tuple(
                Generation(best=best - 0.01 * (2 - g), mean=mean - 0.02 * (2 - g), scored=6) for g in range(3)
            )
            steps.append(
                HalfStep(round=r, kind="bases", scalings=scalings, generations=generations, bases=tuple(scored))
            )
        ranked = []
        for stage in STAGES:
            costs = [(s, float(np.mean([_macs(k, s) for k in bases]))) for s in SPACE.scalings(stage)]
            of_stage = [ScoredScaling(scaling=s, score=_score(macs, 0.01 * r), macs=macs) for s, macs in costs]
            ranked.append(tuple(sorted(of_stage, key=lambda each: -each.score)))
        scalings = tuple(of_stage[r % 2].scaling for of_stage in ranked)
        steps.append(HalfStep(round=r, kind="strategies", scalings=scalings, ranked=tuple(ranked)))
    best_base = SPACE.sample(np.random.default_rng(seed), 1)[0]
    found = [Candidate(best_base, scaling) for scaling in (SPACE.unscaled, *scalings)] if ended else []
    measured = tuple(
        LatencyRound(
            round=r,
            networks=tuple(
                TimedNetwork(key=Candidate(best_base, scaling).key, predicted=ms * (1 + 0.3 / r * wrong), measured=ms)
                for scaling, ms, wrong in zip(SPACE.scalings(1), np.linspace(1, 4, 8), rng.normal(size=8), strict=False)
            ),
        )
        for r in range(1, rounds + 1)
    )
    return ScaleNetLedger(
        method="scalenet",
        search="joint",
        name="tiny",
        space=SPACE.model_dump(mode="json"),
        space_hash=SPACE.hash,
        settings={"search": {"population": 6, "generations": 3, "rounds": rounds, "seed": seed}, "classes": CLASSES},
        half_steps=tuple(steps),
        latency_rounds=measured if latency else (),
        images=456_789,
        seconds=1000.0,
        scoring_seconds=985.0,
        drawn=2000,
        wasted=130,
        ended=ended,
        **_scored(123, scored_networks, found, latency, 0.02),
    )


def baseline_ledger(search: str, seed: int) -> ScaleNetLedger:
    """A baseline that has ended; `random` has generations."""
    rng = np.random.default_rng(seed)
    bases = SPACE.sample(rng, 3)
    if search != "separate":
        bases[:] = bases[0]
    scalings = (SPACE.unscaled, *(SPACE.scalings(stage)[-2] for stage in STAGES))
    generations = tuple(Generation(best=float(best), mean=0.5, scored=6) for best in rng.uniform(0.5, 0.6, 9))
    step = HalfStep(round=1, kind="bases", scalings=scalings[1:], generations=generations)
    found = [Candidate(base, scaling) for base, scaling in zip(bases, scalings, strict=True)]
    return ScaleNetLedger(
        method="scalenet",
        search=search,
        name=f"tiny_{search}",
        space=SPACE.model_dump(mode="json"),
        space_hash=SPACE.hash,
        settings={"seed": seed},
        half_steps=(step,) if search == "random" else (),
        images=400_000,
        seconds=900.0,
        scoring_seconds=890.0,
        ended=True,
        **_scored(120, [], found, search != "separate"),
    )


def found_family(joint: ScaleNetLedger) -> Family:
    """What the joint search found, and stages 3 and 4 by the growth law."""
    found = joint.candidates(SPACE)
    provenance = Provenance(source="a made-up search", method="joint search")
    family = SPACE.family(found[0].kernels, [each.scaling for each in found], CLASSES, joint.name, provenance)
    law = fit_growth_law(family.strategies, SPACE.resolution)
    larger = []
    for stage in (3, 4):
        depth, width, resolution = np.exp(np.array([law.depth, law.width, law.resolution]) * stage).tolist()
        scaling = Scaling(stage, round(depth, 4), round(width, 4), round(SPACE.resolution * resolution))
        larger.append(scaling.to_strategy(f"{joint.name}_s{stage}"))
    return family.model_copy(update={"strategies": (*family.strategies, *larger)})


def trained_alone(ledgers: list[ScaleNetLedger], seeds: int = 2) -> Standalone:
    """The networks that searches found and 12 others, each trained with some seeds."""
    rng = np.random.default_rng(1)
    groups = {"joint": "found", "random": "random", "compound": "compound"}
    networks = [
        (groups[each.search], f"{each.name}_s{stage}", stage, f.macs, f.params, f.score, f.measured_ms)
        for each in ledgers
        if each.search in groups
        for stage, f in enumerate(each.found)
    ]
    for i, kernels in enumerate(SPACE.sample(rng, 12)):
        spec = SPACE.spec(kernels, SPACE.scalings(i % 3)[0], CLASSES)
        networks.append(("rank", f"rank{i}", i % 3, spec.cost.macs, spec.cost.params, _score(spec.cost.macs), None))
    rows = [
        StandaloneRow.model_validate(
            {
                "group": group,
                "name": name,
                "stage": stage,
                "seed": seed,
                "macs": macs,
                "params": params,
                "reached": round((score or 0.0) + 0.1 + 0.01 * float(rng.normal()), 4),
                "epochs": 30,
                "score": score,
                "latency_ms": latency,
            }
        )
        for group, name, stage, macs, params, score, latency in networks
        for seed in range(seeds)
    ]
    return Standalone(rows=tuple(rows))


def write_supernet(run: Path, steps: int = 400) -> None:
    """The log and the summary of a supernet's training."""
    rng = np.random.default_rng(2)
    folder = run / "supernet"
    folder.mkdir(parents=True)
    lines = [
        {
            "step": step,
            "kind": "train",
            "epoch": step / 50,
            "loss": 0.8 + 1.5 * float(np.exp(-step / 100)) + 0.1 * float(rng.normal()),
            "lr": 0.1,
            "images_per_second": 250.0,
            "macs": 1_000_000,
        }
        for step in range(5, steps + 1, 5)
    ]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    SupernetSummary(
        space_hash=SPACE.hash,
        weights_sha256="0" * 64,
        steps=steps,
        images=64 * steps,
        image_macs=64_000_000 * steps,
        seconds=102.4,
    ).save(folder / SUMMARY)


def write_run(run: Path) -> Path:
    """A whole run."""
    write_supernet(run)
    baselines = [baseline_ledger(name, seed) for seed, name in enumerate(("random", "compound", "separate"))]
    ledgers = [joint_ledger(), *baselines]
    for ledger in ledgers:
        ledger.save(run / "search" / f"{ledger.search}.json")
    family = found_family(ledgers[0])
    family.save(run / "family.json")
    for strategy in family.strategies:
        apply_strategy(family, strategy).save(run / "specs" / f"{strategy.name}.json")
    trained_alone(ledgers).save(run / "standalone.json")
    (run / "config.yaml").write_text("name: tiny\nspace: tiny\nsearch: {population: 6}\n", encoding="utf-8")
    machine = {"versions": {"scalenet_zoo": "0.5.0", "torch": "2.9.0"}, "cpu": "a made-up one", "cores": 2}
    about = {"config": {"name": "tiny"}, "machine": machine}
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    return run
