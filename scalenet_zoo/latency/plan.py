"""How much of a family or space a latency profile measures; apart from `profile.py`, which needs torch."""

from typing import Annotated

from pydantic import Field

from scalenet_zoo.arch.spec import Strict
from scalenet_zoo.core.bounds import PROFILE_ITEMS


class Plan(Strict):
    """How much is measured.

    Attributes:
        layers: in context; of multipath networks, short ones.
        networks: that a model is fitted to.
        held_out: networks that it is judged by.
    """

    layers: Annotated[int, Field(ge=0, le=PROFILE_ITEMS)] = 80
    networks: Annotated[int, Field(ge=4, le=PROFILE_ITEMS)] = 90
    held_out: Annotated[int, Field(ge=2, le=PROFILE_ITEMS)] = 40
    seed: Annotated[int, Field(ge=0)] = 0
