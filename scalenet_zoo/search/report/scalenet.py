"""The report of ScaleNet's search: the family, the Markov chain's half-steps, strategies and the growth law."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from scalenet_zoo.arch.family import Strategy
from scalenet_zoo.arch.scaling import fit_growth_law
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import ScoredNetwork
from scalenet_zoo.search.report.drawing import draw_architectures
from scalenet_zoo.search.report.plots import BLUE, DOTS, GREEN, ORANGE, RED, SKY, STEPS, Curve, draw_curves
from scalenet_zoo.search.report.sections import MethodReport, Parts, Picture, Table, cell, mean_alone, percent, scored
from scalenet_zoo.search.scalenet.ledger import HalfStep, ScaleNetLedger
from scalenet_zoo.search.standalone import TrainedAlone
from scalenet_zoo.spaces.candidates import candidate_key
from scalenet_zoo.spaces.scalenet import Scaling

RANKED = 3
"""Strategies of a stage in the table of the last ranking."""
BACKWARD = 2
"""Forward passes that a backward pass costs."""
HOLLOW = {"markerfacecolor": "white"}
"""Marks of what is extrapolated."""


class ScaleNetReport(MethodReport[ScaleNetLedger]):
    """What the page says of a search of base model and scaling strategies."""

    looks: ClassVar = {
        "joint": ("joint search", {"color": BLUE, "marker": "o"}),
        "random": ("random joint search", {"color": ORANGE, "marker": "s"}),
        "compound": ("base alone, compound rule", {"color": RED, "marker": "D"}),
        "separate": ("each size separately", {"color": GREEN, "marker": "^"}),
    }
    reached = "stand-alone accuracy"
    searched = "Base model and scaling strategies were searched together"
    costs_caption = (
        "Searches. Images are counted once a forward pass: both coupled paths and the estimation of batch-norm"
        " statistics count. Draws are of base models under the limits; those wasted were thrown away."
    )

    @property
    def strategies(self) -> list[Strategy]:
        """The family's, from the smallest stage."""
        return sorted(self.run.family.strategies, key=lambda each: each.stage) if self.run.family else []

    @property
    def searched_to(self) -> float:
        """The last stage that was searched; later ones are extrapolated."""
        return max(self.own.stages if self.own else [each.stage for each in self.strategies], default=0)

    def contents(self) -> list[tuple[str, str, Parts]]:
        """The method's own sections: id, title and parts."""
        return [
            ("family", "The family", self.family()),
            ("accuracy", "Accuracy against MACs", self.accuracy()),
            ("latency", "Accuracy against latency", self.latency()),
            ("progress", "The search's progress", self.progress()),
            ("strategies", "Strategies and the growth law", self.growth()),
            ("architectures", "Architectures", self.architectures()),
        ]

    def family(self) -> Parts:
        """The networks of the family."""
        if not self.strategies:
            yield "There is no family yet."
            return
        scored_at: dict[float, ScoredNetwork] = {}
        if self.own:
            scored_at |= zip((0, *self.own.stages), self.own.found, strict=False)
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
            "The networks of the family. The supernet's score is the accuracy with shared weights; stand-alone accuracy"
            " is the mean over seeds, with their standard deviation and their number.",
            rows,
            "lrlrrrrrrrrr",
        )

    def accuracy(self) -> Parts:
        """Scores, and what networks trained alone reach, against MACs."""
        evolved = self.evolved()
        before = []
        if self.own and len(evolved):
            front = _front(np.concatenate([evolved, scored(self.own.found, "MACs")]))
            before.append(Curve("base models kept last", evolved, DOTS))
            before.append(Curve("front of joint search", front, {"color": SKY}))
        yield from (pictures := [*self.draw_found("accuracy_supernet", "MACs", before)])
        if not pictures:
            yield "No search has ended yet: there are no scores to compare."
        yield from self.draw_trained("accuracy_standalone", "MACs")
        if trained := [network for network in self.run.trained if network.first.group in self.groups]:
            yield self.trained_table(trained)
        else:
            yield "No found network has been trained alone yet."

    def latency(self) -> Parts:
        """The same against latency."""
        over = "latency (ms)"
        pictures = [*self.draw_found("latency_supernet", over), *self.draw_trained("latency_standalone", over)]
        yield from pictures
        if not pictures:
            yield "No latency was measured of the networks found."

    def evolved(self) -> np.ndarray:
        """MACs and scores in percent, (n, 2), of the base models that were kept last, scaled to each stage."""
        step = self.own.last_step("bases") if self.own and self.own.ended else None
        if not (self.own and step):
            return np.empty((0, 2))
        networks = {network.key: network for network in self.own.networks}
        keys = [
            candidate_key(base.kernels, scaling.depth, scaling.width, scaling.resolution)
            for base in step.bases
            for scaling in step.scalings
        ]
        return scored([networks[key] for key in keys if key in networks], "MACs")

    def progress(self) -> Parts:
        """The fitness of generations, and the half-steps."""
        if not self.own or not self.own.half_steps:
            yield "The joint search has not begun."
            return
        if any(step.generations for step in self.own.half_steps):
            yield (
                "Between dotted lines base models are evolved under fixed strategies; at a dotted line the strategies"
                " of every stage are ranked anew, so that fitness after it is that of other networks. Ranking scores"
                " networks, too, which are not counted here. Searches for the base alone or for one size have another"
                " fitness and are not drawn."
            )
            random = self.ledgers.get("random")
            plot = _plot_progress(self.own.half_steps, random.half_steps if random else ())
            alt = "Plot of the best and the mean fitness of each generation over the networks scored."
            yield Picture("progress", plot, alt)
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
        caption = "Half-steps of the Markov chain, with the strategies (stage: depth, width, resolution) after each."
        yield Table.of(caption, rows, "rllrrr")

    def growth(self) -> Parts:
        """How strategies grow, and how they were ranked last."""
        fitted = [strategy for strategy in self.strategies if 0 < strategy.stage <= self.searched_to]
        if not (self.run.family and fitted):
            yield "The growth law is drawn once there is a family of several sizes."
        else:
            resolution = self.run.family.base.resolution
            law = fit_growth_law(fitted, resolution)
            yield (
                "Least squares in log space through the base model, so that depth times the squares of width and"
                f" resolution doubles with every stage: depth grows by {math.exp(law.depth) - 1:.1%} a stage, width by"
                f" {math.exp(law.width) - 1:.1%}, resolution by {math.exp(law.resolution) - 1:.1%}."
            )
            stages = np.array([strategy.stage for strategy in self.strategies])
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
                    Curve("", points[found], style),
                    Curve("", points[~found], {**style, **HOLLOW}),
                ]
            style = {"color": "#555555", "marker": "o", "linestyle": "none"}
            curves.append(Curve("found", np.empty((0, 2)), style))
            if not found.all():
                curves.append(Curve("extrapolated", np.empty((0, 2)), {**style, **HOLLOW}))
            axes = "scaling stage s", "multiplier of the base model"
            plot = draw_curves("Strategies and the growth law", *axes, curves, counts=True)
            alt = "Plot of depth, width and resolution over scaling stages, with the fitted exponentials."
            yield Picture("strategies", plot, alt)
        if ranking := self.own and self.own.last_step("strategies"):
            yield Table.of(
                f"The best strategies of each stage when they were ranked last (round {ranking.round}), by mean score.",
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
        """The family's layers."""
        if specs := [spec for spec in self.run.specs.values() if spec.network.type == "mbconv"]:
            alt = "Drawing of each network's layers, in stages; height shows channels, colour the kernel."
            yield Picture("architectures", draw_architectures(specs), alt, wide=True)
        else:
            yield "There is no family yet, so nothing to draw."

    def more_costs(self, ledger: ScaleNetLedger) -> dict[str, str]:
        """Base models drawn."""
        share = f" ({ledger.wasted / ledger.drawn:.1%})" if ledger.drawn else ""
        return {"draws": f"{ledger.drawn:,}", "wasted": f"{ledger.wasted:,}{share}"}

    def costs(self) -> Parts:
        """Joint search, too, against separate ones."""
        yield from super().costs()
        separate, summary = self.ledgers.get("separate"), self.run.summary
        if not self.ledgers:
            return
        if not (self.own and self.own.ended and separate and separate.ended and summary and summary.images):
            yield (
                "Joint search is not compared with separate ones: that needs both to have ended and the supernet's"
                " summary."
            )
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
            f"Searching {sizes} sizes separately takes a supernet for each, counted here as trained with as many images"
            f" as the joint one. In forward passes, a backward pass counted as {BACKWARD}, it costs"
            f" {totals[1] / totals[0]:.2f} times the joint search; the paper claims 2.53 times or more."
        )
        yield Table.of("Joint search against separate ones.", rows)


def _plot_progress(half_steps: Sequence[HalfStep], random: Sequence[HalfStep]) -> Figure:
    """Fitness of every generation over the networks scored, with the half-steps of the chain."""
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
    axes = "networks scored in evolving them", "weighted accuracy (%)"
    return draw_curves("Fitness of base models", *axes, curves, counts=True, dotted=("strategies ranked", ranked))


def _fitness(scored: np.ndarray, fitness: Sequence[float] | np.ndarray) -> np.ndarray:
    """Points in percent; nothing where no network of a generation keeps the limits, which counts as 0."""
    return np.stack([scored, 100 * np.where(np.asarray(fitness) > 0, fitness, np.nan)], axis=1)


def _front(points: np.ndarray) -> np.ndarray:
    """Those of (cost, score), (n, 2), that no other beats at both, from the cheapest."""
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], points[:-1, 1]]))
    return points[points[:, 1] > best_before]


def _multipliers(strategy: Strategy | Scaling) -> dict[str, str]:
    return {
        "depth": f"{strategy.depth:.3f}",
        "width": f"{strategy.width:.3f}",
        "resolution (px)": str(strategy.resolution),
    }
