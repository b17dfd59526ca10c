"""How fast the device trains small networks, in which way, by how many processes: so that the plan can be sized.

Each measurement is written down at once (OUT/smoke.json); what the time does not suffice for is left out.
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
"""Seconds that a measurement may take longer than it should, for libraries to load and steps to be recorded."""
ALIKE = 0.9
"""Cosine of what a few recorded steps change in the weights, and others: they differ by rounding."""
SIZE = 45_000
"""Images of an epoch."""
MOST_EPOCHS = 4
"""Of the pilot's trainings."""


@dataclass(frozen=True)
class Way:
    """A way to train networks alone.

    Attributes:
        batch_size: images of a step.
        amp: type that is computed in.
        channels_last: memory layout.
        record: whether steps are CUDA graphs.
    """

    batch_size: int
    amp: str = "bf16"
    channels_last: bool = True
    record: bool = True


def hello(sets: Sets, numbers: int) -> dict[str, Any]:
    """What a process runs on."""
    device = sets.train.images.device
    found = {"torch": torch.__version__, "device": str(device), "images": len(sets.train), "number": numbers}
    if device.type == "cuda":
        torch.zeros(1, device=device)
        found |= {"name": torch.cuda.get_device_name(), "gib": torch.cuda.mem_get_info()[1] / 2**30}
    return found


def alone_rate(sets: Sets, plan: Plan, key: str, way: Way, count: int, seconds: float) -> dict[str, Any]:
    """Images a second of a network trained alone in one process, beside others.

    Args:
        sets: the images.
        plan: of the network.
        key: of the network.
        way: to train.
        count: of the processes that measure together.
        seconds: to measure.
    """
    began = time.monotonic()
    recipe = plan.recipe(amp=way.amp, channels_last=way.channels_last, batch_size=way.batch_size, epochs=1000)
    training = Training(plan.spec(key), recipe, sets, way.record)
    training.run(2 * CHUNK_STEPS)
    prepared = time.monotonic() - began
    meet(count)
    first = time.monotonic()
    steps = training.run(until=first + seconds)
    rate = steps * way.batch_size / (time.monotonic() - first)
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
    """Images a second of a supernet's training, one of so many processes, and seconds to score a network.

    Args:
        sets: the images.
        plan: of the supernet.
        seed: of the training.
        changes: values of the recipe that differ from the plan's.
        count: of the processes that measure together.
        seconds: to measure.
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
    """What a network reaches alone in a short training."""
    recipe = plan.recipe(**changes)
    reached = train_alone(plan.spec(key), recipe, sets, until, record)
    figures = {"top1": None} if reached is None else vars(reached)
    return {"key": key, "lr": recipe.lr, "seed": recipe.seed, "epochs": recipe.epochs, **figures}


@dataclass
class Smoke:
    """The measurements, one after the other.

    Args:
        plan: of the networks.
        workers: processes to measure with, begun.
        out: the folder for smoke.json.
        until: on the clock; what is not begun by then is left out.
        seconds: of a measurement.
        mps: what came of the multi-process service.

    Attributes:
        rows: a measurement each.
        facts: about the device.
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
        """Measure everything that there is time for; false if no process works."""
        most = self.workers.count
        if not greet(self.workers, self.facts, self.mps):
            return False
        record = can_record(self.workers, self.plan, self.facts)
        self.save()
        best = Way(self.plan.recipe().batch_size, record=record)
        on_gpu = self.workers.device == "cuda"
        for way in dict.fromkeys((best, replace(best, record=False))) if on_gpu else (best,):
            self.alone(way, 1, 1)
        for stage in (1, 0, 2):
            self.alone(best, stage, most)
        self.supernets(1)
        self.supernets(most)
        self.pilot(best)
        others = replace(best, channels_last=False), replace(best, batch_size=512), replace(best, amp="no")
        for way in others if on_gpu else ():
            self.alone(way, 1, most)
        if on_gpu:
            self.supernets(most, channels_last=True)
        return True

    def alone(self, way: Way, stage: int, number: int) -> None:
        """Measure networks of a stage, one a process."""
        keys = self.plan.draw(stage, number, 1)
        own = [(self.plan, key, way, number, self.seconds) for key in keys]
        self._measure({"what": "alone", "stage": stage, "processes": number, **vars(way)}, own, alone_rate)

    def supernets(self, number: int, **changes: Any) -> None:
        """Measure supernets, one a process, trained as the plan has it, or with other values of the recipe."""
        own = [(self.plan, seed, changes, number, self.seconds) for seed in range(number)]
        self._measure({"what": "supernet", "processes": number, **changes}, own, supernet_rate)

    def pilot(self, way: Way) -> None:
        """Short trainings, a process each: which rate of learning, and how much seeds and networks differ."""
        drawn = {stage: self.plan.draw(stage, 3, 2) for stage in (0, 1, 2)}
        first = time.monotonic()
        rates = [row["images_per_second"] for row in self.rows if row["what"] == "alone" and row["stage"] == 2]
        each = max(rates, default=0.0) / self.workers.count / SIZE
        short = {"epochs": min(MOST_EPOCHS, max(1, int(each * (self.until - first - 3)))), "amp": way.amp}
        asked: list[tuple[str, dict[str, Any]]] = [(drawn[1][i], {"seed": seed}) for seed in (0, 1) for i in (0, 1, 2)]
        asked += [(drawn[stage][0], {"lr": lr}) for stage in (1, 0, 2) for lr in (0.1, 0.4)]
        asked += [(drawn[stage][0], {}) for stage in (0, 2)]
        own = [(self.plan, key, {**short, **more}, self.until, way.record) for key, more in asked]
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
        """Write everything so far."""
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


def greet(workers: Workers, facts: dict[str, Any], mps: str) -> bool:
    """Wait until the processes are ready; whether one is. What they run on is noted in `facts`."""
    answers = workers.together([(number,) for number in range(workers.count)], hello, 60)
    failed = [str(answer) for answer in answers if isinstance(answer, Exception)]
    facts |= {"mps": mps, "processes": workers.count, "method": workers.method, "failed": failed[:1]}
    facts["first"] = _plain(next((answer for answer in answers if isinstance(answer, dict)), answers[0]))
    print(f"{workers.count} processes, {workers.method}, {len(failed)} failed {failed[:1]}; service: {mps}", flush=True)
    print(facts["first"], flush=True)
    workers.mend()
    return len(failed) < workers.count


def can_record(workers: Workers, plan: Plan, facts: dict[str, Any]) -> bool:
    """Whether recorded steps work here, as one process finds out: an error leaves the others as they are."""
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
