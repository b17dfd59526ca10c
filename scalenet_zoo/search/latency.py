"""Latency in the loop of a search: predicted by a model, measured on the back end, the model fitted anew.

    space --items--> measurements --fit--> latency model --Bounds--> search --best base models--> exported, measured
                          ^                                                                              |
                          +-------------------------- one round of the Markov chain ---------------------+

The model is a function of the profile of the space, measured once, and of the rounds' figures, which the search's
state keeps: a resumed search gets the same models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.errors import BudgetError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.latency.budget import MOST_MEASURED
from scalenet_zoo.latency.model import LatencyModel, fit_latency_model
from scalenet_zoo.latency.profile import (
    Measurement,
    Profile,
    Settings,
    draw_items,
    load_profile,
    measure_items,
    network_item,
    prepare_yardstick,
    visit_item,
)
from scalenet_zoo.latency.yardstick import quiet_ms
from scalenet_zoo.search.scalenet.record import found_network, to_kernels
from scalenet_zoo.search.scalenet.state import LatencyRound, Measured
from scalenet_zoo.spaces.candidates import Candidate

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.search.scalenet.limits import Bounds
    from scalenet_zoo.search.scalenet.mcea import AfterRound
    from scalenet_zoo.search.scalenet.state import Kernels, SearchState
    from scalenet_zoo.search.settings import LatencySettings
    from scalenet_zoo.spaces.candidates import Scorer
    from scalenet_zoo.spaces.scalenet import Scaling, Space
    from scalenet_zoo.spaces.space_file import SpaceFile


@dataclass(kw_only=True)
class LatencyMeter(ABC):
    """Measures networks of a space on a back end, and predicts what it has not measured.

    Of several processes the first one measures.

    Attributes:
        classes: of the networks.
        backend: any that `benchmark` knows.
        threads: CPU threads; None: as many as torch has.
        settings: how.
        folder: that keeps the profile.
        on_progress: told of every measurement.
        measured: milliseconds of networks by their keys.
    """

    classes: int
    backend: str
    threads: int | None
    settings: LatencySettings
    folder: Path
    on_progress: OnProgress = lambda what, done, total: None
    measured: dict[str, float] = field(default_factory=dict)

    @property
    @abstractmethod
    def _about(self) -> tuple[SpaceFile, str, int]:
        """The space, its name, and what its channels are multiples of."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> ArchSpec:
        """Any network of the space."""

    @property
    @abstractmethod
    def _yardstick(self) -> ArchSpec:
        """A network that is always the same."""

    @cached_property
    def profile_settings(self) -> Settings:
        """What the profile is for."""
        space, name, divisor = self._about
        return Settings(
            family=f"{name[:80]}-{space.hash[:12]}",
            backend=self.backend,
            precision=self.settings.precision,
            threads=self.threads or torch.get_num_threads(),
            batch=self.settings.batch,
            divisor=divisor,
        )

    @property
    def told(self) -> str:
        """What the latencies are of: back end, threads, machine."""
        return self.profile_settings.conditions

    @cached_property
    def profile(self) -> Profile:
        """Layers and networks of the space, measured now or by an earlier sitting.

        Raises:
            BackendError: the back end cannot run here.
            InputError: an earlier sitting had another machine, or other settings.
            OutputError: the file cannot be written.
        """
        return on_main_rank(self._measure_profile)

    def _measure_profile(self) -> Profile:
        path, settings, plan = self.folder / "profile.json", self.profile_settings, self.settings.profile
        if found := load_profile(path, settings, plan):
            return found
        items = draw_items(self._draw, plan)
        return measure_items(items, self._yardstick, settings, plan, path, self.on_progress)

    def _fitted(self, networks: Iterable[tuple[ArchSpec, float]]) -> LatencyModel:
        """The latency model fitted to the profile and to networks with their milliseconds."""
        profile = self.profile
        for spec, ms in networks:
            item = network_item(spec)
            profile = profile.with_measurement(
                len(profile.measurements),
                Measurement(
                    role=item.role,
                    terms=tuple(item.terms),
                    macs=item.macs,
                    visits=((ms, profile.yardstick, profile.yardstick),),
                ),
            )
        return fit_latency_model(profile)

    def measure_specs(self, specs: Mapping[str, ArchSpec]) -> list[float]:
        """Milliseconds of each on the undisturbed machine; what was measured before is not measured again.

        Raises:
            BackendError: the back end cannot run here, or not this network.
        """
        new = {key: spec for key, spec in specs.items() if key not in self.measured}
        if new:
            known = self.profile.yardstick
            self.measured |= on_main_rank(partial(self._measure, new, known))
        return [self.measured[key] for key in specs]

    def _measure(self, specs: Mapping[str, ArchSpec], known: float) -> dict[str, float]:
        found, settings = {}, self.profile_settings
        with prepare_yardstick(self._yardstick, settings, known=known) as yardstick:
            for done, (key, spec) in enumerate(specs.items()):
                self.on_progress(f"measuring on {settings.backend}", done, len(specs))
                visits = visit_item(network_item(spec), settings, yardstick)
                found[key] = quiet_ms(visits, known)
        self.on_progress(f"measuring on {settings.backend}", len(specs), len(specs))
        return found


