"""The configuration of a ScaleNAS search: topologies of multipath networks for segmentation or pose."""

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
"""The metrics that networks of a task may be judged by; the first is the default."""


class ScaleNASScoring(ScoringSettings):
    """How multipath networks are scored.

    Attributes:
        metric: `miou` for segmentation, `ap` or `pck` for pose; null: the first metric of the task in `METRICS`.
    """

    bn_images: Annotated[int, Field(ge=2)] = 500
    batch_size: Annotated[int, Field(ge=4)] = 16
    metric: Metric | None = None

    def metric_of(self, task: Task) -> Metric:
        """The metric that networks of a task are judged by.

        Raises:
            InputError: the task has no such metric.
        """
        known = METRICS[task]
        if self.metric is not None and self.metric not in known:
            raise InputError(f"scoring.metric: found {self.metric}, expected {' or '.join(known)} for {task}")
        return self.metric or known[0]


class TopologySettings(SearchSettings):
    """Settings of topology evolution; the defaults are the paper's (ScaleNAS, AutoML-Conf 2022), except `mutation`.

    Attributes:
        first: number of networks drawn before evolution begins.
        evaluations: number of networks scored in all.
        parents: number of parents in a generation, which has as many offspring; also the population of ageing
            evolution.
        crossover: probability that a module comes from another parent.
        mutation: probability that a path is flipped. The paper has 0.5, which leaves nothing of a parent's paths; the
            script that its authors released uses 0.2.
        tournament: number of networks among which ageing evolution chooses a parent.
    """

    first: Whole = 1000
    evaluations: Whole = 2000
    parents: Annotated[int, Field(ge=2)] = 100
    crossover: Probability = 0.25
    mutation: Probability = 0.2
    tournament: Whole = 25


class ScaleNASLatency(LatencySettings):
    """How latency is modelled and measured, if it is limited.

    Attributes:
        every: generations between measurements; a generation is as many networks as evolution has parents.
    """

    every: Whole = 2


class ScaleNASConfig(SearchConfig):
    """The configuration of a ScaleNAS search.

    Attributes:
        method: always `scalenas`; tells this configuration from ScaleNet's.
        ignore_index: for segmentation, the value of void pixels in masks; None: that in `classes.json`, or else 255.
        joints: for pose, a YAML file that describes the joints; its path is relative to the configuration.
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
        """The task of the space's head."""
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
