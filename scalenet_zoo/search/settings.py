"""How networks are scored and timed: sections of a configuration, apart from what uses them.

So a configuration is read, and what is wrong in it told, before torch is imported.
"""

from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import Strict
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.latency.plan import Plan

Whole = Annotated[int, Field(ge=1)]


class ScoringSettings(Strict):
    """How networks are scored, whichever they are.

    Attributes:
        bn_images: training images that batch-norm statistics are estimated from, spread evenly over their split.
        val_images: validation images, spread evenly; null: all.
        batch_size: images at once, about; batches that statistics are estimated from are of one size, as far as can be.
        amp: the type that networks compute in where that is safe; no: float32.
    """

    bn_images: Annotated[int, Field(ge=2)] = 2000
    val_images: Annotated[int, Field(ge=2)] | None = None
    batch_size: Annotated[int, Field(ge=4)] = 128
    amp: Literal["no", "bf16", "fp16"] = "no"


class SearchSettings(Strict):
    """How is searched, by whichever method.

    Attributes:
        seed: of all that is random.
    """

    seed: Annotated[int, Field(ge=0)] = 0


class LatencySettings(Strict):
    """How latency is modelled and measured, where it is limited.

    Attributes:
        profile: how much of the space is measured before the search.
        measured: networks that are measured after a round; of ScaleNet's search, of each limited stage.
        batch: images at once.
        precision: of the networks; int8 on ort-cpu and openvino.
    """

    profile: Plan = Plan(layers=40, networks=40, held_out=12)
    measured: Whole = 4
    batch: Whole = 1
    precision: Precision = "fp32"
