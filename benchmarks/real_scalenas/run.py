"""The parts of the run, each a method that does what is missing."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.alone import Data, Training, train_missing
from benchmarks.interleave import RESULTS, record
from benchmarks.real_scalenas.figures import Figures
from benchmarks.real_scalenas.plan import SAMPLERS, Plan, SamplerName
from benchmarks.real_training import SIGMAS
from benchmarks.run_folder import keep, write
from scalenet_zoo import ArchSpec, create_model, load_spec
from scalenet_zoo.arch.spec import Module, MultipathNetwork
from scalenet_zoo.core.files import replacing_folder
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
from scalenet_zoo.search.scoring import Scorer
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network

PARTS = ("teacher", "supernets", "samplers", "search", "alone", "longer", "inherited", "record")
"""The parts after `data`, in their order."""


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
                first = self.plan.load_ledger(self.folder, method, self.plan.seeds[0])
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
        method = self.grouped.method
        record(name, Figures(self.plan, self.folder, method.classes, method.metric).summary())

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
        plan, run = self.plan.alone, self.grouped
        state = self.plan.load_ledger(self.folder, "evolution", self.plan.seeds[0])
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
