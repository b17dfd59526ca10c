"""A third method, random search in ScaleNet's space, in 70 lines: the engine does the rest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.latency.model import LatencyModel
from scalenet_zoo.search.driver import Run, RunOptions
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.method import Method
from scalenet_zoo.search.record import Record, rng_at
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.summary import SUMMARY, SupernetSummary
from tests.helpers.search_config import write_config
from tests.helpers.searching import same_but_for_time


class DrawnAtRandom(Method[ScaleNetConfig]):
    """Networks of any stage, drawn one after the other, judged by their multiply-adds: nothing is trained for it."""

    name = "drawn"
    searches: ClassVar = {"random": "random search in a space"}
    paper = "none"
    metric = "size"
    space: Space
    judged = 0

    def spec(self, key: str, name: str = "candidate") -> ArchSpec:
        candidate = Candidate.from_key(self.space, key)
        return self.space.spec(candidate.kernels, candidate.scaling, self.classes, name)

    @property
    def largest(self) -> ArchSpec:
        return self.space.largest_spec(self.classes)

    @property
    def yardstick(self) -> ArchSpec:
        return self.spec(Candidate(self.space.smallest, self.space.unscaled).key)

    def draw(self, rng: np.random.Generator) -> ArchSpec:
        return self.spec(self._draw(rng))

    def _draw(self, rng: np.random.Generator) -> str:
        scalings = self.space.scalings(int(rng.integers(len(self.space.scaling))))
        return Candidate(self.space.sample(rng, 1)[0], scalings[rng.integers(len(scalings))]).key

    def bounds(self, model: LatencyModel | None = None) -> Bounds:
        return Bounds(self.space, self.classes, self.config.limits, model)

    def check_limits(self, model: LatencyModel | None = None) -> None:
        self.bounds(model)

    def train(self, training: Any, validation: Any, folder: Path, *_: Any) -> SupernetSummary:
        nothing = SupernetSummary(
            space_hash=self.space.hash, weights_sha256="", steps=0, images=0, image_macs=0, seconds=0.0
        )
        nothing.save(folder / SUMMARY)
        return nothing

    def load(self, folder: Path, device: torch.device) -> SupernetSummary:
        return SupernetSummary.load(folder / SUMMARY)

    def judge(self, spec: ArchSpec, training: Any, validation: Any) -> float:
        self.judged += 1
        return spec.cost.macs / (spec.cost.macs + 1e5)

    def extract(self, spec: ArchSpec) -> nn.Module:
        return create_model(spec)

    def measure(self, network: Any, spec: ArchSpec, validation: Any) -> float:
        return self.judge(spec, None, validation)

    def search(self, search: str, record: Record[Ledger, Bounds], ledgers: Mapping[str, Ledger]) -> Sequence[str]:
        for number in range(6):
            rng = rng_at(self.config.search.seed, number)
            record.score([self._draw(rng) for _ in range(4)])
            record.save()
        best = sorted(record.ledger.networks, key=lambda network: -(network.score or 0.0))
        return [network.key for network in best[:2]]

    def tell(self, ledger: Ledger) -> tuple[str, int, int]:
        return "drawing", ledger.evaluations, 24


class KilledError(Exception):
    pass


def kill(what: str, done: int, total: int) -> None:
    if what == "drawing" and done >= 12:
        raise KilledError


def test_a_third_method_is_resumed_and_written_as_the_others(tmp_path: Path) -> None:
    config = ScaleNetConfig.load(write_config(tmp_path, baselines=[], limits={}))

    def open_run(name: str, **options: Any) -> Run:
        return Run(DrawnAtRandom, config, tmp_path / name, RunOptions(workers=0, cpu=True, **options))

    def ledger(name: str) -> Ledger:
        return same_but_for_time(Ledger.load(tmp_path / name / "search" / "random.json"))

    whole = open_run("whole")
    whole.search()
    with pytest.raises(KilledError):
        open_run("killed", on_progress=kill).search()
    assert not ledger("killed").ended
    before = Ledger.load(tmp_path / "killed" / "search" / "random.json")
    again = open_run("killed")
    written = again.search()
    assert isinstance(whole.method, DrawnAtRandom)
    assert isinstance(again.method, DrawnAtRandom)
    assert again.method.judged == whole.method.judged - 12
    assert ledger("killed") == ledger("whole")
    after = Ledger.load(tmp_path / "killed" / "search" / "random.json")
    assert before.scoring_seconds < after.scoring_seconds <= after.seconds  # over all sessions
    assert before.seconds < after.seconds
    assert ledger("killed").ended
    assert ledger("killed").evaluations == 24
    assert [network.generation for network in ledger("killed").networks] == [n for n in range(6) for _ in range(4)]
    for number, network in enumerate(ledger("killed").found):
        spec = ArchSpec.load(tmp_path / "killed" / "specs" / f"toy_{number}.json")
        assert (spec.cost.macs, spec.cost.params) == (network.macs, network.params)
        assert spec.provenance.method == "random search in a space"
        (result,) = spec.provenance.results
        assert (result.metric, result.value) == ("supernet_size", network.score)
    assert written.paths == [tmp_path / "killed" / "specs"]
    assert [row[0] for row in written.rows] == ["toy_0", "toy_1"]
    open_run("killed").search()  # nothing is missing: nothing changes
