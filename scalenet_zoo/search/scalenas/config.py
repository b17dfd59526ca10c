"""What a search of ScaleNAS is told: topologies of multipath networks for segmentation or pose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import regular_file
from scalenet_zoo.search.config import SearchConfig
from scalenet_zoo.search.scalenas.limits import TopologyLimits
from scalenet_zoo.search.settings import LatencySettings, ScoringSettings, SearchSettings, Whole
from scalenet_zoo.spaces.scalenas import MultipathSpace, Probability
from scalenet_zoo.supernet.scalenas.settings import ScaleNASSettings
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.zoo.kinship import check_inheritance

TopologyBaseline = Literal["random", "ageing"]
Metric = Literal["miou", "ap", "pck"]
METRICS: Mapping[Task, tuple[Metric, ...]] = {"segmentation": ("miou",), "pose": ("ap", "pck")}
"""What networks of a task may be judged by; the first if nothing is said."""


class ScaleNASScoring(ScoringSettings):
    """How multipath networks are scored.

    Attributes:
        metric: `miou` of segmentation, `ap` or `pck` of pose; null: the first that the task has.
    """

    bn_images: Annotated[int, Field(ge=2)] = 500
    batch_size: Annotated[int, Field(ge=4)] = 16
    metric: Metric | None = None

    def metric_of(self, task: Task) -> Metric:
        """What networks of a task are judged by.

        Raises:
            InputError: the task has no such figure.
        """
        known = METRICS[task]
        if self.metric is not None and self.metric not in known:
            raise InputError(f"scoring.metric: found {self.metric}, expected {' or '.join(known)} for {task}")
        return self.metric or known[0]


class TopologySettings(SearchSettings):
    """How is searched; the defaults are the paper's, but for `mutation`.

    Attributes:
        first: networks drawn before evolution begins.
        evaluations: networks scored in all.
        parents: of a generation, which has as many offspring; the population of ageing evolution.
        crossover: the probability that a module comes from another parent.
        mutation: the probability that a path is flipped. The paper says 0.5, after which nothing of a parent's paths is
            left; 0.2 is what its authors' released script does.
        tournament: networks among which ageing evolution chooses a parent.
    """

    first: Whole = 1000
    evaluations: Whole = 2000
    parents: Annotated[int, Field(ge=2)] = 100
    crossover: Probability = 0.25
    mutation: Probability = 0.2
    tournament: Whole = 25


class ScaleNASLatency(LatencySettings):
    """How latency is modelled and measured, where it is limited.

    Attributes:
        every: generations between measurements; one is as many networks as evolution has parents.
    """

    every: Whole = 2


class ScaleNASConfig(SearchConfig):
    """A search of ScaleNAS.

    Attributes:
        method: tells this kind from the other.
        ignore_index: of segmentation masks: the value of void pixels; None: 255, where `classes.json` says nothing
            else.
        joints: of persons: a YAML file about their joints, beside the configuration.
    """

    method: Literal["scalenas"]
    ignore_index: Annotated[int, Field(ge=0, le=255)] | None = None
    joints: str | None = None
    limits: TopologyLimits = TopologyLimits()
    supernet: ScaleNASSettings = ScaleNASSettings()
    scoring: ScaleNASScoring = ScaleNASScoring()
    search: TopologySettings = TopologySettings()
    latency: ScaleNASLatency = ScaleNASLatency()
    baselines: tuple[TopologyBaseline, ...] = ()

    def open_space(self) -> MultipathSpace:
        """See `SearchConfig.open_space`."""
        if isinstance(self.space, str):
            return MultipathSpace.load(self.space)
        return MultipathSpace.from_values(self.space, "space")

    @property
    def task(self) -> Task:
        """That of the space's head."""
        return self.open_space().head

    @property
    def reading(self) -> dict[str, Any]:
        """See `SearchConfig.reading`."""
        joints: dict[str, Any] = {"joints": Path(self.joints)} if self.joints else {}
        return {"ignore_index": self.ignore_index, **joints}

    def make_recipe(self) -> Recipe:
        """See `SearchConfig.make_recipe`."""
        return self.supernet.make_recipe(self.open_space().head)

    def check_settings(self) -> None:
        """See `SearchConfig.check_settings`."""
        if self.joints:
            try:
                regular_file(Path(self.joints))
            except ValueError as error:
                raise InputError(f"{self.joints}: {error}") from None
        self.scoring.metric_of(self.task)
        if self.supernet.inherit is not None:
            space = self.open_space()
            check_inheritance(self.supernet.inherit, space.spec(space.smallest, 1))
        self.supernet.teacher.make_recipe(self.make_recipe(), self.task)
