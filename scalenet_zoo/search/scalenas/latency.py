"""Latency in the loop of a search of topologies: predicted, measured now and then, the model fitted anew.

space --items--> measurements --fit--> latency model --TopologyBounds--> generations --front--> exported, measured
^                                                                               |
+-------------------------------------------------------------------------------+
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalenet_zoo.latency.profile import YARDSTICK_PIXELS
from scalenet_zoo.search.latency import LatencyMeter
from scalenet_zoo.search.scalenas.state import TimedTopology, TopologyRound

if TYPE_CHECKING:
    import numpy as np

    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.latency.model import LatencyModel
    from scalenet_zoo.spaces.scalenas import MultipathSpace
    from scalenet_zoo.spaces.space_file import SpaceFile


@dataclass(kw_only=True)
class TopologyLatency(LatencyMeter):
    """Latency of a space's networks.

    Attributes:
        space: of topologies.
    """

    space: MultipathSpace

    @property
    def _about(self) -> tuple[SpaceFile, str, int]:
        return self.space, self.space.name, 1

    def _draw(self, rng: np.random.Generator) -> ArchSpec:
        """A network of any group."""
        return self._spec(self.space.keys(self.space.sample(rng, 1))[0])

    @property
    def _yardstick(self) -> ArchSpec:
        """The smallest network, for small images."""
        spec = self.space.spec(self.space.smallest, self.classes, "smallest")
        return spec.replace(height=YARDSTICK_PIXELS, width=YARDSTICK_PIXELS)

    def _spec(self, key: str) -> ArchSpec:
        return self.space.spec(self.space.from_keys([key])[0], self.classes)

    def model(self, rounds: Sequence[TopologyRound] = ()) -> LatencyModel:
        """The latency model fitted to the profile and to what rounds measured; the same gives the same."""
        return self._fitted((self._spec(network.key), network.measured) for each in rounds for network in each.networks)

    def measure(self, number: int, predicted: Mapping[str, float]) -> TopologyRound:
        """Export and measure networks.

        Args:
            number: of the round.
            predicted: milliseconds by the topologies' keys.

        Raises:
            BackendError: the back end cannot run here, or not one of the networks.
        """
        times = self.measure_specs({key: self._spec(key) for key in predicted})
        return TopologyRound(
            round=number,
            networks=tuple(
                TimedTopology(key=key, predicted=guess, measured=ms)
                for (key, guess), ms in zip(predicted.items(), times, strict=True)
            ),
        )
