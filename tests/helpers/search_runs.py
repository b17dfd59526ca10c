"""A made-up run of a search in a tiny space: every file of it, through the real classes; figures are invented."""

import json
from pathlib import Path

import numpy as np

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.scaling import apply_strategy, fit_growth_law
from scalenet_zoo.arch.spec import Provenance
from scalenet_zoo.search.scalenet.state import (
    Found,
    Generation,
    HalfStep,
    LatencyRound,
    Measured,
    ScoredBase,
    ScoredScaling,
    SearchState,
)
from scalenet_zoo.search.standalone import Standalone, StandaloneRow
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


def _kernels(kernels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(kernel) for kernel in row if kernel) for row in kernels)


def _found(kernels: np.ndarray, scaling: Scaling, shift: float, latency: bool) -> Found:
    spec = SPACE.spec(kernels, scaling, CLASSES)
    return Found(
        stage=scaling.stage,
        kernels=_kernels(kernels),
        scaling=scaling,
        score=_score(spec.cost.macs, shift),
        macs=spec.cost.macs,
        params=spec.cost.params,
        latency_ms=round(spec.cost.macs / 5e5, 3) if latency else None,
    )


def joint_state(rounds: int = 3, ended: bool = True, latency: bool = True, seed: int = 0) -> SearchState:
    """A joint search of so many rounds, each with three generations."""
    rng = np.random.default_rng(seed)
    steps: list[HalfStep] = []
    scalings = tuple(SPACE.scalings(stage)[0] for stage in STAGES)
    for r in range(rounds + 1):
        bases = SPACE.sample(rng, 6)
        if r:
            scored = [
                ScoredBase(
                    kernels=_kernels(kernels),
                    macs=_macs(kernels, SPACE.unscaled),
                    fitness=float(np.mean(scores)),
                    scores=scores,
                )
                for kernels in bases
                for scores in [tuple(_score(_macs(kernels, scaling)) for scaling in scalings)]
            ]
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
    measured = tuple(
        LatencyRound(
            round=r,
            networks=tuple(
                Measured(
                    kernels=_kernels(best_base), scaling=scaling, predicted=ms * (1 + 0.3 / r * wrong), measured=ms
                )
                for scaling, ms, wrong in zip(SPACE.scalings(1), np.linspace(1, 4, 8), rng.normal(size=8), strict=False)
            ),
        )
        for r in range(1, rounds + 1)
    )
    return SearchState(
        method="joint",
        name="tiny",
        space=SPACE.name,
        space_hash=SPACE.hash,
        settings={"search": {"population": 6, "generations": 3, "rounds": rounds, "seed": seed}, "classes": CLASSES},
        stages=STAGES,
        half_steps=tuple(steps),
        latency_rounds=measured if latency else (),
        evaluations=123,
        images=456_789,
        seconds=1000.0,
        scoring_seconds=985.0,
        drawn=2000,
        wasted=130,
        ended=ended,
        found=tuple(_found(best_base, s, 0.02, latency) for s in (SPACE.unscaled, *scalings)) if ended else (),
    )


def baseline_state(method: str, seed: int) -> SearchState:
    """A baseline that has ended; `random` has generations."""
    rng = np.random.default_rng(seed)
    bases = SPACE.sample(rng, 3)
    if method != "separate":
        bases[:] = bases[0]
    scalings = (SPACE.unscaled, *(SPACE.scalings(stage)[-2] for stage in STAGES))
    generations = tuple(Generation(best=float(best), mean=0.5, scored=6) for best in rng.uniform(0.5, 0.6, 9))
    step = HalfStep(round=1, kind="bases", scalings=scalings[1:], generations=generations)
    return SearchState.from_dict(
        {
            "method": method,
            "name": f"tiny_{method}",
            "space": SPACE.name,
            "space_hash": SPACE.hash,
            "settings": {"seed": seed},
            "stages": STAGES,
            "half_steps": [step.model_dump(mode="json")] if method == "random" else [],
            "evaluations": 120,
            "images": 400_000,
            "seconds": 900.0,
            "scoring_seconds": 890.0,
            "ended": True,
            "found": [
                _found(kernels, scaling, 0.0, method != "separate").model_dump(mode="json")
                for kernels, scaling in zip(bases, scalings, strict=True)
            ],
        },
        method,
    )


def found_family(joint: SearchState) -> Family:
    """What the joint search found, and stages 3 and 4 by the growth law."""
    longest = max(map(len, joint.found[0].kernels))
    kernels = np.array([[*row, *[0] * (longest - len(row))] for row in joint.found[0].kernels])
    provenance = Provenance(source="a made-up search", method="joint search")
    family = SPACE.family(kernels, [f.scaling for f in joint.found], CLASSES, joint.name, provenance)
    law = fit_growth_law(family.strategies, SPACE.resolution)
    larger = []
    for stage in (3, 4):
        depth, width, resolution = np.exp(np.array([law.depth, law.width, law.resolution]) * stage).tolist()
        scaling = Scaling(stage, round(depth, 4), round(width, 4), round(SPACE.resolution * resolution))
        larger.append(scaling.to_strategy(f"{joint.name}_s{stage}"))
    return family.model_copy(update={"strategies": (*family.strategies, *larger)})


def trained_alone(states: list[SearchState], seeds: int = 2) -> Standalone:
    """The networks that searches found and 12 others, each trained with some seeds."""
    rng = np.random.default_rng(1)
    groups = {"joint": "found", "random": "random", "compound": "compound"}
    networks = [
        (groups[state.method], f"{state.name}_s{f.stage}", f.stage, f.macs, f.params, f.score, f.latency_ms)
        for state in states
        if state.method in groups
        for f in state.found
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
    states = [
        joint_state(),
        *(baseline_state(name, seed) for seed, name in enumerate(("random", "compound", "separate"))),
    ]
    for state in states:
        state.save(run / "search" / f"{state.method}.json")
    family = found_family(states[0])
    family.save(run / "family.json")
    for strategy in family.strategies:
        apply_strategy(family, strategy).save(run / "specs" / f"{strategy.name}.json")
    trained_alone(states).save(run / "standalone.json")
    (run / "config.yaml").write_text("name: tiny\nspace: tiny\nsearch: {population: 6}\n", encoding="utf-8")
    machine = {"versions": {"scalenet_zoo": "0.5.0", "torch": "2.9.0"}, "cpu": "a made-up one", "cores": 2}
    about = {"config": {"name": "tiny"}, "machine": machine}
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    return run
