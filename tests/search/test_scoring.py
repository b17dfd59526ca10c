"""Scores of networks by a supernet's weights: images, accuracy, the cache on disk, several processes."""

import json
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save
from torch import nn

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError, OutputError, SpecError, TrainingError, WeightsError
from scalenet_zoo.data.examples import Part
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.networks.batch_norm import reestimate_batch_norm
from scalenet_zoo.search.images import cached_images, check_data
from scalenet_zoo.search.scalenet import judging
from scalenet_zoo.search.scalenet.config import ScaleNetConfig, ScaleNetScoring
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.scoring import Scorer
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.zoo.interface import Interface, pretrained_cfg
from tests.helpers.processes import run_processes
from tests.helpers.shapes import Shapes
from tests.helpers.spaces import TINY, telling_supernet

SETTINGS = ScaleNetScoring(bn_images=22, batch_size=8)
TRAINING, VALIDATION = Shapes("classification", 50), Shapes("classification", 30, "val")


@pytest.fixture(scope="module")
def supernet() -> ScaleNetSupernet:
    return telling_supernet().eval()


def candidates(count: int = 3) -> list[Candidate]:
    """Base models of the space, each as it is and under a strategy of stage 1."""
    bases = TINY.sample(np.random.default_rng(0), count)
    scalings = TINY.scalings(1)
    return [
        Candidate(kernels, scaling)
        for i, kernels in enumerate(bases)
        for scaling in (TINY.unscaled, scalings[(3 * i + 1) % len(scalings)])
    ]


def spec_of(candidate: Candidate) -> ArchSpec:
    return TINY.spec(candidate.kernels, candidate.scaling, 3)


def make_scorer(
    supernet: Any,
    folder: Path,
    identity: str = "weights",
    training: Shapes = TRAINING,
    validation: Shapes = VALIDATION,
    told: dict[str, Any] | None = None,
    **changes: Any,
) -> Scorer:
    scoring = SETTINGS.model_copy(update=changes)
    config = ScaleNetConfig(name="x", data="shapes", space=TINY.model_dump(mode="json"), scoring=scoring)
    method = ScaleNetMethod(config, TRAINING.labels)
    method.supernet = supernet
    return Scorer(method, training, validation, folder, identity, **(told or {}))


def scores_of(scorer: Scorer, chosen: Sequence[Candidate]) -> list[float]:
    return scorer.score([candidate.key for candidate in chosen])


class Sealed:
    """A supernet from which no network may be extracted any more."""

    space, classes, in_channels = TINY, 3, 3

    def extract(self, spec: ArchSpec, side: str = "left") -> nn.Module:
        raise AssertionError("was asked for a network")


# --- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damaged(Shapes):
    """Some images cannot be read, or none may be read at all."""

    damaged: tuple[int, ...] = ()
    sealed: bool = False

    def read(self, index: int) -> tuple[Image.Image, Any]:
        assert not self.sealed
        if index in self.damaged:
            raise InputError(f"{self.name(index)}: cannot be read")
        return super().read(index)


def test_cached_images_are_those_that_evaluation_sees(tmp_path: Path) -> None:
    spec = spec_of(candidates()[1])
    cached = cached_images(Damaged("classification", 70), spec, tmp_path)
    again = cached_images(Damaged("classification", 70, sealed=True), spec, tmp_path)
    assert len(cached) == len(again) == 70
    assert cached.images.dtype == torch.uint8
    assert torch.equal(cached.images, again.images)
    transform = preprocessing(spec, Interface.of(spec))
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for i in range(70):
        image, target = Shapes("classification", 70).read(i)
        torch.testing.assert_close((cached.images[i] / 255 - mean) / std, transform(image))
        assert int(cached.targets[i]) == target


