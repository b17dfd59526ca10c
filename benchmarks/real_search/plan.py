"""The configuration of the run, and the documents that it writes into its folder."""

import json
from pathlib import Path

from pydantic import JsonValue

from scalenet_zoo.core.documents import Document, Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.standalone import StandaloneGroup
from scalenet_zoo.spaces.candidates import Kernels
from scalenet_zoo.spaces.scalenet import Scaling

PLAN = Path(__file__).with_name("plan.yaml")
SOURCES: dict[StandaloneGroup, str] = {"found": "joint", "compound": "compound", "random": "random"}
"""For each group of networks that a search found, the name of the search."""


class Ranked(Strict):
    """Networks drawn to compare rankings: their stages, and how many networks of each."""

    stages: tuple[int, ...]
    each: int


class Alone(Strict):
    """How networks are trained alone: values of the recipe, and the seeds for networks that searches found."""

    seeds: tuple[int, ...]
    recipe: dict[str, JsonValue]


class LatencyPlan(Strict):
    """The search under a latency limit: the limit as a share of the joint search's latencies, and its rounds."""

    share: float
    backend: str
    threads: int
    rounds: int


class Plan(Strict):
    """The content of plan.yaml; `networks` per stage are drawn to compare samplers."""

    search: ScaleNetConfig
    networks: int
    ranked: Ranked
    alone: Alone
    latency: LatencyPlan

    @classmethod
    def load(cls, path: Path = PLAN) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))


class Drawn(Strict):
    """A network drawn at random, and its scores in both supernets."""

    kernels: Kernels
    scaling: Scaling
    macs: int
    hierarchical: float
    uniform: float


class Samplers(Document):
    """RUN/samplers.json."""

    networks: tuple[Drawn, ...]


class Budgets(Document):
    """RUN/budgets.json: latencies of the joint search's networks in milliseconds, and the limits for (e)."""

    joint_ms: tuple[float, ...]
    budgets: tuple[str, ...]


def load_ledger(folder: Path, method: str, run: str = "hss") -> ScaleNetLedger:
    """What a search has found: the file of the method in one of the runs of RUN."""
    return ScaleNetLedger.load(folder / run / "search" / f"{method}.json")
