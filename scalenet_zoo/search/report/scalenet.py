"""The report of ScaleNet's search: the family, the half-steps of the Markov chain, strategies and the growth law."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from scalenet_zoo.arch.family import Strategy
from scalenet_zoo.arch.scaling import fit_growth_law
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import ScoredNetwork
from scalenet_zoo.search.report.drawing import draw_architectures
from scalenet_zoo.search.report.next_commands import NextCommand, family_command, network_commands
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREEN, MACS, ORANGE, RED, SKY, STEPS, Curve, Plot
from scalenet_zoo.search.report.sections import MethodReport, Parts, Picture, Table, cell, mean_alone, percent, scored
from scalenet_zoo.search.scalenet.ledger import HalfStep, ScaleNetLedger
from scalenet_zoo.search.standalone import TrainedAlone
from scalenet_zoo.spaces.candidates import candidate_key
from scalenet_zoo.spaces.scalenet import Scaling

RANKED = 3
"""Strategies per stage in the table of the last ranking."""
BACKWARD = 2
"""A backward pass costs as much as this many forward passes."""
HOLLOW = {"markerfacecolor": "white"}
"""The style of markers of extrapolated networks."""


class ScaleNetReport(MethodReport[ScaleNetLedger]):
    """The content of the page about a search for a base model and its scaling strategies."""

    looks: ClassVar = {
        "joint": ("joint search", {"color": BLUE, "marker": "o"}),
        "random": ("random joint search", {"color": ORANGE, "marker": "s"}),
        "compound": ("base alone, compound rule", {"color": RED, "marker": "D"}),
        "separate": ("each size separately", {"color": GREEN, "marker": "^"}),
    }
    reached = "stand-alone accuracy"
    searched = "Base model and scaling strategies were searched together"
    costs_caption = (
        "The searches. Images are counted once per forward pass; both coupled paths and the estimation of batch-norm"
        " statistics count. Draws are base models drawn within the limits; wasted ones were rejected."
    )

    @property
    def strategies(self) -> list[Strategy]:
        """The strategies of the family, from the smallest stage."""
        return sorted(self.run.family.strategies, key=lambda each: each.stage) if self.run.family else []

    @property
    def searched_to(self) -> float:
        """The last stage that was searched. Later stages are extrapolated."""
        return max(self.own.stages if self.own else [each.stage for each in self.strategies], default=0)

    def contents(self) -> list[tuple[str, str, Parts]]:
        """Return the method's own sections: id, title and parts."""
        return [
            ("family", "The family", self.family()),
            ("accuracy", "Accuracy against MACs", self.accuracy()),
            ("latency", "Accuracy against latency", self.latency()),
            ("progress", "Progress of the search", self.progress()),
            ("strategies", "Strategies and the growth law", self.growth()),
            ("architectures", "Architectures", self.architectures()),
        ]

    def outcome(self) -> list[str]:
        """Say which networks the search found and what they reach."""
        found = [strategy for strategy in self.strategies if strategy.stage <= self.searched_to]
        if not found:
            return []
        scores = self.scores_by_stage()
        said = [self._describe(strategy, scores.get(strategy.stage)) for strategy in (found[0], found[-1])]
        family = f"a family of {len(found)} networks, from {said[0]} to {said[1]}" if len(found) > 1 else said[0]
        return [f"The search found {family}.{self.best_alone}"]

    def use_commands(self) -> list[NextCommand]:
        """Return the commands for the largest network found, and for another budget."""
        found = [strategy for strategy in self.strategies if strategy.stage <= self.searched_to]
        if not found:
            return []
        largest = found[-1].name
        return [*network_commands(self.run, largest), *family_command(self.run, self._between(found))]

    def names_of(self, ledger: ScaleNetLedger) -> list[str]:
        """Name the networks that a search found by their scaling stages."""
        prefix = ledger.name if ledger.search == "joint" else f"{ledger.name}_{ledger.search}"
        return [f"{prefix}_s{stage}" for stage in (0, *ledger.stages)]

    def scores_by_stage(self) -> dict[float, ScoredNetwork]:
        """Return the networks that the joint search found, by scaling stage."""
        return dict(zip((0.0, *self.own.stages), self.own.found, strict=False)) if self.own else {}

    def _describe(self, strategy: Strategy, scored_network: ScoredNetwork | None) -> str:
        """Write a network's name with its cost and, if known, its score."""
        facts = [f"{format_count(self.run.specs[strategy.name].cost.macs)} MACs"]
        if scored_network and scored_network.score is not None:
            facts.append(f"{percent(scored_network.score)}% with the supernet's weights")
        if scored_network and scored_network.measured_ms is not None:
            facts.append(f"{scored_network.measured_ms:.3f} ms")
        return f"{strategy.name} ({', '.join(facts)})"

    def _between(self, found: Sequence[Strategy]) -> str:
        """Choose an example of a budget: between the two largest networks, with two digits."""
        macs = [self.run.specs[strategy.name].cost.macs for strategy in found[-2:]]
        return format_count(float(f"{math.sqrt(macs[0] * macs[-1]):.2g}"))

    def family(self) -> Parts:
        """The table of the family's networks."""
        if not self.strategies:
            return
        scored_at = self.scores_by_stage()
        trained_at: dict[float, TrainedAlone] = {t.first.stage: t for t in reversed(self.found_alone)}
        rows, base_macs = [], 0
        for strategy in self.strategies:
            cost = self.run.specs[strategy.name].cost
            found, alone = scored_at.get(strategy.stage), trained_at.get(strategy.stage)
            base_macs = cost.macs if strategy.stage == 0 else base_macs
            share = cost.macs / (base_macs * 2**strategy.stage) if base_macs else None
            timed = alone.first.latency_ms if alone else None
            rows.append(
                {
                    "network": strategy.name,
                    "stage": f"{strategy.stage:g}",
                    "origin": "found" if strategy.stage <= self.searched_to else "extrapolated",
                    **_multipliers(strategy),
                    "MACs": format_count(cost.macs),
                    "MACs / (2^s base)": cell(share, ".3f"),
                    "parameters": format_count(cost.params),
                    "supernet score (%)": percent(found.score if found else None),
                    "stand-alone accuracy (%)": mean_alone(alone),
                    "latency (ms)": cell(found.measured_ms if found and found.measured_ms else timed, ".3f"),
                }
            )
        yield Table.of(
            "The networks of the family. The supernet score is the accuracy with shared weights. Stand-alone accuracy"
            " is given as mean over seeds, standard deviation, and number of seeds.",
            rows,
            "lrlrrrrrrrrr",
        )

    def accuracy(self) -> Parts:
        """Scores, and the accuracy of networks trained alone, against MACs."""
        evolved = self.evolved()
        before = []
        if self.own and len(evolved):
            front = _front(np.concatenate([evolved, scored(self.own.found, MACS)[0]]))
            before.append(Curve("base models kept last", evolved, DOTS))
            before.append(Curve("front of joint search", front, {"color": SKY}))
        yield from self.draw_found("accuracy_supernet", MACS, before)
        yield from self.draw_trained("accuracy_standalone", MACS)
        if trained := [network for network in self.run.trained if network.first.group in self.groups]:
            yield self.trained_table(trained)

    def latency(self) -> Parts:
        """Scores, and the accuracy of networks trained alone, against latency."""
        yield from self.draw_found("latency_supernet", "latency (ms)")
        yield from self.draw_trained("latency_standalone", "latency (ms)")

    def evolved(self) -> np.ndarray:
        """MACs and scores in percent, (n, 2), of the base models that were kept last, each scaled to every stage."""
        step = self.own.last_step("bases") if self.own and self.own.ended else None
        if not (self.own and step):
            return np.empty((0, 2))
        networks = {network.key: network for network in self.own.networks}
        keys = [
            candidate_key(base.kernels, scaling.depth, scaling.width, scaling.resolution)
            for base in step.bases
            for scaling in step.scalings
        ]
        return scored([networks[key] for key in keys if key in networks], MACS)[0]

    def progress(self) -> Parts:
        """The fitness of each generation, and the half-steps."""
        if not self.own or not self.own.half_steps:
            return
        if any(step.generations for step in self.own.half_steps):
            yield (
                "Between dotted lines, base models evolve under fixed strategies. At a dotted line, the strategies of"
                " every stage are ranked again, so the fitness after it belongs to other networks. Ranking also scores"
                " networks; they are not counted here. Searches for the base alone or for one size have a different"
                " fitness and are not drawn."
            )
            random = self.ledgers.get("random")
            plot = _plot_progress(self.own.half_steps, random.half_steps if random else ())
            yield Picture(
                "progress", plot, "Best and mean fitness of each generation by the number of networks scored."
            )
        rows = []
        for step in self.own.half_steps:
            last = step.generations[-1] if step.generations else None
            scalings = (f"{s.stage}: {', '.join(_multipliers(s).values())}" for s in step.scalings if s.stage)
            rows.append(
                {
                    "round": str(step.round),
                    "what changed": step.kind,
                    "strategies": "; ".join(scalings),
                    "generations": str(len(step.generations) or "-"),
                    "best fitness (%)": percent(last.best if last else None),
                    "mean fitness (%)": percent(last.mean if last else None),
                }
            )
        caption = "Half-steps of the Markov chain, and the strategies (stage: depth, width, resolution) after each."
        yield Table.of(caption, rows, "rllrrr")

    def growth(self) -> Parts:
        """The growth of the strategies, and their last ranking."""
        fitted = [strategy for strategy in self.strategies if 0 < strategy.stage <= self.searched_to]
        if self.run.family and fitted:
            resolution = self.run.family.base.resolution
            law = fit_growth_law(fitted, resolution)
            yield (
                "The growth law is fitted by least squares in log space, through the base model, so that depth times"
                " the squares of width and resolution doubles with every stage. Per stage, depth grows by"
                f" {math.exp(law.depth) - 1:.1%}, width by {math.exp(law.width) - 1:.1%} and resolution by"
                f" {math.exp(law.resolution) - 1:.1%}."
            )
            stages = np.array([strategy.stage for strategy in self.strategies])
            names = np.array([strategy.name for strategy in self.strategies])
            found, fine = stages <= self.searched_to, np.linspace(0, max(stages.max(), self.searched_to))
            curves = []
            for name, values, rate, colour, marker in (
                ("depth", [s.depth for s in self.strategies], law.depth, BLUE, "o"),
                ("width", [s.width for s in self.strategies], law.width, RED, "s"),
                ("resolution", [s.resolution / resolution for s in self.strategies], law.resolution, GREEN, "^"),
            ):
                style = {"color": colour, "marker": marker, "linestyle": "none"}
                points, line = np.stack([stages, values], axis=1), np.stack([fine, np.exp(rate * fine)], axis=1)
                curves += [
                    Curve(f"{name} = exp({rate:.4f} s)", line, {"color": colour, "alpha": 0.7}),
                    Curve("", points[found], style, names[found].tolist()),
                    Curve("", points[~found], {**style, **HOLLOW}, names[~found].tolist()),
                ]
            style = {"color": "#555555", "marker": "o", "linestyle": "none"}
            curves.append(Curve("found", np.empty((0, 2)), style))
            if not found.all():
                curves.append(Curve("extrapolated", np.empty((0, 2)), {**style, **HOLLOW}))
            plot = Plot(
                title="Strategies and the growth law",
                x="scaling stage s",
                y="multiplier of the base model",
                curves=curves,
                scale="whole",
            )
            yield Picture("strategies", plot, "Depth, width and resolution by scaling stage, with fitted exponentials.")
        if ranking := self.own and self.own.last_step("strategies"):
            yield Table.of(
                f"The best strategies of each stage in the last ranking (round {ranking.round}), by mean score.",
                [
                    {
                        "stage": str(each.scaling.stage),
                        "place": f"{place} of {len(of_stage)}",
                        **_multipliers(each.scaling),
                        "mean MACs": format_count(each.macs),
                        "mean score (%)": percent(each.score),
                    }
                    for of_stage in ranking.ranked
                    for place, each in enumerate(of_stage[:RANKED], start=1)
                ],
                "rrrrrrr",
            )

    def architectures(self) -> Parts:
        """The layers of the family's networks, as a drawing and as a table."""
        specs = [spec for spec in self.run.specs.values() if spec.network.type == "mbconv"]
        if not specs:
            return
        about = "The layers of each network by stage: height shows channels, colour the kernel. The table has the same."
        yield Picture("architectures", draw_architectures(specs), about, wide=True)
        rows = []
        for spec in specs:
            if spec.network.type != "mbconv":
                continue
            stages = {
                f"stages.{s}": f"{stage[0].channels}: {' '.join(str(layer.kernel) for layer in stage)}"
                for s, stage in enumerate(spec.network.stages)
            }
            rows.append({"network": spec.name, "input (px)": str(spec.input.height), **stages})
        yield Table.of(
            "Channels of each stage, and the kernel size of each of its layers.", rows, "lr" + "l" * (len(rows[0]) - 2)
        )

    def more_costs(self, ledger: ScaleNetLedger) -> dict[str, str]:
        """Return the number of base models drawn."""
        share = f" ({ledger.wasted / ledger.drawn:.1%})" if ledger.drawn else ""
        return {"draws": f"{ledger.drawn:,}", "wasted": f"{ledger.wasted:,}{share}"}

    def costs(self) -> Parts:
        """The cost of each search, and joint search compared with separate searches."""
        yield from super().costs()
        separate, summary = self.ledgers.get("separate"), self.run.summary
        if not (self.own and self.own.ended and separate and separate.ended and summary and summary.images):
            return
        sizes, totals, rows = len(separate.chosen), [], []
        for search, ledger, supernets in (("joint", self.own, 1), ("separate", separate, sizes)):
            images = supernets * summary.images
            totals.append((1 + BACKWARD) * images + ledger.images)
            rows.append(
                {
                    "": self.looks[search][0],
                    "supernets": f"{supernets:,}",
                    "images, forward and backward": f"{images:,}",
                    "images, forward only": f"{ledger.images:,}",
                    "total in forward passes": f"{totals[-1]:,}",
                }
            )
        yield (
            f"Separate searches for {sizes} sizes need {sizes} supernets; here each counts as trained with as many"
            f" images as the joint one. If a backward pass counts as {BACKWARD} forward passes, separate searches cost"
            f" {totals[1] / totals[0]:.2f} times the joint search. The paper claims a factor of 2.53 or more."
        )
        yield Table.of("Joint search compared with separate searches.", rows)


