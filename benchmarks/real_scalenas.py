"""The search of topologies on real data, and the paper's claims about it, checked at a scale that a CPU can run.

python -m benchmarks.real_scalenas CONFIG --data FOLDER --run RUN: a few hours on 2 cores; a stopped run is resumed.
CONFIG is real_camvid.yaml or real_leeds.yaml; FOLDER is camvid-11 or lspet-coco, unpacked.

    RUN/data                          links: train, val for the search, test for judgement (for pose, halves of val)
    RUN/teacher                       the largest network, trained alone
    RUN/grouped, uniform, sandwich    `Run`s that differ in the sampler; the search itself uses the grouped one
    RUN/samplers.json                 random networks scored in all three supernets                               (b)
    RUN/searches                      more searches, with other seeds                                             (c)
    RUN/standalone                    networks trained alone; RUN/grouped/standalone.json has their results       (a, d)
    RUN/longer, longer.json           some of them trained as long as teacher and supernet together               (a)
    RUN/inherited.json                the same networks with the supernet's weights, judged on the same images    (a)
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import yaml
from pydantic import JsonValue

from benchmarks.alone import Data, Training, train_missing
from benchmarks.interleave import RESULTS, record
from benchmarks.real_training import SIGMAS
from benchmarks.run_folder import Told, keep, write
from benchmarks.significance import paired, rank_correlation
from scalenet_zoo import ArchSpec, create_model, load_spec
from scalenet_zoo.arch.spec import Module, MultipathNetwork
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml, replacing_folder
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.search.driver import Run, RunOptions
from scalenet_zoo.search.extract import Extractor
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.report.page import write_report
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenas.limits import TopologyBounds
from scalenet_zoo.search.scalenas.method import ScaleNASMethod
from scalenet_zoo.search.scalenas.search import SEARCHES, TopologySearch
from scalenet_zoo.search.scalenas.topology import ScoredTopologies
from scalenet_zoo.search.scoring import Scorer
from scalenet_zoo.search.standalone import Standalone
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.supernet.summary import SupernetSummary
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network

SamplerName = Literal["grouped", "uniform", "sandwich"]
SAMPLERS: tuple[SamplerName, ...] = ("grouped", "uniform", "sandwich")


class Alone(Strict):
    """Which networks are trained alone, and how.

    Attributes:
        found: number of networks from the Pareto front, as far apart in MACs as possible.
        drawn: number of random networks, to compare rankings.
        hrnet_widths: widths of the HRNets; an HRNet of the space's width has a score.
        seeds: seeds for the networks found and the HRNets; random networks use only the first.
        recipe: values that differ from the defaults of `Recipe`.
        longer_epochs: length of a second training, with the first seed, of the networks found and the HRNets that have
            a score; as long as the trainings of the teacher and the supernet together.
    """

    found: int
    drawn: int
    hrnet_widths: tuple[int, ...]
    seeds: tuple[int, ...]
    recipe: dict[str, JsonValue]
    longer_epochs: int


class Plan(Strict):
    """The configuration.

    Attributes:
        search: configuration of the grouped run.
        sandwich_epochs: epochs with the sandwich rule, which trains four networks per step; chosen so that it costs as
            much as the other samplers.
        networks: number of networks drawn to compare samplers.
        seeds: seeds of the searches that are compared; the first is that of the search itself.
        alone: networks that are trained alone.
    """

    search: ScaleNASConfig
    sandwich_epochs: int
    networks: int
    seeds: tuple[int, ...]
    alone: Alone

    @classmethod
    def load(cls, path: Path) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))


@dataclass(frozen=True)
class RealScaleNAS:
    """The whole run; every part does the work that is missing."""

    plan: Plan
    images: Path
    folder: Path
    jobs: int
    tell: Callable[[str, int, int], None]

    # --- what the parts work on ----------------------------------------------------------------------

    def config(self, sampler: SamplerName) -> ScaleNASConfig:
        config = self.plan.search
        recipe = dict(config.supernet.recipe)
        if sampler == "sandwich":
            recipe["epochs"] = self.plan.sandwich_epochs
        teacher = config.supernet.teacher.model_copy(update={"weights": str(self.folder / "teacher" / "best")})
        supernet = config.supernet.model_copy(update={"sampler": sampler, "recipe": recipe, "teacher": teacher})
        joints = str(self.folder / "data" / "joints.yaml") if self.is_pose else None
        data = f"{'coco' if self.is_pose else 'masks'}:{self.folder / 'data'}"
        return config.model_copy(update={"data": data, "joints": joints, "supernet": supernet})

    def run(self, sampler: SamplerName) -> Run:
        options = RunOptions(workers=0, save_every=200, cpu=True, on_progress=self.tell)
        return Run(ScaleNASMethod, self.config(sampler), self.folder / sampler, options)

    @cached_property
    def grouped(self) -> Run:
        return self.run("grouped")

    @property
    def is_pose(self) -> bool:
        return self.plan.search.open_space().head == "pose"

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `open_data`."""
        if self.is_pose:
            return {"joints": self.folder / "data" / "joints.yaml"}
        return {"ignore_index": self.plan.search.ignore_index}

    @cached_property
    def space(self) -> MultipathSpace:
        return self.plan.search.open_space()

    def state(self, method: str, seed: int) -> Ledger:
        first = seed == self.plan.seeds[0]
        path = self.folder / ("grouped/search" if first else "searches") / f"{method}{'' if first else seed}.json"
        return Ledger.load(path)

    # --- the parts -----------------------------------------------------------------------------------

    def data(self) -> None:
        """Link the images; for pose, every other image of val is for the search, and the rest is for judgement."""
        if (self.folder / "data").exists():
            return
        with replacing_folder(self.folder / "data") as new:
            for path in self.images.resolve().iterdir():
                if path.name not in ("annotations", "images") or not self.is_pose:
                    (new / path.name).symlink_to(path)
            if not self.is_pose:
                return
            (new / "images").mkdir()
            (new / "annotations").mkdir()
            (new / "joints.yaml").write_text(yaml.safe_dump({"sigmas": SIGMAS}))
            for split, source, take in (("train", "train", (0, 1)), ("val", "val", (0, 2)), ("test", "val", (1, 2))):
                (new / "images" / split).symlink_to(self.images.resolve() / "images" / source)
                document = json.loads((self.images / f"annotations/person_keypoints_{source}.json").read_text())
                document["images"] = document["images"][take[0] :: take[1]]
                kept = {image["id"] for image in document["images"]}
                document["annotations"] = [each for each in document["annotations"] if each["image_id"] in kept]
                (new / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(document))

    def teacher(self) -> None:
        """Train the largest network, with the recipe of the supernets."""
        config = self.plan.search
        space, recipe = config.open_space(), config.supernet.make_recipe(config.open_space().head)
        source = f"{'coco' if self.is_pose else 'masks'}:{self.folder / 'data'}"
        training, validation = (open_data(source, space.head, split, **self.reading) for split in ("train", "val"))
        torch.manual_seed(recipe.seed)
        largest = create_model(space.spec(space.largest, len(training.labels.names), "largest"))
        options = Options(workers=0, val_interval=recipe.epochs, cpu=True)
        train_network(
            largest,
            recipe.replace({"distill_weight": Recipe().distill_weight}, "teacher"),
            training,
            validation,
            self.folder / "teacher",
            options,
            resume=True,
            on_step=self.tell,
        )

    def supernets(self) -> None:
        """Train three supernets at equal cost, several at a time."""
        with ProcessPoolExecutor(self.jobs, get_context("spawn")) as pool:
            list(pool.map(train_supernet_of, [self] * len(SAMPLERS), SAMPLERS))

    def samplers(self) -> None:
        """(b): score the same random networks in all supernets."""
        path = self.folder / "samplers.json"
        if path.exists():
            return
        space = self.space
        drawn = space.sample(np.random.default_rng(0), self.plan.networks)
        keys = space.keys(drawn)
        scores = {sampler: self.scorer(self.run(sampler)).score(keys) for sampler in SAMPLERS}
        macs = space.cost(drawn, self.grouped.method.classes).macs.tolist()
        write(path, {"keys": keys, "macs": macs, "scores": scores})

    def search(self) -> None:
        """(c): run the search and its baselines, with several seeds."""
        run, settings = self.grouped, self.plan.search.search
        run.search()
        scorer, bounds = self.scorer(run), TopologyBounds(self.space, run.method.classes, self.plan.search.limits)
        for seed in self.plan.seeds[1:]:
            for method in SEARCHES:
                changed = settings.model_copy(update={"seed": seed})
                first = self.state(method, self.plan.seeds[0])
                asked = {**first.settings, "search": changed.model_dump(mode="json")}
                begun = Ledger(**{**first.asked, "settings": asked})
                record = Record(self.folder / "searches" / f"{method}{seed}.json", begun, scorer, bounds)
                record.run(TopologySearch(method, record, changed).run)

    def alone(self) -> None:
        """(a), (d): train networks of the front, HRNets and random networks alone."""
        path, data = self.folder / "grouped" / "standalone.json", self.judgement
        train_missing(self.trainings(), path, self.folder / "standalone", data, self.plan.alone.recipe, self.jobs)

    def longer(self) -> None:
        """(a): train networks alone for as long as teacher and supernet were trained together."""
        plan = self.plan.alone
        trainings = [
            training
            for training in self.trainings()
            if training.group != "rank" and training.score is not None and training.seed == plan.seeds[0]
        ]
        recipe = {**plan.recipe, "epochs": plan.longer_epochs}
        train_missing(trainings, self.folder / "longer.json", self.folder / "longer", self.judgement, recipe, self.jobs)

    def inherited(self) -> None:
        """(a): judge networks of the space with the supernet's weights, on the same images as those trained alone."""
        path = self.folder / "inherited.json"
        if path.exists():
            return
        data = self.judgement
        test = open_data(data.source, data.task, "test", **data.reading)
        reached = {}
        for training in self.trainings():
            if training.score is None or training.name in reached:
                continue
            with TemporaryDirectory() as folder:
                Extractor(self.grouped).write(training.spec, Path(folder) / "network")
                figures = evaluate_network(create_model(Path(folder) / "network"), test).metrics
            reached[training.name] = next(v for name, v in figures.items() if name.startswith(str(data.metric)))
            self.tell("judging", len(reached), 0)
        write(path, reached)

    def record(self) -> None:
        """Write the report and the summary, and keep the files of the run worth keeping."""
        name = f"real_{self.plan.search.name}"
        write_report(self.folder / "grouped")
        patterns = [
            "*.json",
            "*/*.yaml",
            "*/*.json",
            "*/supernet/log.jsonl",
            "*/supernet/summary.json",
            "grouped/search/*.json",
            "grouped/report/*.html",
        ]
        with replacing_folder(RESULTS / name) as kept:
            for file in (file for pattern in patterns for file in self.folder.glob(pattern)):
                relative = file.relative_to(self.folder)
                if relative.parts[0] not in ("data", "standalone", "longer", "searches"):
                    keep(file, kept / relative, {str(self.folder): "RUN", str(self.images): "FOLDER"})
        record(name, self.summary())

    # --- how they do it ------------------------------------------------------------------------------

    @property
    def judgement(self) -> Data:
        config = self.grouped.config
        return Data(config.data, self.space.head, self.reading, self.grouped.method.metric)

    def scorer(self, run: Run) -> Scorer:
        """The scorer of the run's searches, which share their scores."""
        return run.make_scorer(run.train())

    def trainings(self) -> list[Training]:
        """List the trainings of networks alone."""
        plan, run, state = self.plan.alone, self.grouped, self.state("evolution", self.plan.seeds[0])
        space, classes, trainings = self.space, run.method.classes, []
        for place in np.unique(np.linspace(0, len(state.found) - 1, plan.found).round().astype(int)):
            name = f"{state.name}_{place}"
            spec = ArchSpec.load(run.folder / "specs" / f"{name}.json")
            trainings += [Training("found", name, 0, seed, spec, state.found[place].score) for seed in plan.seeds]
        hrnet = load_spec("hrnet_w18_pose" if self.is_pose else "hrnet_w18")
        modules = hrnet_modules(hrnet, space.modules)
        for width in plan.hrnet_widths:
            name = f"hrnet_w{width}"
            network = MultipathNetwork(width=width, head=space.head, modules=modules)
            spec = ArchSpec.create(name, space.head, space.input, classes, network, hrnet.provenance)
            score = None
            if width == space.width:
                topology = space.from_modules(modules)
                (score,) = self.scorer(run).score(space.keys(topology[None]))
            trainings += [Training("known", name, 0, seed, spec, score) for seed in plan.seeds]
        drawn = json.loads((self.folder / "samplers.json").read_text())
        scores = drawn["scores"]["grouped"]
        order = sorted(range(len(scores)), key=scores.__getitem__)
        for number, place in enumerate(np.linspace(0, len(order) - 1, plan.drawn).round().astype(int).tolist()):
            topology = space.from_keys([drawn["keys"][order[place]]])[0]
            spec = space.spec(topology, classes, f"{state.name}_rank_{number}")
            trainings.append(Training("rank", spec.name, 0, plan.seeds[0], spec, scores[order[place]]))
        return trainings

    def summary(self) -> dict[str, object]:
        """Compute the figures of (a) to (d)."""
        rows = Standalone.load(self.folder / "grouped" / "standalone.json").rows
        inherited = json.loads((self.folder / "inherited.json").read_text())
        reached: dict[str, list[float]] = {}
        for row in rows:
            reached.setdefault(row.name, []).append(row.reached)
        longer = {row.name: row.reached for row in Standalone.load(self.folder / "longer.json").rows}
        first = {row.name: row for row in rows}
        names = {training.spec.hash: training.name for training in reversed(self.trainings())}
        both = [name for name in names.values() if name in inherited]  # a network with two names counts once
        networks = [
            {
                "name": name,
                "group": row.group,
                "macs": row.macs,
                "score": row.score,
                "inherited": inherited.get(name),
                "alone": fmean(reached[name]),
                "alone_of_seeds": reached[name],
                "alone_for_longer": longer.get(name),
            }
            for name, row in sorted(first.items(), key=lambda pair: pair[1].macs)
        ]
        spreads = [stdev(values) for values in reached.values() if len(values) > 1]
        drawn = json.loads((self.folder / "samplers.json").read_text())["scores"]
        return {
            "metric": self.grouped.method.metric,
            "without_retraining": {
                "networks": networks,
                "standard_deviation_of_seeds": fmean(spreads) if spreads else None,
                "inherited_and_alone": paired(
                    [inherited[name] for name in both],
                    [fmean(reached[name]) for name in both],
                    names=("inherited", "alone"),
                ),
                "inherited_and_longer": paired(
                    [inherited[name] for name in longer],
                    list(longer.values()),
                    names=("inherited", "alone_for_longer"),
                ),
                "rank": rank_correlation([first[n].score or 0.0 for n in both], [fmean(reached[n]) for n in both]),
            },
            "samplers": {
                "training_macs": {sampler: self._training_macs(sampler) for sampler in SAMPLERS},
                "note": "one supernet of each sampler: what another seed of its training changes is not in them",
                **{
                    f"grouped_and_{other}": paired(drawn["grouped"], drawn[other], names=("grouped", other))
                    for other in SAMPLERS[1:]
                },
            },
            "hypervolume": self._hypervolumes(),
        }

    def _training_macs(self, sampler: SamplerName) -> float:
        """MACs of the networks, forward and twice as many backward, and of the teacher, one forward pass per step."""
        summary = SupernetSummary.load(self.folder / sampler / "supernet" / "summary.json")
        space = self.space
        networks = 4 if sampler == "sandwich" else 1
        teacher = int(space.cost(space.largest[None], self.grouped.method.classes).macs[0])
        return 3 * summary.image_macs + summary.images / networks * teacher

    def _hypervolumes(self) -> dict[str, Any]:
        """(c): the area under each method's front, with MACs as shares of the largest network's; one value per seed."""
        space = self.space
        most = float(space.cost(space.largest[None], self.grouped.method.classes).macs[0])
        volumes: dict[str, list[float]] = {}
        for method in SEARCHES:
            for seed in self.plan.seeds:
                networks = self.state(method, seed).networks
                scored = ScoredTopologies(
                    space.from_keys([network.key for network in networks]),
                    np.array([network.score for network in networks]),
                    np.array([network.macs for network in networks]),
                )
                volumes.setdefault(method, []).append(scored.hypervolume(most))
        return {
            "seeds": list(self.plan.seeds),
            **volumes,
            **{
                f"evolution_and_{other}": paired(volumes["evolution"], volumes[other], names=("evolution", other))
                for other in ("random", "ageing")
                if len(self.plan.seeds) > 1
            },
        }


def hrnet_modules(hrnet: ArchSpec, counts: Sequence[int]) -> tuple[Module, ...]:
    """Take as many of an HRNet's modules with 2, 3 and 4 branches as a space has: the last ones, to end like HRNet."""
    assert hrnet.network.type == "multipath"
    kept: list[Module] = []
    for branches, count in enumerate(counts, start=2):
        kept += [module for module in hrnet.network.modules if len(module.depth) == branches][-count:]
    return tuple(kept)


def train_supernet_of(real: RealScaleNAS, sampler: SamplerName) -> None:
    torch.set_num_threads(1)
    real.run(sampler).train()


PARTS = ("teacher", "supernets", "samplers", "search", "alone", "longer", "inherited", "record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="camvid-11 or lspet-coco, unpacked")
    parser.add_argument("--run", type=Path, required=True, help="the folder for all files of the run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="do only these parts, in their order")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, with one thread each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    real = RealScaleNAS(Plan.load(given.config), given.data.resolve(), given.run.resolve(), given.jobs, Told())
    real.data()
    for part in PARTS:
        if part in given.parts:
            print(part, file=sys.stderr, flush=True)
            getattr(real, part)()


if __name__ == "__main__":
    main()
