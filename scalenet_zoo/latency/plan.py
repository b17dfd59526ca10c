"""The number of measurements in a latency profile; it needs no torch."""

from typing import Annotated

from pydantic import Field

from scalenet_zoo.core.bounds import PROFILE_ITEMS
from scalenet_zoo.core.documents import Strict


class Plan(Strict):
    """The number of items to measure.

    Attributes:
        layers: layers in context; for multipath networks, short networks.
        networks: whole networks to which a model is fitted.
        held_out: held-out networks on which the model is judged.
        seed: the seed that draws the items.
    """

    layers: Annotated[int, Field(ge=0, le=PROFILE_ITEMS)] = 80
    networks: Annotated[int, Field(ge=4, le=PROFILE_ITEMS)] = 90
    held_out: Annotated[int, Field(ge=2, le=PROFILE_ITEMS)] = 40
    seed: Annotated[int, Field(ge=0)] = 0


QUICK = Plan(layers=20, networks=20, held_out=5)
"""The plan of a quick profile, for a latency budget that cannot wait for a full one."""