def _plot_progress(half_steps: Sequence[HalfStep], random: Sequence[HalfStep]) -> Plot:
    """Plot the fitness of every generation against the networks scored, with the half-steps of the chain."""
    curves, ranked, done = [], [], 0
    for step in half_steps:
        if step.kind == "strategies":
            ranked.append(done)
        elif step.generations:
            x = done + np.cumsum([generation.scored for generation in step.generations])
            style = {"color": BLUE, "marker": "." if len(x) < 50 else ""}
            for name, values, line in (
                ("joint: best", [generation.best for generation in step.generations], "-"),
                ("joint: mean", [generation.mean for generation in step.generations], "--"),
            ):
                curves.append(Curve("" if done else name, _fitness(x, values), {**style, "linestyle": line}))
            done = int(x[-1])
    if generations := [generation for step in random for generation in step.generations]:
        x = np.cumsum([generation.scored for generation in generations])
        best = np.maximum.accumulate([generation.best for generation in generations])
        curves.append(Curve("random: best so far", _fitness(x, best), {"color": ORANGE, **STEPS}))
    return Plot(
        title="Fitness of base models",
        x="networks scored by evolution",
        y="weighted accuracy (%)",
        curves=curves,
        scale="whole",
        dotted=("strategies ranked", ranked),
    )


def _fitness(scored: np.ndarray, fitness: Sequence[float] | np.ndarray) -> np.ndarray:
    """Make points in percent. A fitness of 0, where no network of a generation keeps the limits, is left out."""
    return np.stack([scored, 100 * np.where(np.asarray(fitness) > 0, fitness, np.nan)], axis=1)


def _front(points: np.ndarray) -> np.ndarray:
    """Return the points (cost, score), (n, 2), that no other point beats in both, from the cheapest."""
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], points[:-1, 1]]))
    return points[points[:, 1] > best_before]


def _multipliers(strategy: Strategy | Scaling) -> dict[str, str]:
    return {
        "depth": f"{strategy.depth:.3f}",
        "width": f"{strategy.width:.3f}",
        "resolution (px)": str(strategy.resolution),
    }
