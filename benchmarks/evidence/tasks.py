"""What a process is told to do in the run: a supernet, scores, a training alone, a search; each gives plain values."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.evidence.alone import Training, train_alone
from benchmarks.evidence.images import Sets
from benchmarks.evidence.plan import Plan, Way
from benchmarks.evidence.supernets import SupernetTraining
from benchmarks.jobs import Results
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenet.baselines import search_baseline
from scalenet_zoo.search.scalenet.config import MCEASettings
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import scaled_stages
from scalenet_zoo.search.scalenet.mcea import MCEA

Answer = dict[str, Any] | None
"""None: there was no time to end it."""
PART = 60.0
"""Seconds of a supernet's training that a process does at once: then it writes the state, and says how far it is."""
MEASURED = 5.0
"""Seconds in which a supernet's rate is measured, after as many to warm up."""


def self_test(sets: Sets, plan: Plan) -> dict[str, Any]:
    """Whether steps that are recorded do what others do: a training of a few steps, both ways, synchronised."""
    (key,) = plan.draw(0, 1, 0)
    found: list[torch.Tensor] = []
    recorded, trouble = False, ""
    for record in (True, False):
        training = Training(plan.spec(key), plan.recipe(warmup_epochs=0), sets, record)
        before = [weight.detach().clone() for weight in training.network.parameters()]
        training.run(3)
        pairs = zip(training.network.parameters(), before, strict=True)
        found.append(torch.cat([(now.detach() - first).reshape(-1) for now, first in pairs]).cpu())
        if record:
            recorded, trouble = training.recorded, training.trouble
    alike = float(torch.nn.functional.cosine_similarity(found[0], found[1], dim=0))
    return {"recorded": recorded, "trouble": trouble, "alike": alike, "moved": float(found[0].norm())}


def alone(sets: Sets, plan: Plan, key: str, changes: dict[str, Any], record: bool, until: float) -> Answer:
    """Train a network alone; `changes`: values of the recipe."""
    reached = train_alone(plan.spec(key), plan.recipe(**changes), sets, until, record)
    return None if reached is None else {**vars(reached), "seconds": round(reached.seconds, 2)}


def rate(sets: Sets, plan: Plan, way: Way) -> Answer:
    """Images that a supernet's training works through in a second, beside all that other processes do."""
    endless = way.model_copy(update={"recipe": {**way.recipe, "epochs": 10_000}})
    training = SupernetTraining(plan, plan.settings_of(endless), sets, way.shared_kernels, way.average)
    training.run(until=time.monotonic() + MEASURED)
    first = time.monotonic()
    steps = training.run(until=first + MEASURED)
    images = steps * training.recipe.batch_size * plan.networks_of(way)
    return {"images_per_second": images / (time.monotonic() - first), "images": len(sets.train)}


def supernet(sets: Sets, plan: Plan, way: Way, folder: Path, until: float) -> Answer:
    """Train a supernet for a part of its steps; after the last, write its weights, NAME.safetensors, and the mean's.

    Returns:
        What it took; steps that are `left`, if it is not yet at its end: its state is written then.
    """
    training = SupernetTraining(plan, plan.settings_of(way), sets, way.shared_kernels, way.average)
    state = folder / f"{way.name}.state.safetensors"
    if state.exists():
        training.load_state(state)
    training.run(until=min(until, time.monotonic() + PART))
    if training.done < training.steps:
        training.save_state(state)
        return {"left": training.steps - training.done, "steps": training.steps, "seconds": training.seconds}
    training.save(folder / f"{way.name}.safetensors")
    if way.average is not None:
        training.save(folder / f"{way.name}.averaged.safetensors", averaged=True)
    state.unlink(missing_ok=True)
    return {
        "steps": training.steps,
        "batch_size": training.recipe.batch_size,
        "networks_a_step": plan.networks_of(way),
        "seconds": round(training.seconds, 2),
    }


def score(
    sets: Sets, plan: Plan, way: Way, path: Path, keys: Sequence[str], changes: dict[str, Any], until: float
) -> Answer:
    """Scores of networks by the weights of a file; `changes`: of how they are scored."""
    began = time.monotonic()
    training = SupernetTraining(plan, plan.settings_of(way), sets, way.shared_kernels)
    training.load(path)
    scores = training.score(plan, keys, plan.scoring.model_copy(update=changes), until)
    if len(scores) < len(keys):
        return None
    return {"scores": dict(zip(keys, scores, strict=True)), "seconds": round(time.monotonic() - began, 2)}


class OutOfTimeError(Exception):
    """A search has no time left."""


class ArrayScorer:
    """Scores networks for a search's `Record`; the scores so far lie in a file, which a stopped search goes on with."""

    def __init__(self, training: SupernetTraining, plan: Plan, path: Path, until: float) -> None:
        self.training, self.plan, self.until = training, plan, until
        self.known = Results(path, path)
        self.seconds = 0.0
        scoring = plan.scoring
        self.images_each = 2 * (scoring.bn_images + len(training.sets.search))

    def score(self, keys: Sequence[str]) -> list[float]:
        """See `record.NetworkScores`."""
        began = time.monotonic()
        for key in keys:
            if key not in self.known:
                scores = self.training.score(self.plan, [key], self.plan.scoring, self.until)
                if not scores:
                    raise OutOfTimeError
                self.known.add(key, {"score": round(scores[0], 5)})  # as it is written
        self.seconds += time.monotonic() - began
        return [self.known.answers[key]["score"] for key in keys]


def search(
    sets: Sets, plan: Plan, way: Way, path: Path, method: str, seed: int, evaluations: int, until: float
) -> Answer:
    """Search with the weights of a file; scores are kept beside it until the search ends.

    Args:
        sets: the images.
        plan: space, limits, settings of the search.
        way: of the supernet.
        path: of its weights.
        method: `joint`, or one of `search_baseline`.
        seed: of the search.
        evaluations: networks to be scored, where it is not the joint search.
        until: on the clock.

    Returns:
        Keys of the networks found, one a stage, their scores, and what it took.
    """
    began = time.monotonic()
    training = SupernetTraining(plan, plan.settings_of(way), sets, way.shared_kernels)
    training.load(path)
    settings = MCEASettings.model_validate({**plan.study.search, "seed": seed})
    first = ScaleNetLedger(
        method="scalenet",
        search=method,
        name=f"{way.name}_{method}".replace("-", "_"),
        space=plan.opened.model_dump(mode="json"),
        space_hash=plan.opened.hash,
        settings={},
    )
    kept = path.with_name(f"{way.name}.{method}.jsonl")
    with TemporaryDirectory() as folder:
        record = Record(Path(folder) / "search.json", first, ArrayScorer(training, plan, kept, until), plan.bounds)
        run = (
            MCEA(record, settings).run
            if method == "joint"
            else partial(search_baseline, method, record, settings, evaluations)  # type: ignore[arg-type]
        )
        try:
            ledger = record.run(run)
        except OutOfTimeError:
            return None
    kept.unlink(missing_ok=True)
    found = ledger.found
    return {
        "found": [network.key for network in found],
        "scores": [network.score for network in found],
        "stages": [0, *scaled_stages(plan.opened)],
        "evaluations": ledger.evaluations,
        "images": ledger.images,
        "seconds": round(time.monotonic() - began, 2),
    }
