"""What joint and separate searches cost, in images and in MACs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scalenet_zoo.search.driver import Run
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scoring import Scorer


@dataclass
class Counting:
    """A scorer that records the MACs of the networks that it scores."""

    scorer: Scorer
    images_each: int
    seconds: float = 0.0
    macs: list[int] = field(default_factory=list)

    def score(self, keys: Sequence[str]) -> list[float]:
        self.macs += [self.scorer.method.spec(key).cost.macs for key in keys]
        return self.scorer.score(keys)


def compare_costs(run: Run, bounds: Bounds, joint: ScaleNetLedger, separate: ScaleNetLedger) -> dict[str, Any]:
    """Compute the costs of both searches; the searches run again, with the scores that exist."""
    summary = run.train()
    scorer = run.make_scorer(summary)
    scored = {before.search: _scored_again(run, bounds, before, joint, scorer) for before in (joint, separate)}
    space, rng = bounds.space, np.random.default_rng(0)
    bases = space.sample(rng, 1000)
    means = [float(bounds.population(bases, space.scalings(stage.stage)).cost.macs.mean()) for stage in space.scaling]
    trained = {"joint": [summary.image_macs], "separate": [round(summary.images * mean) for mean in means]}
    costs: dict[str, Any] = {
        method: {
            "supernets": len(macs),
            "training_images": len(macs) * summary.images,
            "training_image_macs_forward": sum(macs),
            "networks_scored": len(scored[method]),
            "scoring_images": len(scored[method]) * scorer.images_each,
            "scoring_image_macs_forward": sum(scored[method]) * scorer.images_each,
        }
        for method, macs in trained.items()
    }
    for cost in costs.values():  # a backward pass takes twice the MACs of a forward pass
        cost["passes"] = 2 * cost["training_images"] + cost["scoring_images"]
        cost["image_macs"] = 3 * cost["training_image_macs_forward"] + cost["scoring_image_macs_forward"]
    costs["note"] = "separate searches: a supernet for each size, each trained with as many images as the joint one"
    for figure in ("passes", "image_macs"):
        costs[f"ratio_{figure}"] = costs["separate"][figure] / costs["joint"][figure]
    return costs


def _scored_again(run: Run, bounds: Bounds, before: ScaleNetLedger, joint: ScaleNetLedger, scorer: Scorer) -> list[int]:
    """Run a search again, after the joint one; return the MACs of every network that it asks for a score.

    Raises:
        RuntimeError: it found something else.
    """
    asked = Counting(scorer, scorer.images_each)
    with TemporaryDirectory() as folder:
        record = Record(Path(folder) / f"{before.search}.json", ScaleNetLedger(**before.asked), asked, bounds)
        now = record.run(partial(run.method.search, before.search, record, {"joint": joint}))
    if (before.found, before.evaluations) != (now.found, now.evaluations):
        raise RuntimeError(f"{before.search}: found another result when run again, expected the same")
    return asked.macs
