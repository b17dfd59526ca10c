"""The tasks of a worker process: train a supernet, score networks, train a network alone, search.

Each task takes the images and the plan first, and returns plain values that can be written as JSON.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.evidence.alone import Training, train_alone
from benchmarks.evidence.images import Sets
from benchmarks.evidence.plan import Plan, SupernetVariant
from benchmarks.evidence.supernets import SupernetTraining
from benchmarks.jobs import Results
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenet.baselines import search_baseline
from scalenet_zoo.search.scalenet.config import MCEASettings
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import scaled_stages
from scalenet_zoo.search.scalenet.mcea import MCEA

Answer = dict[str, Any] | None
"""The answer of a task; None if the time ran out before it ended."""
PART = 60.0
"""Seconds after which the training of a supernet writes its state and returns, to be resumed by the next task."""
MEASURED = 5.0
"""Seconds in which the rate of a supernet is measured, after as many seconds of warm-up."""


def self_test(sets: Sets, plan: Plan) -> dict[str, Any]:
    """Train one network for a few steps twice, with and without a CUDA graph, and compare the two.

    Returns:
        `alike`, the cosine between the changes of the weights, and `moved`, the length of the change.
    """
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
    """Train a network alone, by the plan's recipe with changed values."""
    result = train_alone(plan.spec(key), plan.recipe(**changes), sets, until, record)
    return None if result is None else {**vars(result), "seconds": round(result.seconds, 2)}


def rate(sets: Sets, plan: Plan, variant: SupernetVariant) -> Answer:
    """Measure how many images per second the training of a supernet processes, beside the other processes."""
    endless = variant.model_copy(update={"recipe": {**variant.recipe, "epochs": 10_000}})
    training = SupernetTraining(plan, plan.settings_of(endless), sets, variant.shared_kernels, variant.average)
    training.run(until=time.monotonic() + MEASURED)
    first = time.monotonic()
    steps = training.run(until=first + MEASURED)
    images = steps * training.recipe.batch_size * plan.networks_per_step(variant)
    return {"images_per_second": images / (time.monotonic() - first), "images": len(sets.train)}


def supernet(sets: Sets, plan: Plan, variant: SupernetVariant, folder: Path, until: float) -> Answer:
    """Train a supernet for about a minute (`PART`), and write its state, or its weights after the last step.

    The weights are NAME.safetensors, and NAME.averaged.safetensors for their running mean.

    Returns:
        Number of steps that are `left`, or, after the last step, the cost of the training.
    """
    training = SupernetTraining(plan, plan.settings_of(variant), sets, variant.shared_kernels, variant.average)
    state = folder / f"{variant.name}.state.safetensors"
    if state.exists():
        training.load_state(state)
    training.run(until=min(until, time.monotonic() + PART))
    if training.done < training.steps:
        training.save_state(state)
        return {"left": training.steps - training.done, "steps": training.steps, "seconds": training.seconds}
    training.save(folder / f"{variant.name}.safetensors")
    if variant.average is not None:
        training.save(folder / f"{variant.name}.averaged.safetensors", averaged=True)
    state.unlink(missing_ok=True)
    return {
        "steps": training.steps,
        "batch_size": training.recipe.batch_size,
        "networks_a_step": plan.networks_per_step(variant),
        "seconds": round(training.seconds, 2),
    }


def score(
    sets: Sets,
    plan: Plan,
    variant: SupernetVariant,
    path: Path,
    keys: Sequence[str],
    changes: dict[str, Any],
    until: float,
) -> Answer:
    """Score networks with the weights of a file; `changes` replace values of the plan's scoring."""
    began = time.monotonic()
    training = SupernetTraining(plan, plan.settings_of(variant), sets, variant.shared_kernels)
    training.load(path)
    scores = training.score(plan, keys, plan.scoring.model_copy(update=changes), until)
    if len(scores) < len(keys):
        return None
    return {"scores": dict(zip(keys, scores, strict=True)), "seconds": round(time.monotonic() - began, 2)}


class OutOfTimeError(Exception):
    """The time of a search has run out."""


class ResumableScorer:
    """Scores networks for a search's `Record`, and keeps the scores in a file, so that a stopped search resumes."""

    def __init__(self, training: SupernetTraining, plan: Plan, path: Path, until: float) -> None:
        self.training, self.plan, self.until = training, plan, until
        self.known = Results(path, path)
        self.seconds = 0.0
        scoring = plan.scoring
        self.images_each = 2 * (scoring.bn_images + len(training.sets.search))

    def score(self, keys: Sequence[str]) -> list[float]:
        """See `record.NetworkScores`.

        Raises:
            OutOfTimeError: if the time runs out.
        """
        began = time.monotonic()
        for key in keys:
            if key not in self.known:
                scores = self.training.score(self.plan, [key], self.plan.scoring, self.until)
                if not scores:
                    raise OutOfTimeError
                self.known.add(key, {"score": round(scores[0], 5)})  # as the file has it
        self.seconds += time.monotonic() - began
        return [self.known.answers[key]["score"] for key in keys]


def search(
    sets: Sets, plan: Plan, variant: SupernetVariant, path: Path, method: str, seed: int, evaluations: int, until: float
) -> Answer:
    """Search with the weights of a file; a file beside it keeps the scores until the search ends.

    Args:
        sets: the images.
        plan: the plan, for the space, the limits and the settings of the joint search.
        variant: the supernet.
        path: the file of its weights.
        method: `joint`, or a method of `search_baseline`.
        seed: the seed of the search.
        evaluations: number of networks that a baseline scores.
        until: the time (`time.monotonic`) at which the search stops.

    Returns:
        The keys of the networks found, one per stage, their scores, and the cost of the search.
    """
    began = time.monotonic()
    training = SupernetTraining(plan, plan.settings_of(variant), sets, variant.shared_kernels)
    training.load(path)
    settings = MCEASettings.model_validate({**plan.study.search, "seed": seed})
    first = ScaleNetLedger(
        method="scalenet",
        search=method,
        name=f"{variant.name}_{method}".replace("-", "_"),
        space=plan.opened.model_dump(mode="json"),
        space_hash=plan.opened.hash,
        settings={},
    )
    kept = path.with_name(f"{variant.name}.{method}.jsonl")
    with TemporaryDirectory() as folder:
        record = Record(Path(folder) / "search.json", first, ResumableScorer(training, plan, kept, until), plan.bounds)
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
