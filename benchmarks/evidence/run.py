"""The run: what is missing is done in order of worth, by as many processes as there are, until the clock says stop.

a supernet's rate --> how many epochs fit (`share`)
    |
supernets --> scores of a pool of networks --> those that are trained alone, chosen by scores and at random
    |                                                 |
    +--> scores of these, by every supernet           +--> accuracies
    +--> searches --> networks found, trained alone

What is asked for next is a function of the plan and of the answers so far (`wanted`), and each answer is written at
once, a line of RUN/results.jsonl and of OUT/results.jsonl: a run that was stopped goes on where it was. A supernet is
trained in parts of a minute (`tasks.PART`); its state lies in RUN/supernets.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.evidence import tasks
from benchmarks.evidence.plan import Plan, Way
from benchmarks.evidence.workers import Worker, Workers
from benchmarks.jobs import Results

STAGES = (0, 1, 2)
METHODS = ("joint", "compound", "random", "separate")
"""How networks are searched, in order of worth."""
TRIES = 2
"""Times that a job is begun that fails, before it is left out."""
HANGING = 240.0
"""Seconds after which a process on a GPU counts as hanging; on a CPU it may take as long as it likes."""
FOR_SUPERNETS = 0.5
"""Share of the time that is left which supernets may take."""


@dataclass(frozen=True)
class Job:
    """Something that one process does.

    Attributes:
        name: of its line in the results.
        kind: jobs of one kind take about as long.
        task: of `tasks`.
        arguments: of it, after the images.
    """

    name: str
    kind: str
    task: Callable[..., Any]
    arguments: tuple[Any, ...]


def spread(scores: dict[str, float], count: int) -> list[str]:
    """So many networks whose scores spread evenly over the whole range, nearest to each of them, none twice."""
    left = dict(scores)
    chosen = []
    for target in np.linspace(min(scores.values()), max(scores.values()), count):
        key = min(left, key=lambda each: (abs(left[each] - target), each))
        chosen.append(key)
        del left[key]
    return chosen


@dataclass
class Run:
    """The whole run.

    Args:
        plan: of it.
        workers: processes, begun.
        folder: for supernets' weights and the state.
        out: for results.
        until: on the clock, when all ends.
        record: whether steps of trainings alone are recorded.
    """

    plan: Plan
    workers: Workers
    folder: Path
    out: Path
    until: float
    record: bool
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.results = Results(self.folder / "results.jsonl", self.out / "results.jsonl")
        self.failed: dict[str, int] = defaultdict(int)
        self.took: dict[str, list[float]] = defaultdict(list)
        self._shorten()

    def run(self) -> bool:
        """Do all that is missing; false if the clock stopped it."""
        begun: dict[int, tuple[Job, float]] = {}
        told = time.monotonic()
        while True:
            running = {job.name for job, _ in begun.values()}
            idle = [worker for worker in self.workers.workers if worker.busy is None]
            jobs = self._jobs(running) if idle and time.monotonic() < self.until else iter(())
            for worker, job in zip(idle, jobs, strict=False):
                begun[id(worker)] = job, time.monotonic()
                self.workers.tell(worker, job.task, self.plan, *job.arguments)
            if not begun:
                return time.monotonic() < self.until
            for worker in self.workers.ready(1.0):
                self._take(worker, *begun.pop(id(worker)))
            late = [worker for worker in self.workers.workers if id(worker) in begun and self._late(begun[id(worker)])]
            for worker in late:
                self._fail(begun.pop(id(worker))[0], "no answer in time")
            if time.monotonic() > self.until + 4:
                print(f"left: {sorted(job.name for job, _ in begun.values())}"[:300], flush=True)
                return False
            if late or any(not worker.process.is_alive() for worker in self.workers.workers):
                self.workers.mend(*late)
            if time.monotonic() > told + 10:
                told = time.monotonic()
                self.tell(len(begun))

    def wanted(self) -> Iterator[Job]:
        """All jobs that can be done by what is known, in order of worth, those that are done too."""
        study = self.plan.study
        yield Job("rate", "rate", tasks.rate, (study.supernets[0],))
        first, drawn, pools = study.supernets[0], self.drawn, self.pools
        for way in study.supernets if "rate" in self.results else ():
            kind = f"supernet {way.sampler} {way.recipe.get('epochs')}"
            yield Job(f"supernet/{way.name}", kind, tasks.supernet, (way, self.weights, self.until))
            yield from self._scores(way, "drawn", drawn)
        if f"supernet/{first.name}" in self.results:
            for stage in STAGES:
                yield self._score(f"pool/{stage}", first, pools[stage], f"pool {stage}")
        chosen = self._chosen(drawn, pools)
        yield from self._compared(METHODS[:2])
        both = [drawn, chosen] if chosen else [drawn]
        for way in study.supernets if chosen else ():
            yield from self._scores(way, "chosen", chosen)
        halves = [
            (half[stage][place], stage) for half in both for place in range(study.drawn) for stage in reversed(STAGES)
        ]
        for seed in study.seeds:
            yield from (self._alone(key, stage, seed) for key, stage in halves)
        yield from self._compared(METHODS[2:])
        found = self._found(METHODS)
        yield from (self._longer(key, stage) for key, stage in halves + found)

    @cached_property
    def drawn(self) -> dict[int, list[str]]:
        """Networks drawn at random, of each stage."""
        return {stage: self.plan.draw(stage, self.plan.study.drawn, 100) for stage in STAGES}

    @cached_property
    def pools(self) -> dict[int, list[str]]:
        """Networks that others are chosen from, of each stage."""
        return {stage: self.plan.draw(stage, self.plan.study.pool, 101) for stage in STAGES}

    @property
    def weights(self) -> Path:
        """The folder of the supernets' weights."""
        return self.folder / "supernets"

    def _chosen(self, drawn: dict[int, list[str]], pools: dict[int, list[str]]) -> dict[int, list[str]]:
        """Networks chosen by their scores, of each stage; none before there are scores."""
        chosen = {}
        for stage in STAGES:
            if f"pool/{stage}" not in self.results:
                return {}
            scores = self.results.answers[f"pool/{stage}"]["scores"]
            scores = {key: scores[key] for key in pools[stage] if key not in drawn[stage]}
            chosen[stage] = spread(scores, self.plan.study.drawn)
        return chosen

    def _found(self, methods: Sequence[str]) -> list[tuple[str, int]]:
        """The networks of stages 1 and 2 that methods have found so far, with all supernets."""
        names = [f"search/{name}/{method}" for name in self.plan.study.searches for method in methods]
        answers = (self.results.answers.get(name, {}) for name in names)
        return [(key, stage) for answer in answers for stage, key in enumerate(answer.get("found", ())) if stage > 0]

    def _compared(self, methods: Sequence[str]) -> Iterator[Job]:
        """Searches by methods with the supernets that are trained, and trainings of what they found."""
        study = self.plan.study
        ways = {way.name: way for way in study.supernets}
        for seed, name in enumerate(study.searches):
            if f"supernet/{name}" in self.results:
                path = self.weights / f"{name}.safetensors"
                for method in methods:
                    arguments = ways[name], path, method, seed, study.evaluations, self.until
                    yield Job(f"search/{name}/{method}", f"search {method}", tasks.search, arguments)
        for seed in study.seeds:
            yield from (self._alone(key, stage, seed) for key, stage in self._found(methods))

    def _scores(self, way: Way, name: str, half: dict[int, list[str]]) -> Iterator[Job]:
        """Scores of half of the networks by a supernet, in all its ways: score/SUPERNET/HALF, and /WAY."""
        if f"supernet/{way.name}" not in self.results:
            return
        keys, job = [key for stage in STAGES for key in half[stage]], f"score/{way.name}/{name}"
        yield self._score(job, way, keys, "score")
        if way.average is not None:
            path = self.weights / f"{way.name}.averaged.safetensors"
            yield self._score(f"{job}/averaged", way, keys, "score", path)
            more = {"bn_images": self.plan.study.bn_images}
            yield self._score(f"{job}/statistics", way, keys, "score statistics", None, more)

    def _score(
        self, name: str, way: Way, keys: Sequence[str], kind: str, path: Path | None = None, changes: Any = None
    ) -> Job:
        path = path or self.weights / f"{way.name}.safetensors"
        return Job(name, kind, tasks.score, (way, path, list(keys), changes or {}, self.until))

    def _alone(self, key: str, stage: int, seed: int) -> Job:
        arguments = key, {"seed": seed}, self.record, self.until
        return Job(f"alone/{key}/{seed}", f"alone {stage}", tasks.alone, arguments)

    def _longer(self, key: str, stage: int) -> Job:
        seed, epochs = self.plan.study.seeds[0], self.plan.study.longer_epochs
        arguments = key, {"seed": seed, "epochs": epochs}, self.record, self.until
        return Job(f"longer/{key}/{seed}", f"longer {stage}", tasks.alone, arguments)

    def _jobs(self, running: set[str]) -> Iterator[Job]:
        """What may be begun now, in order of worth: missing, not begun, and likely to end in time."""
        asked = set(running)
        for job in self.wanted():
            if job.name in self.results or job.name in asked or self.failed[job.name] >= TRIES:
                continue
            supernets = sum(name.startswith("supernet/") for name in asked)
            if job.name.startswith("supernet/") and supernets >= self.plan.study.at_once:
                continue
            if time.monotonic() + self._expected(job.kind) < self.until:
                asked.add(job.name)
                yield job

    def _expected(self, kind: str) -> float:
        return fmean(self.took[kind][-8:]) if self.took[kind] else 0.0

    def _late(self, begun: tuple[Job, float]) -> bool:
        if self.workers.device == "cpu":
            return False
        return time.monotonic() > begun[1] + HANGING + 2 * self._expected(begun[0].kind)

    def _take(self, worker: Worker, job: Job, since: float) -> None:
        """What a process gave."""
        answer = self.workers.answer(worker, time.monotonic() + 5)
        if isinstance(answer, dict) and "left" in answer:  # a part of a supernet's training
            print(f"{job.name}: {answer['left']} of {answer['steps']} steps left", flush=True)
        elif isinstance(answer, dict):
            if job.name == "rate":
                answer["share"] = self._share(answer)
            self.took[job.kind].append(time.monotonic() - since)
            self.results.add(job.name, {**answer, "at": round(time.monotonic() - self.began, 1)})
            if job.name == "rate":
                self._shorten()
        elif answer is not None or time.monotonic() < self.until:
            self._fail(job, str(answer))

    def _share(self, rate: dict[str, float]) -> float:
        """Of the plan's epochs of supernets, how many fit; 1 where the clock says never stop."""
        study = self.plan.study
        epochs = sum(
            self.plan.settings_of(way).make_recipe().epochs * self.plan.networks_of(way) for way in study.supernets
        )
        at_once = min(study.at_once, self.workers.count, len(study.supernets))
        fit = FOR_SUPERNETS * (self.until - time.monotonic()) * at_once * rate["images_per_second"]
        return round(max(0.0, min(1.0, fit / (epochs * rate["images"]))), 4)  # as it is written

    def _shorten(self) -> None:
        """Let supernets have as many epochs as was decided once, by their rate."""
        if "rate" in self.results:
            self.plan = self.plan.shortened(self.results.answers["rate"]["share"])

    def _fail(self, job: Job, trouble: str) -> None:
        self.failed[job.name] += 1
        print(f"failed: {job.name}: {trouble}"[:300], flush=True)

    def tell(self, running: int) -> None:
        """Say how far it is."""
        wanted = {job.name: job.kind for job in self.wanted()}
        done: dict[str, int] = defaultdict(int)
        for name, kind in wanted.items():
            done[kind] += name in self.results
        means = {kind: f"{count}x{self._expected(kind):.1f}s" for kind, count in done.items() if count}
        part = f"{sum(done.values())} of {len(wanted)}, {running} running"
        print(f"{time.monotonic() - self.began:5.0f} s, {part}: {means}", flush=True)
