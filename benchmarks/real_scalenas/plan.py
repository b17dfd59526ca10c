"""The configuration of the run."""

import json
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.scalenas.config import ScaleNASConfig

CONFIGS = {name: Path(__file__).with_name(f"{name}.yaml") for name in ("camvid", "leeds")}
SamplerName = Literal["grouped", "uniform", "sandwich"]
SAMPLERS: tuple[SamplerName, ...] = ("grouped", "uniform", "sandwich")


class Alone(Strict):
    """Which networks are trained alone, and how.

    Attributes:
        found: number of networks from the Pareto front, as far apart in MACs as possible.
        drawn: number of random networks, to compare rankings.
        hrnet_widths: widths of the HRNets; an HRNet of the space's width has a score.
        seeds: seeds for the networks found and the HRNets; random networks use only the first.
        recipe: values that differ from the defaults of `Recipe`.
        longer_epochs: length of a second training, with the first seed, of the networks found and the HRNets that have
            a score; as long as the trainings of the teacher and the supernet together.
    """

    found: int
    drawn: int
    hrnet_widths: tuple[int, ...]
    seeds: tuple[int, ...]
    recipe: dict[str, JsonValue]
    longer_epochs: int


class Plan(Strict):
    """The configuration.

    Attributes:
        search: configuration of the grouped run.
        sandwich_epochs: epochs with the sandwich rule, which trains four networks per step; chosen so that it costs as
            much as the other samplers.
        networks: number of networks drawn to compare samplers.
        seeds: seeds of the searches that are compared; the first is that of the search itself.
        alone: networks that are trained alone.
    """

    search: ScaleNASConfig
    sandwich_epochs: int
    networks: int
    seeds: tuple[int, ...]
    alone: Alone

    @classmethod
    def load(cls, path: Path) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))

    def load_ledger(self, folder: Path, method: str, seed: int) -> Ledger:
        """What a search has found; the first seed is that of the run's own search."""
        is_first = seed == self.seeds[0]
        name = f"grouped/search/{method}.json" if is_first else f"searches/{method}{seed}.json"
        return Ledger.load(folder / name)
