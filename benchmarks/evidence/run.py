"""The run: several processes do the missing jobs, the most important first, until all are done or the time is over.

rate of a supernet's training --> share of the planned epochs that fits into the time
    |
supernets --> scores of a pool of networks --> networks to train alone, chosen by scores and at random
    |                                                 |
    +--> scores of these networks, by every supernet  +--> accuracies
    +--> searches --> networks found, trained alone

`wanted` derives the jobs from the plan and from the answers so far. Each answer becomes a line of RUN/results.jsonl and
OUT/results.jsonl at once, so a stopped run resumes. A supernet trains in parts of a minute (`tasks.PART`) and keeps its
state in RUN/supernets.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.evidence import tasks
from benchmarks.evidence.plan import Plan, SupernetVariant
from benchmarks.evidence.workers import Worker, Workers
from benchmarks.jobs import Job, Results
from benchmarks.networks import spread

STAGES = (0, 1, 2)
METHODS = ("joint", "compound", "random", "separate")
"""The methods of search, the most important first."""
TRIES = 2
"""Number of times that a failing job is tried."""
HANGING = 240.0
"""Seconds after which a process on a GPU counts as hanging; a process on a CPU never does."""
FOR_SUPERNETS = 0.5
"""Share of the remaining time that the training of supernets may take."""


@dataclass
class Run:
    """The whole run.

    Args:
        plan: the plan.
        workers: the processes, started.
        folder: the folder of the state and of the supernets' weights.
        out: the folder of the results.
        until: the time (`time.monotonic`) at which the run stops.
        record: whether stand-alone trainings on a GPU record their steps.
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
        self.took: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._shorten()

    def run(self) -> bool:
        """Do all missing jobs; return False if the time ran out."""
        begun: dict[int, tuple[Job, float]] = {}
        told = time.monotonic()
        while True:
            running = {job.name for job, _ in begun.values()}
            idle = [worker for worker in self.workers.workers if worker.busy is None]
            jobs = self._jobs(running) if idle and time.monotonic() < self.until else iter(())
            for worker, job in zip(idle, jobs, strict=False):
                begun[id(worker)] = job, time.monotonic()
                self.workers.tell(worker, job.function, self.plan, *job.arguments)
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
        """Yield all jobs whose arguments are known, finished or not, the most important first."""
        study = self.plan.study
        yield Job("rate", tasks.rate, (study.supernets[0],))
        first, drawn, pools = study.supernets[0], self.drawn, self.pools
        for variant in study.supernets if "rate" in self.results else ():
            size = f"{variant.sampler}, {variant.recipe.get('epochs')} epochs"
            yield Job(f"supernet/{variant.name}", tasks.supernet, (variant, self.weights, self.until), size)
            yield from self._scores(variant, "drawn", drawn)
        if f"supernet/{first.name}" in self.results:
            for stage in STAGES:
                yield self._score(f"pool/{stage}", first, pools[stage], f"stage {stage}")
        chosen = self._chosen(drawn, pools)
        yield from self._compared(METHODS[:2])
        both = [drawn, chosen] if chosen else [drawn]
        for variant in study.supernets if chosen else ():
            yield from self._scores(variant, "chosen", chosen)
        halves = [
            (half[stage][place], stage) for half in both for place in range(study.drawn) for stage in reversed(STAGES)
        ]
        yield from self._all_seeds(halves)
        yield from self._compared(METHODS[2:])
        found = [each for name in study.searched for each in self._found(name, METHODS)]
        yield from self._all_seeds(found)
        yield from (self._longer(key, stage) for key, stage in halves + found)

    @cached_property
    def drawn(self) -> dict[int, list[str]]:
        """The keys of the networks drawn at random, by stage."""
        return {stage: self.plan.draw(stage, self.plan.study.drawn, 100) for stage in STAGES}

    @cached_property
    def pools(self) -> dict[int, list[str]]:
        """The keys of the networks from which others are chosen by their scores, by stage."""
        return {stage: self.plan.draw(stage, self.plan.study.pool, 101) for stage in STAGES}

    @property
    def weights(self) -> Path:
        """The folder of the supernets' weights."""
        return self.folder / "supernets"

    def _chosen(self, drawn: dict[int, list[str]], pools: dict[int, list[str]]) -> dict[int, list[str]]:
        """The keys of the networks chosen by their scores, by stage; empty before all pools are scored."""
        chosen = {}
        for stage in STAGES:
            if f"pool/{stage}" not in self.results:
                return {}
            scores = self.results.answers[f"pool/{stage}"]["scores"]
            scores = {key: scores[key] for key in pools[stage] if key not in drawn[stage]}
            chosen[stage] = spread(sorted(scores), scores.__getitem__, self.plan.study.drawn)
        return chosen

    def _found(self, supernet: str, methods: Iterable[str]) -> list[tuple[str, int]]:
        """Keys and stages of the networks of stages 1 and 2 that these methods have found with a supernet so far."""
        answers = (self.results.answers.get(f"search/{supernet}/{method}", {}) for method in methods)
        return [(key, stage) for answer in answers for stage, key in enumerate(answer.get("found", ())) if stage > 0]

    def _compared(self, methods: Sequence[str]) -> Iterator[Job]:
        """Searches in all trained supernets, by methods that are compared with the joint search; their trainings."""
        study = self.plan.study
        variants = {variant.name: variant for variant in study.supernets}
        for number, name in enumerate(study.searched):
            if f"supernet/{name}" in self.results:
                path = self.weights / f"{name}.safetensors"
                for method in methods:
                    arguments = variants[name], path, method, number, study.evaluations, self.until
                    yield Job(f"search/{name}/{method}", tasks.search, arguments, method, path)
            compared = dict.fromkeys((METHODS[0], *methods))
            if all(f"search/{name}/{method}" in self.results for method in compared):
                found = self._found(name, compared)
                seed = self._common_seed({key for key, _ in found})
                if seed is not None:
                    yield from (self._alone(key, stage, seed) for key, stage in found)

    def _all_seeds(self, networks: Sequence[tuple[str, int]]) -> Iterator[Job]:
        """Trainings with all seeds; a network stays on the kind of device that trained it first."""
        rows, seeds, on_gpu = self.results.answers, self.plan.study.seeds, self.workers.device == "cuda"
        for seed in seeds:
            for key, stage in networks:
                job = self._alone(key, stage, seed)
                begun = {rows[name]["recorded"] for each in seeds if (name := f"alone/{key}/{each}") in rows}
                if job.name in rows or begun <= {on_gpu}:
                    yield job

    def _common_seed(self, keys: Collection[str]) -> int | None:
        """The seed of a comparison of networks, which are all trained on one kind of device.

        It is the one with which all have been trained, or the first one that no other kind of device has used.
        """
        rows = self.results.answers
        on_gpu = {
            seed: [rows[name]["recorded"] for key in keys if (name := f"alone/{key}/{seed}") in rows]
            for seed in self.plan.study.seeds
        }
        done = (seed for seed, its in on_gpu.items() if len(its) == len(keys) and len(set(its)) == 1)
        free = (seed for seed, its in on_gpu.items() if set(its) <= {self.workers.device == "cuda"})
        return next(chain(done, free), None)

    def _scores(self, variant: SupernetVariant, half: str, networks: dict[int, list[str]]) -> Iterator[Job]:
        """Scores of one half of the networks by a supernet: score/SUPERNET/HALF, .../averaged and .../statistics."""
        if f"supernet/{variant.name}" not in self.results:
            return
        keys, job = [key for stage in STAGES for key in networks[stage]], f"score/{variant.name}/{half}"
        yield self._score(job, variant, keys)
        if variant.average is not None:
            path = self.weights / f"{variant.name}.averaged.safetensors"
            yield self._score(f"{job}/averaged", variant, keys, path=path)
            more = {"bn_images": self.plan.study.bn_images}
            yield self._score(f"{job}/statistics", variant, keys, "statistics", changes=more)

    def _score(
        self,
        name: str,
        variant: SupernetVariant,
        keys: Sequence[str],
        size: str = "",
        path: Path | None = None,
        changes: Any = None,
    ) -> Job:
        path = path or self.weights / f"{variant.name}.safetensors"
        return Job(name, tasks.score, (variant, path, list(keys), changes or {}, self.until), size, path)

    def _alone(self, key: str, stage: int, seed: int) -> Job:
        arguments = key, {"seed": seed}, self.record, self.until
        return Job(f"alone/{key}/{seed}", tasks.alone, arguments, f"stage {stage}")

    def _longer(self, key: str, stage: int) -> Job:
        seed, epochs = self.plan.study.seeds[0], self.plan.study.longer_epochs
        arguments = key, {"seed": seed, "epochs": epochs}, self.record, self.until
        return Job(f"longer/{key}/{seed}", tasks.alone, arguments, f"stage {stage}")

    def _jobs(self, running: set[str]) -> Iterator[Job]:
        """Yield the jobs that may start now: neither finished nor running nor failed, and likely to end in time."""
        asked = set(running)
        for job in self.wanted():
            if job.name in self.results or job.name in asked or self.failed[job.name] >= TRIES or not job.can_begin:
                continue
            supernets = sum(name.startswith("supernet/") for name in asked)
            if job.name.startswith("supernet/") and supernets >= self.plan.study.at_once:
                continue
            if time.monotonic() + self._expected(job) < self.until:
                asked.add(job.name)
                yield job

    def _expected(self, job: Job) -> float:
        """Seconds that jobs of the same kind and size took lately; 0 if there was none."""
        took = self.took[job.kind, job.size]
        return fmean(took[-8:]) if took else 0.0

    def _late(self, begun: tuple[Job, float]) -> bool:
        if self.workers.device == "cpu":
            return False
        return time.monotonic() > begun[1] + HANGING + 2 * self._expected(begun[0])

    def _take(self, worker: Worker, job: Job, since: float) -> None:
        """Take a worker's answer, and write it."""
        answer = self.workers.answer(worker, time.monotonic() + 5)
        if isinstance(answer, dict) and "left" in answer:  # from a part of a supernet's training
            print(f"{job.name}: {answer['left']} of {answer['steps']} steps left", flush=True)
        elif isinstance(answer, dict):
            if job.name == "rate":
                answer["share"] = self._share(answer)
            self.took[job.kind, job.size].append(time.monotonic() - since)
            self.results.add(job.name, {**answer, "at": round(time.monotonic() - self.began, 1)})
            if job.name == "rate":
                self._shorten()
        elif answer is not None or time.monotonic() < self.until:
            self._fail(job, str(answer))

    def _share(self, rate: dict[str, float]) -> float:
        """Compute which share of the supernets' epochs fits into the time; 1 if the time has no limit."""
        plan, study = self.plan, self.plan.study
        epochs = sum(
            plan.settings_of(variant).make_recipe().epochs * plan.networks_per_step(variant)
            for variant in study.supernets
        )
        at_once = min(study.at_once, self.workers.count, len(study.supernets))
        fit = FOR_SUPERNETS * (self.until - time.monotonic()) * at_once * rate["images_per_second"]
        return round(max(0.0, min(1.0, fit / (epochs * rate["images"]))), 4)  # as the results have it

    def _shorten(self) -> None:
        """Give supernets the share of epochs that was decided once, by their rate."""
        if "rate" in self.results:
            self.plan = self.plan.shortened(self.results.answers["rate"]["share"])

    def _fail(self, job: Job, trouble: str) -> None:
        self.failed[job.name] += 1
        print(f"failed: {job.name}: {trouble}"[:300], flush=True)

    def tell(self, running: int) -> None:
        """Print the progress, and what jobs of each kind and size take."""
        wanted = {job.name: job for job in self.wanted()}
        done = {name: job for name, job in wanted.items() if name in self.results}
        counts = Counter(f"{job.kind} {job.size}".strip() for job in done.values())
        seconds = {f"{job.kind} {job.size}".strip(): self._expected(job) for job in done.values()}
        means = {kind: f"{count}x{seconds[kind]:.1f}s" for kind, count in counts.items()}
        part = f"{len(done)} of {len(wanted)}, {running} running"
        print(f"{time.monotonic() - self.began:5.0f} s, {part}: {means}", flush=True)
