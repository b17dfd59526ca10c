"""How networks are scored and timed: sections of a configuration.

They have a module of their own so that a configuration can be read and checked before torch is imported.
"""

from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.documents import Strict
from scalenet_zoo.latency.plan import Plan

Whole = Annotated[int, Field(ge=1)]


class ScoringSettings(Strict):
    """How networks are scored, whatever the method.

    Attributes:
        bn_images: number of training images that batch-norm statistics are estimated from, spread evenly over the
            split.
        val_images: number of validation images, spread evenly over the split; null: all.
        batch_size: approximate number of images per batch; batches that statistics are estimated from are as equal in
            size as possible. A CPU judges classifiers in batches of at most 128, whose scores are the same.
        amp: the number type that networks compute in where that is safe; no: float32 throughout.
    """

    bn_images: Annotated[int, Field(ge=2)] = 2000
    val_images: Annotated[int, Field(ge=2)] | None = None
    batch_size: Annotated[int, Field(ge=4)] = 128
    amp: Literal["no", "bf16", "fp16"] = "no"


class SearchSettings(Strict):
    """Settings of the search that all methods share.

    Attributes:
        seed: determines everything that is random.
    """

    seed: Annotated[int, Field(ge=0)] = 0


class LatencySettings(Strict):
    """How latency is modelled and measured, if it is limited.

    Attributes:
        profile: how many layers and networks of the space are measured before the search.
        measured: number of networks that are measured after each round; for ScaleNet, at each limited stage.
        batch: images per batch.
        precision: precision of the networks; int8 only on ort-cpu and openvino.
    """

    profile: Plan = Plan(layers=40, networks=40, held_out=12)
    measured: Whole = 4
    batch: Whole = 1
    precision: Precision = "fp32"
