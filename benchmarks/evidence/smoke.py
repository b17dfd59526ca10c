"""The smoke run: how fast the device trains small networks, in which setup, with how many processes.

Its figures size the plan. Each measurement is written to OUT/smoke.json at once; measurements for which the time does
not suffice are left out.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.alone import Training, train_alone
from benchmarks.evidence.images import CHUNK_STEPS, Sets
from benchmarks.evidence.plan import Plan
from benchmarks.evidence.supernets import SupernetTraining
from benchmarks.evidence.tasks import self_test
from benchmarks.evidence.workers import Workers, meet
from scalenet_zoo.core.files import replacing

SLACK = 12.0
"""Extra seconds of a measurement, in which libraries load and steps are recorded."""
ALIKE = 0.9
"""The least cosine between the changes of weights with and without recorded steps, which differ by rounding."""
SIZE = 45_000
"""Images per epoch."""
MOST_EPOCHS = 4
"""The largest number of epochs of a pilot training."""


@dataclass(frozen=True)
class TrainingSetup:
    """A setup of stand-alone training.

    Attributes:
        batch_size: images per step.
        amp: the type of mixed precision, as in recipes.
        channels_last: whether the memory layout is channels last.
        record: whether steps are CUDA graphs.
    """

    batch_size: int
    amp: str = "bf16"
    channels_last: bool = True
    record: bool = True


def describe(sets: Sets, number: int) -> dict[str, Any]:
    """Describe what a worker runs on."""
    device = sets.train.images.device
    found = {"torch": torch.__version__, "device": str(device), "images": len(sets.train), "number": number}
    if device.type == "cuda":
        torch.zeros(1, device=device)
        found |= {"name": torch.cuda.get_device_name(), "gib": torch.cuda.mem_get_info()[1] / 2**30}
    return found


def alone_rate(sets: Sets, plan: Plan, key: str, setup: TrainingSetup, count: int, seconds: float) -> dict[str, Any]:
    """Measure how many images per second one worker trains a network with, beside the other workers.

    Args:
        sets: the images.
        plan: the plan.
        key: the key of the network.
        setup: the setup of the training.
        count: number of workers that measure at the same time.
        seconds: duration of the measurement.
    """
    began = time.monotonic()
    recipe = plan.recipe(amp=setup.amp, channels_last=setup.channels_last, batch_size=setup.batch_size, epochs=1000)
    training = Training(plan.spec(key), recipe, sets, setup.record)
    training.run(2 * CHUNK_STEPS)
    prepared = time.monotonic() - began
    meet(count)
    first = time.monotonic()
    steps = training.run(until=first + seconds)
    rate = steps * setup.batch_size / (time.monotonic() - first)
    return {
        "images_per_second": rate,
        "prepared_s": prepared,
        "recorded": training.recorded,
        "trouble": training.trouble,
        "gib": torch.cuda.max_memory_reserved() / 2**30 if training.device.type == "cuda" else 0.0,
    }


def supernet_rate(
    sets: Sets, plan: Plan, seed: int, changes: dict[str, Any], count: int, seconds: float
) -> dict[str, Any]:
    """Measure how many images per second one worker trains a supernet with, and how long it takes to score a network.

    Args:
        sets: the images.
        plan: the plan.
        seed: the seed of the training.
        changes: recipe values that differ from the plan's.
        count: number of workers that measure at the same time.
        seconds: duration of the measurement.
    """
    began = time.monotonic()
    training = SupernetTraining(plan, plan.settings(recipe={**changes, "seed": seed, "epochs": 1000}), sets)
    training.run(CHUNK_STEPS)
    prepared = time.monotonic() - began
    meet(count)
    first = time.monotonic()
    steps = training.run(until=first + seconds)
    rate = steps * training.recipe.batch_size / (time.monotonic() - first)
    key = plan.draw(1, 1, 0)
    first = time.monotonic()
    training.score(plan, key, plan.scoring, first + 60)
    return {
        "images_per_second": rate,
        "prepared_s": prepared,
        "scoring_s": time.monotonic() - first,
    }


def pilot(sets: Sets, plan: Plan, key: str, changes: dict[str, Any], until: float, record: bool) -> dict[str, Any]:
    """Train a network alone for a short time, and return its accuracy."""
    recipe = plan.recipe(**changes)
    result = train_alone(plan.spec(key), recipe, sets, until, record)
    figures = {"top1": None} if result is None else vars(result)
    return {"key": key, "lr": recipe.lr, "seed": recipe.seed, "epochs": recipe.epochs, **figures}


@dataclass
class Smoke:
    """All measurements, one after another.

    Args:
        plan: the plan.
        workers: the processes, started.
        out: the folder of smoke.json.
        until: the time (`time.monotonic`) after which no measurement starts.
        seconds: duration of a measurement.
        mps: a sentence that says whether the multi-process service works.

    Attributes:
        rows: the measurements.
        facts: facts about the device.
    """

    plan: Plan
    workers: Workers
    out: Path
    until: float
    seconds: float
    mps: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def run(self) -> bool:
        """Measure what the time allows; return False if no worker works."""
        most = self.workers.count
        if not are_ready(self.workers, self.facts, self.mps):
            return False
        record = can_record(self.workers, self.plan, self.facts)
        self.save()
        best = TrainingSetup(self.plan.recipe().batch_size, record=record)
        on_gpu = self.workers.device == "cuda"
        for setup in dict.fromkeys((best, replace(best, record=False))) if on_gpu else (best,):
            self.alone(setup, 1, 1)
        for stage in (1, 0, 2):
            self.alone(best, stage, most)
        self.supernets(1)
        self.supernets(most)
        self.pilot(best)
        others = replace(best, channels_last=False), replace(best, batch_size=512), replace(best, amp="no")
        for setup in others if on_gpu else ():
            self.alone(setup, 1, most)
        if on_gpu:
            self.supernets(most, channels_last=True)
        return True

    def alone(self, setup: TrainingSetup, stage: int, number: int) -> None:
        """Measure the training of `number` networks of a stage, one per worker."""
        keys = self.plan.draw(stage, number, 1)
        own = [(self.plan, key, setup, number, self.seconds) for key in keys]
        self._measure({"what": "alone", "stage": stage, "processes": number, **vars(setup)}, own, alone_rate)

    def supernets(self, number: int, **changes: Any) -> None:
        """Measure the training of `number` supernets, one per worker; `changes` replace values of the recipe."""
        own = [(self.plan, seed, changes, number, self.seconds) for seed in range(number)]
        self._measure({"what": "supernet", "processes": number, **changes}, own, supernet_rate)

    def pilot(self, setup: TrainingSetup) -> None:
        """Compare learning rates, seeds and networks in short trainings, one per worker."""
        drawn = {stage: self.plan.draw(stage, 3, 2) for stage in (0, 1, 2)}
        first = time.monotonic()
        rates = [row["images_per_second"] for row in self.rows if row["what"] == "alone" and row["stage"] == 2]
        each = max(rates, default=0.0) / self.workers.count / SIZE
        short = {"epochs": min(MOST_EPOCHS, max(1, int(each * (self.until - first - 3)))), "amp": setup.amp}
        asked: list[tuple[str, dict[str, Any]]] = [(drawn[1][i], {"seed": seed}) for seed in (0, 1) for i in (0, 1, 2)]
        asked += [(drawn[stage][0], {"lr": lr}) for stage in (1, 0, 2) for lr in (0.1, 0.4)]
        asked += [(drawn[stage][0], {}) for stage in (0, 2)]
        own = [(self.plan, key, {**short, **more}, self.until, setup.record) for key, more in asked]
        if first > self.until:
            return
        answers = self.workers.together(own[: self.workers.count], pilot, self.until + 5 - first)
        for (key, _), answer in zip(asked, answers, strict=False):
            self.rows.append({"what": "pilot", "key": key, **_plain(answer)})
            print(str(self.rows[-1])[:240], flush=True)
        print(f"pilot: {short['epochs']} epochs, {time.monotonic() - first:.1f} s", flush=True)
        self.save()
        self.workers.mend()

    def save(self) -> None:
        """Write all measurements so far."""
        with replacing(self.out / "smoke.json") as temporary:
            temporary.write_text(json.dumps({"facts": self.facts, "rows": self.rows}, indent=1) + "\n")

    def _measure(self, row: dict[str, Any], own: Sequence[tuple[Any, ...]], task: Any) -> None:
        if time.monotonic() > self.until:
            print("no time:", _line({**row, "images_per_second": 0}), flush=True)
            return
        seconds = min(self.seconds + SLACK, self.until + 5 - time.monotonic())
        hanging = [worker for worker in self.workers.workers if worker.busy is not None]
        self.workers.mend(*hanging)
        answers = self.workers.together(own, task, seconds)
        good = [answer for answer in answers if isinstance(answer, dict)]
        row |= {"images_per_second": sum(answer["images_per_second"] for answer in good), "answers": len(good)}
        for name in ("prepared_s", "scoring_s", "gib"):
            if good and name in good[0]:
                row[name] = round(max(answer[name] for answer in good), 2)
        trouble = [str(answer) for answer in answers if isinstance(answer, Exception)]
        trouble += [answer["trouble"] for answer in good if answer.get("trouble")]
        if good and "recorded" in good[0]:
            row["recorded"] = all(answer["recorded"] for answer in good)
        self.rows.append({**row, "trouble": trouble[:2]})
        print(f"{time.monotonic() - self.began:5.1f} s", _line(self.rows[-1]), flush=True)
        self.save()


def are_ready(workers: Workers, facts: dict[str, Any], mps: str) -> bool:
    """Wait for the workers, add what they run on to `facts`, and return whether at least one of them works."""
    answers = workers.together([(number,) for number in range(workers.count)], describe, 60)
    failed = [str(answer) for answer in answers if isinstance(answer, Exception)]
    facts |= {"mps": mps, "processes": workers.count, "method": workers.method, "failed": failed[:1]}
    facts["first"] = _plain(next((answer for answer in answers if isinstance(answer, dict)), answers[0]))
    print(f"{workers.count} processes, {workers.method}, {len(failed)} failed {failed[:1]}; service: {mps}", flush=True)
    print(facts["first"], flush=True)
    workers.mend()
    return len(failed) < workers.count


def can_record(workers: Workers, plan: Plan, facts: dict[str, Any]) -> bool:
    """Let one worker test whether recorded steps work on this device."""
    if workers.device == "cpu":
        return True
    (answer,) = workers.together([(plan,)], self_test, 30)
    if isinstance(answer, TimeoutError):
        workers.mend(workers.workers[0])
    workers.mend()
    facts["self_test"] = _plain(answer)
    print("recorded steps beside others:", facts["self_test"], flush=True)
    return isinstance(answer, dict) and answer["recorded"] and answer["alike"] > ALIKE and answer["moved"] > 0


def _line(row: dict[str, Any]) -> str:
    shown = {name: value for name, value in row.items() if name not in ("what", "images_per_second") and value != []}
    shown = {name: str(value)[:160] for name, value in shown.items()}
    words = " ".join(f"{name}={value}" for name, value in shown.items())
    return f"{row['images_per_second']:9,.0f} images/s  {row['what']} {words}"


def _plain(answer: object) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {"trouble": str(answer)}
