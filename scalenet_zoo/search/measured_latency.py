"""Latency in the loop of a search: a model predicts it, the back end measures it, and the model is fitted again.

    space --items--> measurements --fit--> latency model --bounds--> search --its best networks--> exported, measured
                          ^                                                                              |
                          +------------------------------ one round -------------------------------------+

The model is a function of the profile of the space, which is measured once, and of the measurements of the rounds,
which the search's ledger keeps. So a resumed search gets the same models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.latency.items import draw_items, network_item
from scalenet_zoo.latency.measuring import measure_items, prepare_yardstick, visit_item
from scalenet_zoo.latency.model import LatencyModel, fit_latency_model
from scalenet_zoo.latency.profile import Profile, Settings, load_profile
from scalenet_zoo.latency.yardstick import Visit, quiet_ms

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.search.ledger import LatencyRound
    from scalenet_zoo.search.method import Method


@dataclass
class LatencyMeter:
    """Measures networks of a space on a back end, and makes models that predict the latency of the others.

    If there are several processes, the first one measures.

    Attributes:
        method: the method that the networks belong to; its configuration has the back end and the settings.
        folder: the folder where the profile is kept.
        on_progress: called for every measurement.
        measured: latencies of networks in milliseconds, by their keys.
    """

    method: Method[Any]
    folder: Path
    on_progress: OnProgress = lambda what, done, total: None
    measured: dict[str, float] = field(default_factory=dict)

    @cached_property
    def profile_settings(self) -> Settings:
        """The settings that the profile is made for."""
        method, settings, limits = self.method, self.method.config.latency, self.method.config.limits
        return Settings(
            family=f"{method.space.name[:80]}-{method.space.hash[:12]}",
            backend=str(limits.backend),
            precision=settings.precision,
            threads=limits.threads or torch.get_num_threads(),
            batch=settings.batch,
            divisor=method.divisor,
        )

    @property
    def told(self) -> str:
        """The conditions that the latencies hold for: back end, threads, machine."""
        return self.profile_settings.conditions

    @cached_property
    def profile(self) -> Profile:
        """Layers and networks of the space, measured now or in an earlier session.

        Raises:
            BackendError: the back end cannot run here.
            InputError: an earlier session had another machine or other settings.
            OutputError: the file cannot be written.
        """
        return on_main_rank(self._measure_profile)

    def _measure_profile(self) -> Profile:
        path, settings, plan = self.folder / "profile.json", self.profile_settings, self.method.config.latency.profile
        if found := load_profile(path, settings, plan):
            return found
        items = draw_items(self.method.draw, plan)
        return measure_items(items, self.method.yardstick, settings, plan, path, self.on_progress)

    def model(self, rounds: Sequence[LatencyRound] = ()) -> LatencyModel:
        """Fit a latency model to the profile and to the measurements of rounds; equal inputs give equal models."""
        profile = self.profile
        for network in (network for each in rounds for network in each.networks):
            item, visit = network_item(self.method.spec(network.key)), Visit(network.measured, *[profile.yardstick] * 2)
            measured = item.measured(profile.settings.precision, [visit])
            profile = profile.with_measurement(len(profile.measurements), measured)
        return fit_latency_model(profile)

    def measure(self, keys: Sequence[str]) -> list[float]:
        """Measure networks on the undisturbed machine; networks that were measured before are not measured again.

        Returns:
            Milliseconds of each network.

        Raises:
            BackendError: the back end cannot run here, or cannot run one of the networks.
        """
        new = {key: self.method.spec(key) for key in keys if key not in self.measured}
        if new:
            known = self.profile.yardstick
            self.measured |= on_main_rank(partial(self._measure, new, known))
        return [self.measured[key] for key in keys]

    def _measure(self, specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        found, settings = {}, self.profile_settings
        with prepare_yardstick(self.method.yardstick, settings, known=known) as yardstick:
            for done, (key, spec) in enumerate(specs.items()):
                self.on_progress(f"measuring on {settings.backend}", done, len(specs))
                visits = visit_item(network_item(spec), settings, yardstick)
                found[key] = quiet_ms(visits, known)
        self.on_progress(f"measuring on {settings.backend}", len(specs), len(specs))
        return found