def test_other_data_or_sizes_lie_beside_each_other(tmp_path: Path) -> None:
    small, large = (spec_of(candidate) for candidate in candidates()[:2])
    data = Shapes("classification", 20)
    for examples, spec in (
        (data, small),
        (data, large),
        (Part(data, 10), small),
        (Part(data, 5), small),
        (Shapes("classification", 20, "val"), small),
        (Shapes("classification", 20, source="others"), small),
    ):
        assert cached_images(examples, spec, tmp_path).images.shape[2] == spec.input.height
    assert len(list(tmp_path.iterdir())) == 6


def test_broken_images_are_left_out_and_counted(tmp_path: Path) -> None:
    spec = spec_of(candidates()[0])
    data = Damaged("classification", 20, damaged=(3, 7))
    cached = cached_images(data, spec, tmp_path, broken_limit=2)
    assert (len(cached), cached.images.shape[0]) == (18, 18)
    assert cached.broken == ("shape 3: cannot be read", "shape 7: cannot be read")
    whole = cached_images(Shapes("classification", 20, source="whole"), spec, tmp_path)
    kept = [i for i in range(20) if i not in (3, 7)]
    assert torch.equal(cached.images, whole.images[kept])
    assert torch.equal(cached.targets, whole.targets[kept])
    for folder in (tmp_path, tmp_path / "anew"):
        with pytest.raises(InputError, match=r"^data: found 2 images that cannot be used, expected at most 1: shape 3"):
            cached_images(data, spec, folder, broken_limit=1)
    assert not list((tmp_path / "anew").iterdir())  # nothing half written


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "missing", "another kind"])
@pytest.mark.parametrize("name", ["images.bin", "targets.safetensors", "broken.json"])
def test_damaged_images_are_reported(name: str, damage: str, tmp_path: Path) -> None:
    spec = spec_of(candidates(1)[0])
    cached_images(VALIDATION, spec, tmp_path)
    (path,) = tmp_path.glob(f"*/{name}")
    content = path.read_bytes()
    another = {"targets.safetensors": save({"classes": np.zeros((60, 2))}), "broken.json": b"[3.5]"}.get(name, b"[3.5]")
    new = {"cut": content[:-1], "longer": content + b"0", "empty": b"", "another kind": another}
    path.unlink() if damage == "missing" else path.write_bytes(new[damage])
    with pytest.raises(InputError, match=r"found a damaged folder \(.*\), expected whole files; delete it"):
        cached_images(VALIDATION, spec, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """For a process that may write at most 4 KiB per file, every larger file looks like a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large"):
            cached_images(VALIDATION, spec_of(candidates(1)[0]), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_scored_on_are_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Alike(Shapes):
        def read(self, index: int) -> tuple[Image.Image, Any]:
            return super().read(index)[0], 1

    class OneClass(Shapes):
        labels = Labels(names=("cat",))

    class Other(Shapes):
        labels = Labels(names=("dark", "cat"))

    @dataclass(frozen=True)
    class Some(Shapes):
        labels = Labels(names=("green", "red"))

        def read(self, index: int) -> tuple[Image.Image, Any]:
            image, kind = super().read(index)
            return image, 2 - kind

    check_data(TRAINING, VALIDATION)
    with pytest.raises(
        InputError, match=r"^shapes: split val: found the class 'cat', expected those of the split train$"
    ):
        check_data(TRAINING, Other("classification", 4, "val"))
    _, part = check_data(TRAINING, Some("classification", 8, "val"))
    assert [part.read(i)[1] for i in range(8)] == [VALIDATION.read(i)[1] for i in range(8)]
    assert part.labels == TRAINING.labels
    with pytest.raises(InputError, match=r"^shapes: split train: found no images, expected some$"):
        check_data(VALIDATION, Shapes("classification", 0))
    with pytest.raises(InputError, match=r"^shapes: split train: found only the class cat, expected two or more$"):
        check_data(OneClass("classification", 4))
    with pytest.raises(InputError, match=r"^shapes: split train: found data for pose, expected classification$"):
        check_data(Shapes("pose", 4))
    with pytest.raises(InputError, match=r"^shapes: split train: found images of 1 class, expected two or more$"):
        cached_images(Alike("classification", 4), spec_of(candidates()[0]), tmp_path)
    assert not list(tmp_path.iterdir())


# --- scores ---------------------------------------------------------------------------------------


def extracted(supernet: ScaleNetSupernet, candidate: Candidate, side: Any, folder: Path) -> nn.Module:
    """A network as it is scored, its batch-norm statistics estimated here."""
    spec = spec_of(candidate)
    network = supernet.extract(spec, side).eval()
    network.pretrained_cfg = pretrained_cfg(spec)  # type: ignore[assignment]
    transform = preprocessing(spec, Interface.of(spec))
    part = Part(TRAINING, 22)
    images = torch.stack([transform(part.read(i)[0]) for i in range(22)])
    reestimate_batch_norm(network, [images[i::3] for i in range(3)])
    return network


def test_a_score_is_what_evaluation_says(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    chosen = candidates(4)
    scores = scores_of(make_scorer(supernet, tmp_path, paths="single"), chosen)
    for candidate, score in zip(chosen, scores, strict=True):
        network = extracted(supernet, candidate, "left", tmp_path)
        assert score == pytest.approx(evaluate_network(network, VALIDATION).metrics["top1"], abs=1e-6)
    assert len(set(scores)) > 2


def test_a_cpu_judges_a_few_images_at_once_whatever_the_batch(
    supernet: ScaleNetSupernet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statistics are estimated from whole batches as before, so that the score is the same."""
    candidate = candidates()[1]
    expected = scores_of(make_scorer(supernet, tmp_path / "large", batch_size=2500), [candidate])
    monkeypatch.setattr(judging, "CPU_BATCH", 7)
    sizes: list[int] = []
    forward = judging.CoupledPaths.forward

    def told(self: judging.CoupledPaths, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(judging.CoupledPaths, "forward", told)
    assert scores_of(make_scorer(supernet, tmp_path / "small", batch_size=2500), [candidate]) == expected
    assert sizes == [22, 7, 7, 7, 7, 2]


def test_both_paths_are_judged_together(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    chosen = candidates(4)
    scorer = make_scorer(supernet, tmp_path)
    scores = scores_of(scorer, chosen)
    transforms = [preprocessing(spec_of(candidate), Interface.of(spec_of(candidate))) for candidate in chosen]
    pictures, targets = zip(*(VALIDATION.read(i) for i in range(30)), strict=True)
    for candidate, score, transform in zip(chosen, scores, transforms, strict=True):
        images = torch.stack([transform(picture) for picture in pictures])
        with torch.no_grad():
            left, right = (extracted(supernet, candidate, side, tmp_path)(images) for side in ("left", "right"))
        correct = (left + right).argmax(1) == torch.tensor(targets)
        assert score == pytest.approx(float(correct.float().mean()), abs=1e-6)
    assert scorer.images_each == 2 * (22 + 30)
    assert make_scorer(supernet, tmp_path / "single", paths="single").images_each == 22 + 30
    assert scores != scores_of(make_scorer(supernet, tmp_path / "single", paths="single"), chosen)


def test_the_supernet_stays_as_it_is(tmp_path: Path) -> None:
    supernet = telling_supernet().train()
    supernet.activate(spec_of(candidates()[1]).network, "right")  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    output = supernet.eval()(images).detach()
    supernet.train()
    scores_of(make_scorer(supernet, tmp_path), candidates())
    assert all(module.training for module in supernet.modules())
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert all(value.grad is None for value in supernet.parameters())
    assert torch.equal(supernet.eval()(images), output)


def test_only_some_validation_images(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    scorer = make_scorer(supernet, tmp_path, val_images=7)
    assert scorer.images_each == 2 * (22 + 7)
    assert all(7 * score == pytest.approx(round(7 * score)) for score in scores_of(scorer, candidates()))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_scores_nearly_the_same(supernet: ScaleNetSupernet, tmp_path: Path, amp: str) -> None:
    whole = scores_of(make_scorer(supernet, tmp_path / "no"), candidates())
    mixed = scores_of(make_scorer(supernet, tmp_path / amp, amp=amp), candidates())
    np.testing.assert_allclose(mixed, whole, atol=0.1)


def test_outputs_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    supernet = telling_supernet()
    supernet.classifier.weight.data.fill_(torch.nan)
    with pytest.raises(WeightsError, match="found outputs that are not finite"):
        scores_of(make_scorer(supernet, tmp_path), candidates())


# --- the cache ------------------------------------------------------------------------------------


def test_networks_are_scored_only_once(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    chosen = candidates()
    told: list[tuple[str, int, int]] = []
    scorer = make_scorer(supernet, tmp_path, told={"on_progress": lambda *what: told.append(what)})
    scores = scores_of(scorer, [*chosen, *chosen[:2]])
    assert scores[-2:] == scores[:2]
    assert len(scorer.scores) == len(chosen) == len((tmp_path / "scores.jsonl").read_text().splitlines()) - 1
    assert told == [("scoring", done, 6) for done in range(7)]
    assert scorer.seconds > 0
    assert scores_of(scorer, chosen) == scores[:6]
    again = make_scorer(Sealed(), tmp_path)
    assert (len(again.scores), scores_of(again, chosen)) == (6, scores[:6])
    assert len(told) == 7


def test_strategies_that_give_the_same_network_share_its_score(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    base = np.array([[3, 0, 0], [3, 0, 0], [3, 0, 0]])  # one layer per stage: depth 1.1 and depth 1.4 both give 2
    scalings = [s for s in TINY.scalings(1) if (s.width, s.resolution) == (1.1, 24)]
    assert [scaling.depth for scaling in scalings] == [1.1, 1.4]
    scorer = make_scorer(supernet, tmp_path)
    scores = scores_of(scorer, [Candidate(base, scaling) for scaling in scalings])
    assert scores[0] == scores[1]
    assert len(scorer.scores) == 1


def test_a_line_that_was_cut_off_is_scored_again(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    path, chosen = tmp_path / "scores.jsonl", candidates()
    scores = scores_of(make_scorer(supernet, tmp_path), chosen)
    whole = path.read_text()
    for cut, left in ((1, 6), (20, 5)):  # the end of a line, and more
        path.write_text(whole[:-cut])
        scorer = make_scorer(supernet, tmp_path)
        assert len(scorer.scores) == left
        assert path.read_text().endswith("}\n")
        assert scores_of(scorer, chosen) == scores
        assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    ("number", "line", "complaint"),
    [
        (1, b"rubbish", "line 1: is not valid JSON"),
        (1, b'{"network": "a", "resolution": 24, "score": 0.5}', "line 1: supernet: is missing"),
        (2, b"3.5", "line 2: found 3.5, expected an object"),
        (2, b"", "line 2: is not valid JSON"),
        (2, b'{"network": "\xff"}', "line 2: is not UTF-8 text: found the byte 0xff"),
        (2, b'{"network": "a", "resolution": 24}', "line 2: score: is missing"),
        (
            2,
            b'{"network": "a", "resolution": 24, "score": 1.5}',
            "line 2: score: found 1.5, expected less than or equal to 1",
        ),
        (2, b'{"network": "a", "resolution": 24, "score": NaN}', "line 2: score: found NaN, expected a finite number"),
        (
            2,
            b'{"network": "a", "resolution": "24", "score": 0.5}',
            "line 2: resolution: found '24'",
        ),
    ],
)
def test_a_damaged_line_is_reported(
    number: int, line: bytes, complaint: str, supernet: ScaleNetSupernet, tmp_path: Path
) -> None:
    make_scorer(supernet, tmp_path)
    path = tmp_path / "scores.jsonl"
    scores = b'{"network": "a", "resolution": 24, "score": 0.5}'
    lines = [path.read_bytes().strip(), scores, scores]
    lines[number - 1] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(SpecError, match=f"^{re.escape(f'{path}: {complaint}')}"):
        make_scorer(supernet, tmp_path)


@pytest.mark.parametrize(
    ("identity", "changes", "complaint"),
    [
        (
            "others",
            {},
            'supernet: found scores for "weights", expected "others"; delete the file to score all networks again',
        ),
        ("weights", {"bn_images": 30}, "settings.bn_images: found scores for 22, expected 30; delete"),
        ("weights", {"val_images": 7}, "settings.val_images: found scores for null, expected 7; delete"),
    ],
)
def test_scores_of_something_else_are_refused(
    supernet: ScaleNetSupernet, tmp_path: Path, identity: str, changes: dict[str, Any], complaint: str
) -> None:
    make_scorer(supernet, tmp_path)
    with pytest.raises(TrainingError, match=f"scores.jsonl: {complaint}"):
        make_scorer(supernet, tmp_path, identity, **changes)


def test_scores_of_other_data_are_refused(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    make_scorer(supernet, tmp_path)
    with pytest.raises(
        TrainingError, match=r'validation: found scores for \["shapes", "val", 30\], expected \["shapes'
    ):
        make_scorer(supernet, tmp_path, validation=Shapes("classification", 31, "val"))


def test_scores_that_cannot_be_written_are_reported(supernet: ScaleNetSupernet, tmp_path: Path) -> None:
    scorer = make_scorer(supernet, tmp_path)
    (tmp_path / "scores.jsonl").unlink()
    (tmp_path / "scores.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"scores.jsonl: cannot be written: Is a directory"):
        scores_of(scorer, candidates(1))


# --- processes ------------------------------------------------------------------------------------


def _score(rank: int, world: int, folder: Path) -> Sequence[float]:
    scorer = make_scorer(telling_supernet(), folder)
    return [*scores_of(scorer, candidates()[:5]), float(len(scorer.scores))]


def _score_broken(rank: int, world: int, folder: Path) -> str:
    data = Damaged("classification", 20, damaged=(3, 7))
    scorer = make_scorer(telling_supernet(), folder, training=data, told={"broken_limit": 1})
    with pytest.raises(InputError) as error:
        scores_of(scorer, candidates(1))
    return str(error.value)


def _score_endless(rank: int, world: int, folder: Path) -> str:
    def judge(*_: object) -> float:
        if rank == 1:
            raise WeightsError("outputs are not finite")
        return 0.5

    scorer = make_scorer(telling_supernet(), folder)
    scorer.method.judge = judge  # type: ignore[assignment, method-assign]
    with pytest.raises(WeightsError) as error:
        scores_of(scorer, candidates())
    return str(error.value)


@pytest.mark.distributed
def test_two_processes_score_as_one_does(tmp_path: Path) -> None:
    (alone,) = run_processes(_score, 1, tmp_path / "one")
    first, second = run_processes(_score, 2, tmp_path / "two")
    assert first == second == alone
    kept = [(tmp_path / name / "scores.jsonl").read_text() for name in ("one", "two")]
    assert kept[0] == kept[1]
    assert len({json.loads(line)["score"] for line in kept[0].splitlines()[1:]}) > 1


@pytest.mark.distributed
def test_all_processes_report_what_is_wrong(tmp_path: Path) -> None:
    assert run_processes(_score_endless, 2, tmp_path / "other") == ["outputs are not finite"] * 2
    complaints = run_processes(_score_broken, 2, tmp_path / "run")
    assert (
        complaints
        == ["data: found 2 images that cannot be used, expected at most 1: shape 3: cannot be read (and 1 more)"] * 2
    )