@dataclass(kw_only=True)
class LatencyLoop(LatencyMeter):
    """Latency in the loop of ScaleNet's search.

    Attributes:
        space: that the networks are of.
        budgets: the most milliseconds of each limited scaling stage.
        in_channels: of the image.
    """

    space: Space
    budgets: Mapping[int, float]
    in_channels: int = 3

    @property
    def _about(self) -> tuple[SpaceFile, str, int]:
        return self.space, self.space.name, self.space.divisor

    def _draw(self, rng: np.random.Generator) -> ArchSpec:
        """Any base model, under any strategy of any stage."""
        stages = self.space.scaling
        scalings = self.space.scalings(stages[rng.integers(len(stages))].stage)
        return self._spec(Candidate(self.space.sample(rng, 1)[0], scalings[rng.integers(len(scalings))]))

    @property
    def _yardstick(self) -> ArchSpec:
        """The base model of middle choices."""
        genome = np.array([[options // 2 for options in self.space.gene_options]])
        return self._spec(Candidate(self.space.decode(genome)[0], self.space.unscaled))

    def _spec(self, candidate: Candidate) -> ArchSpec:
        return self.space.spec(candidate.kernels, candidate.scaling, self.classes, in_channels=self.in_channels)

    def model(self, rounds: Sequence[LatencyRound] = ()) -> LatencyModel:
        """The latency model fitted to the profile and to what was measured after rounds; the same gives the same."""
        networks = (network for each in rounds for network in each.networks)
        return self._fitted((self._spec(self._candidate(n.kernels, n.scaling)), n.measured) for n in networks)

    def measure(self, candidates: Sequence[Candidate]) -> list[float]:
        """Milliseconds of each on the undisturbed machine; what was measured before is not measured again.

        Raises:
            BackendError: the back end cannot run here, or not this network.
        """
        self.measure_specs({each.key: self._spec(each) for each in candidates if each.key not in self.measured})
        return [self.measured[candidate.key] for candidate in candidates]

    def predict(self, model: LatencyModel, candidates: Sequence[Candidate]) -> list[float]:
        """Milliseconds of each as a model predicts them."""
        return [model.predict_spec(self._spec(candidate)) for candidate in candidates]

    def follow(self, bounds: Bounds) -> AfterRound:
        """What a search calls after each round: measures, and judges the limits by the model fitted anew."""

        def after_round(state: SearchState) -> tuple[LatencyRound, Bounds] | None:
            measured = self.after_round(state)
            if measured is None:
                return None
            before = (each for each in state.latency_rounds if each.round < measured.round)
            return measured, bounds.with_model(self.model((*before, measured)))

        return after_round

    def after_round(self, state: SearchState) -> LatencyRound | None:
        """Measure the best base models under the strategies of a round, as far as they are predicted to be feasible.

        Args:
            state: after the round. If its `latency_rounds` have this round, that is what was measured.

        Returns:
            Predicted and measured latencies; None: there are no base models yet.

        Raises:
            BackendError: as `measure`.
        """
        number = state.half_steps[-1].round
        self.remember(state.latency_rounds)
        for each in state.latency_rounds:
            if each.round == number:
                return each
        bases = _last_bases(state)
        if not bases:
            return None
        model = self.model(state.latency_rounds)
        scalings = {scaling.stage: scaling for scaling in (self.space.unscaled, *state.half_steps[-1].scalings)}
        chosen: list[Candidate] = []
        for stage, budget in self.budgets.items():
            candidates = [self._candidate(kernels, scalings[stage]) for kernels in bases]
            new = [candidate for candidate in candidates if candidate.key not in self.measured]
            misses = [predicted > budget for predicted in self.predict(model, new)]
            order = sorted(range(len(new)), key=misses.__getitem__)  # in either half the best remain first
            chosen += [new[i] for i in order[: self.settings.measured]]
        return self._round(number, model, chosen)

    def remember(self, rounds: Sequence[LatencyRound]) -> None:
        """Take figures for measured."""
        for network in (network for each in rounds for network in each.networks):
            self.measured[self._candidate(network.kernels, network.scaling).key] = network.measured

    def _round(self, number: int, model: LatencyModel, candidates: Sequence[Candidate]) -> LatencyRound:
        networks = zip(candidates, self.predict(model, candidates), self.measure(candidates), strict=True)
        return LatencyRound(
            round=number,
            networks=tuple(
                Measured(kernels=to_kernels(each.kernels), scaling=each.scaling, predicted=predicted, measured=measured)
                for each, predicted, measured in networks
            ),
        )

    def _candidate(self, kernels: Kernels, scaling: Scaling) -> Candidate:
        return Candidate(self.space.to_array(kernels), scaling)

    def measure_found(self, state: SearchState) -> SearchState:
        """The same with the latency of the networks that the search ended with, measured if it is not known yet."""
        found = [self._candidate(each.kernels, each.scaling) for each in state.found]
        known = zip(found, state.found, strict=True)
        self.measured |= {each.key: of.latency_ms for each, of in known if of.latency_ms is not None}
        pairs = zip(state.found, self.measure(found), strict=True)
        return state.model_copy(
            update={"found": tuple(each.model_copy(update={"latency_ms": ms}) for each, ms in pairs)}
        )

    def verify_found(self, state: SearchState, bounds: Bounds, scorer: Scorer) -> SearchState:
        """Measure the networks that a joint search ended with, and replace those that miss their budgets.

        In place of a strategy comes the next best of its stage, in place of a base model the next best; of these,
        what is predicted to miss is passed over, the more strictly the more was missed before. Done again, it
        measures nothing and changes nothing.

        Args:
            state: of the search, ended.
            bounds: its limits.
            scorer: scores replacements.

        Returns:
            The state with networks that meet the budgets by measurement, all measured; one more of its
            `latency_rounds` has what was measured here.

        Raises:
            BudgetError: of the best base models none meets the budgets.
            BackendError: as `measure`.
        """
        self.remember(state.latency_rounds)
        before = set(self.measured)
        model = self.model(state.latency_rounds)
        bounds = replace(bounds, limits=bounds.limits.model_copy(update={"latency": ()}))  # measured, not predicted
        targets = dict(self.budgets)
        tried: dict[str, Candidate] = {}
        missed = ""

        def meets(candidate: Candidate) -> bool:
            nonlocal missed
            stage = candidate.scaling.stage
            if not bounds.feasible(candidate.kernels[None], [candidate.scaling])[0]:
                return False
            if stage not in self.budgets:
                return True
            (predicted,) = self.predict(model, [candidate])
            if candidate.key not in self.measured and predicted > targets[stage]:
                return False
            tried[candidate.key] = candidate
            (ms,) = self.measure([candidate])
            if ms > (budget := self.budgets[stage]):
                targets[stage] = min(targets[stage], 0.99 * predicted, predicted * budget / ms)
                missed = f"found {format_ms(ms)} at stage {stage}, expected at most {format_ms(budget)}"
            return ms <= budget

        for kernels in list(dict.fromkeys((state.found[0].kernels, *_last_bases(state))))[:MOST_MEASURED]:
            chosen: list[Candidate] = []
            for options in [[self.space.unscaled], *_last_ranked(state)]:
                candidates = (self._candidate(kernels, scaling) for scaling in options)
                if (fitting := next(filter(meets, candidates), None)) is None:
                    break
                chosen.append(fitting)
            else:
                break
        else:
            raise BudgetError(
                f"latency: {missed}, and none of the best {MOST_MEASURED} base models met all when measured"
            )
        tried |= {candidate.key: candidate for candidate in chosen}
        new = self._round(
            state.half_steps[-1].round + 1, model, [each for key, each in tried.items() if key not in before]
        )
        found = tuple(
            found_network(bounds, each.kernels, each.scaling, score).model_copy(update={"latency_ms": ms})
            for each, score, ms in zip(chosen, scorer.score(chosen), self.measure(chosen), strict=True)
        )
        rounds = (*state.latency_rounds, new) if new.networks else state.latency_rounds
        return state.model_copy(update={"found": found, "latency_rounds": rounds})


def _last_bases(state: SearchState) -> list[Kernels]:
    """The best base models of the last round that evolved some, the best first."""
    bases = next((step.bases for step in reversed(state.half_steps) if step.kind == "bases"), ())
    return [base.kernels for base in bases]


def _last_ranked(state: SearchState) -> list[list[Scaling]]:
    """The strategies of each stage above 0: that of the network found, then the others, the best first."""
    ranked = next(step.ranked for step in reversed(state.half_steps) if step.kind == "strategies")
    found = [each.scaling for each in state.found if each.stage]
    return [
        list(dict.fromkeys((first, *(each.scaling for each in stage))))
        for first, stage in zip(found, ranked, strict=True)
    ]
