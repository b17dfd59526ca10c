"""The evidence's own parts: images on the device, networks trained alone, supernets, processes side by side."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.evidence import tasks
from benchmarks.evidence.alone import Training, on_one_stream, train_alone
from benchmarks.evidence.images import MARGIN, Epochs, Normalise, Sets, decode, resized
from benchmarks.evidence.plan import CLASSES, Plan, SupernetVariant
from benchmarks.evidence.run import METHODS, Run
from benchmarks.evidence.supernets import SupernetTraining
from benchmarks.evidence.tasks import self_test
from benchmarks.evidence.workers import Workers, multi_process_service
from benchmarks.networks import spread
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import replacing
from scalenet_zoo.networks.mbconv import MBConvNet
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.processes import ends

SMALL: dict[str, Any] = {
    "space": {
        "name": "tiny",
        "stem": {"channels": 8, "kernel": 3, "stride": 2},
        "stages": [
            {"channels": 8, "stride": 1, "expand": 2, "depths": [1, 2], "kernels": [3, 5]},
            {"channels": 12, "stride": 2, "expand": 2, "depths": [1, 2], "kernels": [3, 5]},
        ],
        "head": {"channels": 16},
        "squeeze": "none",
        "divisor": 4,
        "scaling": [
            {"stage": 0, "depth": [1.0], "width": [1.0], "resolution": [16]},
            {"stage": 1, "depth": [1.0, 1.2], "width": [1.0, 1.5], "resolution": [16, 20]},
            {"stage": 2, "depth": [1.0, 1.5], "width": [1.5, 2.0], "resolution": [20, 24]},
        ],
    },
    "limits": {"tolerance": 0.5, "growth": 0.9},
    "supernet": {"epochs": 2, "batch_size": 16, "lr": 0.1, "warmup_epochs": 1, "amp": "no"},
    "alone": {"epochs": 2, "batch_size": 16, "opt": "sgd", "lr": 0.1, "weight_decay": 1e-3, "smoothing": 0.1},
    "scoring": {"bn_images": 32, "batch_size": 16},
    "study": {
        "drawn": 2,
        "pool": 4,
        "at_once": 1,
        "seeds": [0, 1],
        "longer_epochs": 3,
        "bn_images": 64,
        "supernets": [
            {"name": "hss-0", "average": 0.9},
            {"name": "uniform-0", "sampler": "uniform"},
            {"name": "shared-0", "shared_kernels": True},
        ],
        "searches": ["hss-0"],
        "search": {"population": 4, "generations": 1, "rounds": 1, "keep": 2, "first_bases": 2},
        "evaluations": 12,
    },
}
"""A plan of networks that a CPU trains in no time."""


@pytest.fixture
def plan() -> Plan:
    return Plan.load(**SMALL)


def made_up(count: int, seed: int) -> CachedImages:
    """Images whose class is how bright they are."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % CLASSES
    noise = 30 * torch.randn((count, 3, 16, 16), generator=generator)
    images = (20 + 24 * targets[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8)
    return CachedImages(images, targets, ())


@pytest.fixture(scope="module")
def sets() -> Sets:
    return Sets(made_up(160, 0), made_up(40, 1), made_up(60, 2))


def write_archive(path: Path, train: int, test: int, pixels: int = 16) -> dict[str, bytes]:
    """An archive as the data's is; the files by their names."""
    rng, files = np.random.default_rng(0), {}
    with tarfile.open(path, "w:gz") as tar:
        for split, count in (("train", train), ("test", test)):
            for label in ("bird", "cat"):
                for number in range(count):
                    shade = 60 if label == "bird" else 180
                    noise = rng.integers(-40, 40, (pixels, pixels, 3))
                    buffer = io.BytesIO()
                    Image.fromarray((shade + noise).astype(np.uint8)).save(buffer, "JPEG")
                    member = tarfile.TarInfo(f"set/{split}/{label}/{number:04}.jpg")
                    member.size = len(buffer.getvalue())
                    files[member.name] = buffer.getvalue()
                    tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return files


def test_an_archive_is_decoded_to_three_parts_that_share_no_image(tmp_path: Path) -> None:
    files = write_archive(tmp_path / "set.tar.gz", train=20, test=3)
    decode(tmp_path / "set.tar.gz", tmp_path / "run" / "images.safetensors", 1)
    sets = Sets.load(tmp_path / "run" / "images.safetensors", torch.device("cpu"))
    assert [len(part) for part in (sets.train, sets.search, sets.test)] == [36, 4, 6]
    assert sets.search.targets.tolist() == [0, 0, 1, 1]
    for place, name in enumerate(("bird/0009", "bird/0019", "cat/0009", "cat/0019")):
        pixels = np.asarray(Image.open(io.BytesIO(files[f"set/train/{name}.jpg"])))
        assert np.array_equal(sets.search.images[place].permute(1, 2, 0), pixels)
    before = (tmp_path / "run" / "images.safetensors").stat().st_mtime_ns
    decode(tmp_path / "set.tar.gz", tmp_path / "run" / "images.safetensors", 1)
    assert (tmp_path / "run" / "images.safetensors").stat().st_mtime_ns == before


def test_an_archive_without_a_split_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "set.tar.gz", train=20, test=0)
    with pytest.raises(InputError, match="found no images of the split test"):
        decode(tmp_path / "set.tar.gz", tmp_path / "images.safetensors", 1)


def test_an_epoch_shows_every_image_once_cropped_and_mirrored(sets: Sets) -> None:
    fill = torch.tensor([7.0, 8.0, 9.0])[:, None, None]
    epochs = Epochs(sets.train, 16, 3, fill)
    images, targets = epochs.epoch(1)
    assert images.shape == sets.train.images.shape
    assert epochs.steps == 10
    places, mirrored = [], 0
    for image, target in zip(images, targets, strict=True):
        found = [where for where in crops_like(sets.train, image, fill) if sets.train.targets[where[0]] == target]
        assert len(found) == 1
        places.append(found[0][0])
        mirrored += found[0][1]
    assert sorted(places) == list(range(160))
    assert 50 < mirrored < 110
    again, _ = Epochs(sets.train, 16, 3, fill).epoch(1)
    assert torch.equal(images, again)
    assert not torch.equal(images, epochs.epoch(2)[0])


def crops_like(images: CachedImages, wanted: Tensor, fill: Tensor) -> list[tuple[int, bool]]:
    """Which images have a crop, and whether mirrored, that is the wanted one; by torch's own slices."""
    size = images.images.shape[-1]
    padded = fill.to(torch.uint8).expand(len(images), 3, size + 2 * MARGIN, size + 2 * MARGIN).clone()
    padded[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] = images.images
    found = []
    for is_mirrored in (False, True):
        seen = wanted.flip(-1) if is_mirrored else wanted
        for top in range(2 * MARGIN + 1):
            for left in range(2 * MARGIN + 1):
                same = (padded[:, :, top : top + size, left : left + size] == seen).flatten(1).all(1)
                found += [(int(place), is_mirrored) for place in same.nonzero()]
    return found


def test_a_training_is_what_torch_would_do_with_the_recipe(plan: Plan, sets: Sets) -> None:
    (key,) = plan.draw(1, 1, 0)
    spec, recipe = plan.spec(key), plan.recipe(seed=5)
    training = Training(spec, recipe, sets)
    assert training.run(7) == 7
    assert training.run() == training.steps - 7 == 13

    torch.manual_seed(5)
    network = MBConvNet(spec).to(memory_format=torch.channels_last)
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, 0.1, 0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    loss, normalise = nn.CrossEntropyLoss(label_smoothing=0.1), Normalise(Interface.of(spec), torch.device("cpu"))
    epochs = Epochs(sets.train, 16, 5, normalise.mean)
    for number in range(2):
        images, targets = epochs.epoch(number)
        for first in range(0, len(images), 16):
            part, classes = images[first : first + 16], targets[first : first + 16]
            optimizer.zero_grad()
            shown = resized(normalise(part), spec.input.height).contiguous(memory_format=torch.channels_last)
            loss(network(shown), classes).backward()
            optimizer.step()
            schedule.step()
    for (name, ours), theirs in zip(training.network.state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5, msg=name)


def test_a_network_trained_alone_learns_and_is_judged_by_the_test_images(plan: Plan, sets: Sets) -> None:
    (key,) = plan.draw(0, 1, 0)
    recipe = plan.recipe(epochs=12)
    reached = train_alone(plan.spec(key), recipe, sets)
    assert reached is not None
    assert 0.5 < reached.top1 <= 1  # chance is 0.1
    assert train_alone(plan.spec(key), recipe, sets, until=time.monotonic()) is None


def test_a_supernet_learns_and_scores_by_the_search_images(plan: Plan, sets: Sets) -> None:
    keys = plan.draw(0, 2, 0) + plan.draw(2, 1, 0)
    training = SupernetTraining(plan, plan.settings(recipe={"epochs": 20}), sets)
    before = training.score(plan, keys, plan.scoring, float("inf"))
    assert training.run() == training.steps == 200
    after = training.score(plan, keys, plan.scoring, float("inf"))
    assert len(before) == len(after) == 3
    assert fmean(before) < 0.2 < fmean(after)  # chance is 0.1
    assert training.score(plan, keys, plan.scoring, time.monotonic() - 1) == []


@pytest.mark.parametrize("sampler", ["hierarchical", "sandwich"])
def test_a_supernets_step_is_sgd_on_the_windows_of_its_networks(plan: Plan, sets: Sets, sampler: str) -> None:
    settings = plan.settings(sampler=sampler, recipe={"warmup_epochs": 0, "weight_decay": 0.01})
    training = SupernetTraining(plan, settings, sets)
    start = {name: tensor.clone() for name, tensor in training.supernet.state_dict().items()}
    training.run(1)

    other = ScaleNetSupernet(plan.opened, CLASSES).train()
    other.load_state_dict(start)
    images, targets = training.epochs.epoch(0)
    images, targets = training.normalise(images[:16]), targets[:16]
    sums: dict[nn.Parameter, Tensor] = {}
    used: dict[nn.Parameter, Tensor] = {}
    taught = None
    networks = training.sampler.sample(np.random.default_rng([0, 0, 0]))
    assert len(networks) == (4 if sampler == "sandwich" else 1)
    for candidate in networks:
        other.activate(plan.opened.network(candidate.kernels, candidate.scaling), "left")
        output = other(resized(images, candidate.scaling.resolution))
        if taught is None:
            loss = nn.functional.cross_entropy(output, targets, label_smoothing=0.1)
            taught = output.detach().softmax(1)
        else:
            loss = -(taught * output.log_softmax(1)).sum(1).mean()
        (loss / len(networks)).backward()  # type: ignore[no-untyped-call]
        for window in other.windows:
            if window.view.grad is not None:
                sums.setdefault(window.full, torch.zeros_like(window.full))[window.index] += window.view.grad
                used.setdefault(window.full, torch.zeros_like(window.full, dtype=torch.bool))[window.index] = True
                window.view.grad = None
    after = training.supernet.state_dict()
    for name, parameter in other.named_parameters():
        wanted = start[name].clone()
        if parameter in used:
            slope = sums[parameter] + (0.01 if parameter.ndim > 1 else 0.0) * wanted
            wanted -= 0.1 * torch.where(used[parameter], slope + 0.9 * slope, 0.0)  # Nesterov's, from rest
        torch.testing.assert_close(after[name], wanted, rtol=1e-3, atol=1e-5, msg=name)


def test_kernels_that_share_weights_are_the_middle_of_the_largest(plan: Plan, sets: Sets) -> None:
    """A narrow network of small kernels computes and learns with the middle of the wide layers' kernels alone."""
    training = SupernetTraining(plan, plan.settings(), sets, shared=True)
    supernet = training.supernet
    candidate = Candidate.from_key(plan.opened, "3-5.3@1.0x1.0x16")
    spec = plan.opened.spec(candidate.kernels, candidate.scaling, CLASSES)
    assert spec.network.type == "mbconv"
    alone = supernet.extract(spec)
    wide = dict(supernet.named_parameters())
    depthwise = [name for name in wide if "depthwise" in name and wide[name].ndim == 4]
    assert [wide[name].shape[-1] for name in depthwise] == [5] * len(depthwise)
    ours = [tensor for name, tensor in alone.named_parameters() if "depthwise" in name and tensor.ndim == 4]
    assert [tensor.shape[-1] for tensor in ours] == [3, 5, 3]
    first = wide[depthwise[0]]
    assert torch.equal(ours[0], first[: len(ours[0]), :, 1:4, 1:4])
    before = first.detach().clone()
    supernet.train().activate(spec.network)
    supernet(torch.randn(8, 3, 16, 16)).square().mean().backward()
    gradients = Gradients()
    gradients.add(supernet.windows)
    training.optimizer.param_groups[0]["lr"] = 0.1
    training.optimizer.update(gradients)
    changed = (first != before).flatten(0, 1).any(0)
    assert changed[1:4, 1:4].all()
    assert changed.sum() == 9


def test_the_mean_of_weights_follows_them(plan: Plan, sets: Sets, tmp_path: Path) -> None:
    training = SupernetTraining(plan, plan.settings(), sets, average=0.5)
    start = [weight.detach().clone() for weight in training.weights]
    training.run(1)
    share = max(0.5, 1 / 1.1)
    for mean, first, now in zip(training.mean, start, training.weights, strict=True):
        torch.testing.assert_close(mean, first + share * (now.detach() - first))
    training.save(tmp_path / "now.safetensors")
    training.save(tmp_path / "mean.safetensors", averaged=True)
    other = SupernetTraining(plan, plan.settings(), sets)
    for name, wanted in (("mean", training.mean), ("now", training.weights)):
        other.load(tmp_path / f"{name}.safetensors")
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(other.weights, wanted, strict=True))


@pytest.mark.parametrize("way", SMALL["study"]["supernets"], ids=lambda way: str(way["name"]))
def test_a_supernet_in_parts_is_the_one_trained_at_once(
    plan: Plan, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    given, forever = SupernetVariant(**way), float("inf")
    whole = tasks.supernet(sets, plan, given, tmp_path / "whole", forever)
    assert whole is not None
    assert whole["steps"] == 20
    monkeypatch.setattr(tasks, "PART", 0.02)
    left = []
    while part := tasks.supernet(sets, plan, given, tmp_path / "parts", forever):
        if "left" not in part:
            break
        left.append(part["left"])
        assert (tmp_path / "parts" / f"{given.name}.state.safetensors").exists()
    assert left
    assert left == sorted(left, reverse=True)
    assert part is not None
    assert part["steps"] == 20
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "parts").iterdir())  # no state is left
    for name in files:
        ours, theirs = (load_file(tmp_path / folder / name) for folder in ("parts", "whole"))
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, rtol=1e-3, atol=1e-5, msg=f"{name}: {key}")


def test_a_rate_is_that_of_steps_after_the_first(plan: Plan, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MEASURED", 0.3)
    found = tasks.rate(sets, plan, plan.study.supernets[0])
    assert found is not None
    assert found["images"] == len(sets.train)
    training = SupernetTraining(plan, plan.settings(), sets)
    training.run(5)
    before = training.seconds
    training.run(10)
    own = 160 / (training.seconds - before)
    assert own / 10 < found["images_per_second"] < 10 * own


def test_a_state_of_another_length_is_refused(plan: Plan, sets: Sets, tmp_path: Path) -> None:
    training = SupernetTraining(plan, plan.settings(), sets)
    training.run(1)
    training.save_state(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="found a training of 20 steps, expected 50"):
        SupernetTraining(plan, plan.settings(recipe={"epochs": 5}), sets).load_state(tmp_path / "state.safetensors")


def begin(plan: Plan, folder: Path, minutes: float) -> Run:
    workers = Workers(2, "cpu", folder / "images.safetensors")  # none is begun
    return Run(plan, workers, folder, folder, time.monotonic() + 60 * minutes, record=False)


def test_the_rate_of_the_first_supernet_decides_how_long_all_are_trained(tmp_path: Path) -> None:
    study = {**SMALL["study"], "at_once": 2}
    study["supernets"] = [{"name": "hss-0"}, {"name": "sandwich-0", "sampler": "sandwich", "recipe": {"epochs": 10}}]
    plan = Plan.load(**{**SMALL, "supernet": {**SMALL["supernet"], "epochs": 40}, "study": study})
    run = begin(plan, tmp_path, 10)
    assert next(iter(run._jobs(set()))).name == "rate"
    assert not any(job.name.startswith("supernet/") for job in run._jobs(set()))
    # 80 epochs of 160 images each, at 10 images a second in two processes, take 640 seconds; half of 600 are there
    share = run._share({"images_per_second": 10.0, "images": 160})
    assert share == pytest.approx(300 / 640, rel=0.01)
    run.results.add("rate", {"share": share})
    epochs = [way.recipe["epochs"] for way in begin(plan, tmp_path, 10).plan.study.supernets]
    assert epochs == [18, 4]
    assert begin(plan, tmp_path / "other", float("inf"))._share({"images_per_second": 0.1, "images": 160}) == 1


def test_few_supernets_are_trained_at_a_time_beside_networks_alone(plan: Plan, tmp_path: Path) -> None:
    run = begin(plan, tmp_path, 10)
    run.results.add("rate", {"share": 1.0})
    names = [job.name for job in run._jobs(set())]
    assert [name for name in names if name.startswith("supernet/")] == ["supernet/hss-0"]
    assert sum(name.startswith("alone/") for name in names) == 12
    assert not any(name.startswith("supernet/") for name in (job.name for job in run._jobs({"supernet/hss-0"})))


def test_networks_that_are_compared_are_trained_on_one_kind_of_device(plan: Plan, tmp_path: Path) -> None:
    run = begin(plan, tmp_path, 10)  # on a CPU
    found = {method: plan.draw(1, 2, seed) for seed, method in enumerate(METHODS[:2], 5)}
    keys = [keys[1] for keys in found.values()]
    for name, answer in {"rate": {"share": 1.0}, "supernet/hss-0": {}}.items():
        run.results.add(name, answer)
    for method, its in found.items():
        run.results.add(f"search/hss-0/{method}", {"found": its})

    def asked() -> list[str]:
        return [job.name for job in run._compared(METHODS[:2]) if job.name.startswith("alone/")]

    assert asked() == [f"alone/{key}/0" for key in keys]
    run.results.add(f"alone/{keys[1]}/0", {"top1": 0.5, "recorded": True})  # on a GPU
    assert asked() == [f"alone/{key}/1" for key in keys]
    run.results.add(f"alone/{keys[0]}/0", {"top1": 0.5, "recorded": True})
    assert asked() == [f"alone/{key}/0" for key in keys]  # both are done
    run.results.answers[f"alone/{keys[0]}/0"]["recorded"] = False
    run.results.add(f"alone/{keys[0]}/1", {"top1": 0.5, "recorded": True})
    assert asked() == []  # each seed was used on a GPU


def test_a_network_gets_its_second_seed_on_the_kind_of_device_of_the_first(plan: Plan, tmp_path: Path) -> None:
    run = begin(plan, tmp_path, 10)  # on a CPU
    (first, second), seeds = run.drawn[1][:2], plan.study.seeds
    run.results.add(f"alone/{first}/0", {"top1": 0.5, "recorded": True})
    run.results.add(f"alone/{second}/0", {"top1": 0.5, "recorded": False})
    asked = {job.name for job in run._jobs(set())}
    assert not asked & {f"alone/{first}/{seed}" for seed in seeds}
    assert asked >= {f"alone/{second}/{seed}" for seed in seeds[1:]}


def test_weights_that_are_gone_stop_only_what_needs_them(plan: Plan, tmp_path: Path) -> None:
    run = begin(plan, tmp_path, 10)
    run.results.add("rate", {"share": 1.0})
    run.results.add("supernet/hss-0", {})
    needing = {f"search/hss-0/{method}" for method in METHODS} | {"score/hss-0/drawn", "pool/0"}
    assert needing <= {job.name for job in run.wanted()}
    assert not needing & {job.name for job in run._jobs(set())}
    run.weights.mkdir()
    (run.weights / "hss-0.safetensors").write_bytes(b"")
    assert needing <= {job.name for job in run._jobs(set())}


def test_a_stopped_search_goes_on_with_its_scores(
    plan: Plan, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, forever, asked = plan.study.supernets[0], float("inf"), list[str]()
    path = tmp_path / f"{way.name}.safetensors"
    SupernetTraining(plan, plan.settings_of(way), sets).save(path)

    def made_up_score(self: SupernetTraining, plan: Plan, keys: list[str], *_: object) -> list[float]:
        if len(asked) == 2:
            asked.append("none: the time is over")
            return []
        asked.extend(keys)
        return [sum(map(ord, key)) % 97 / 100 for key in keys]

    monkeypatch.setattr(SupernetTraining, "score", made_up_score)
    assert tasks.search(sets, plan, way, path, "compound", 0, 6, forever) is None
    found = tasks.search(sets, plan, way, path, "compound", 0, 6, forever)
    assert found is not None
    assert found["evaluations"] == 6
    assert len(asked) == 7
    assert len(set(asked)) == 7  # nothing was scored twice
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_networks_spread_over_the_whole_range_of_scores() -> None:
    scores = dict(zip("abcdefg", (0.1, 0.11, 0.12, 0.13, 0.5, 0.89, 0.9), strict=True))
    assert spread(scores, scores.__getitem__, 3) == ["a", "e", "g"]
    assert sorted(spread(reversed(scores), scores.__getitem__, 7)) == list("abcdefg")


def test_steps_that_are_recorded_are_compared_with_others(plan: Plan, sets: Sets) -> None:
    found = self_test(sets, plan)
    assert found["alike"] > 0.999  # on a CPU none is recorded: both are the same
    assert found["moved"] > 0


def wait_for(sets: Sets, seconds: float, answer: int) -> int:
    time.sleep(seconds)
    return answer + len(sets.test)


def fail(sets: Sets) -> None:
    raise ValueError("as it should")


def die(sets: Sets) -> None:
    os._exit(3)


def sleep(sets: Sets, begun: Path) -> None:
    with replacing(begun) as temporary:
        temporary.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.slow
def test_processes_do_what_they_are_told_and_outlast_a_failure(tmp_path: Path) -> None:
    write_archive(tmp_path / "set.tar.gz", train=20, test=3)
    decode(tmp_path / "set.tar.gz", tmp_path / "images.safetensors", 1)
    with Workers(2, "cpu", tmp_path / "images.safetensors") as workers:
        assert workers.together([(0.0, 1), (0.0, 2)], wait_for, 60) == [7, 8]
        failed, late = workers.workers
        workers.tell(failed, fail)
        workers.tell(late, wait_for, 2.0, 3)
        assert "as it should" in str(workers.answer(failed, time.monotonic() + 30))
        assert isinstance(workers.answer(late, time.monotonic()), TimeoutError)
        assert workers.together([(0.0, 10), (0.0, 20)], wait_for, 60) == [16, 26]  # what was late is not taken for it
        assert workers.mend() == 0
        workers.tell(failed, die)
        assert "ended" in str(workers.answer(failed, time.monotonic() + 30))
        assert workers.mend() == 1
        assert workers.together([(0.0, 1), (0.0, 2)], wait_for, 60) == [7, 8]


@pytest.mark.slow
def test_no_process_outlives_a_killed_run(tmp_path: Path) -> None:
    write_archive(tmp_path / "set.tar.gz", train=20, test=3)
    decode(tmp_path / "set.tar.gz", tmp_path / "images.safetensors", 1)
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from benchmarks.evidence.workers import Workers\n"
        "from tests.benchmarks.test_evidence import sleep\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    with Workers(1, 'cpu', folder / 'images.safetensors') as workers:\n"
        "        workers.tell(workers.workers[0], sleep, folder / 'begun')\n"
        "        time.sleep(600)\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        while not (tmp_path / "begun").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    assert ends(int((tmp_path / "begun").read_text()))


def test_without_the_multi_process_service_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = dict(os.environ)
    with multi_process_service(tmp_path / "mps", True) as words:
        assert words == "nvidia-cuda-mps-control is not there"
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with multi_process_service(tmp_path / "mps", True) as words:
        assert "nvidia-cuda-mps-control gave 3" in words
        assert dict(os.environ) == before


@pytest.mark.nightly
def test_the_smoke_run_measures_on_the_cpu(tmp_path: Path) -> None:
    write_archive(tmp_path / "set.tar.gz", train=100, test=10)
    (tmp_path / "plan.yaml").write_text(json.dumps(SMALL))  # JSON is YAML
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.evidence",
        "smoke",
        "--seconds",
        "0.05",
    ]
    words = {"data": "set.tar.gz", "run": "run", "out": "out", "plan": "plan.yaml"}
    command += [word for name, path in words.items() for word in (f"--{name}", str(tmp_path / path))]
    command += ["--processes", "2", "--minutes", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "smoke.json").read_text())["rows"]
    assert {row["what"] for row in rows} == {"alone", "supernet", "pilot"}
    assert all(row["images_per_second"] > 0 and not row["trouble"] for row in rows if row["what"] != "pilot")
    assert all(row["top1"] >= 0 for row in rows if row["what"] == "pilot")


@pytest.mark.nightly
def test_a_run_that_was_stopped_goes_on_to_the_end(tmp_path: Path) -> None:
    write_archive(tmp_path / "set.tar.gz", train=100, test=10)
    study = {**SMALL["study"], "drawn": 1, "pool": 2, "supernets": SMALL["study"]["supernets"][:1], "evaluations": 6}
    (tmp_path / "plan.yaml").write_text(json.dumps({**SMALL, "study": study}))
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.evidence", "run", "--processes", "2"]
    words = {"data": "set.tar.gz", "run": "run", "out": "out", "plan": "plan.yaml"}
    command += [word for name, path in words.items() for word in (f"--{name}", str(tmp_path / path))]
    path = tmp_path / "out" / "results.jsonl"
    for minutes, said in (("0", "stopped by the clock"), ("5", "all is done")):
        assert not path.exists()
        done = subprocess.run([*command, "--minutes", minutes], capture_output=True, text=True, timeout=280, check=True)
        assert said in done.stdout
    rows = {row["job"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert path.read_text().count("\n") == len(rows)
    searches = {f"search/hss-0/{method}" for method in METHODS}
    halves = ("score/hss-0/drawn", "score/hss-0/chosen")
    scores = {f"{half}{way}" for half in halves for way in ("", "/averaged", "/statistics")}
    assert {"rate", "supernet/hss-0", "pool/0", "pool/1", "pool/2"} | searches | scores <= set(rows)
    trained = {tuple(name.split("/")[1:]) for name in rows if name.startswith("alone/")}
    wanted = {key for name in searches for key in rows[name]["found"][1:]}
    wanted |= {key for half in halves for key in rows[half]["scores"]}
    assert trained == {(key, seed) for key in wanted for seed in "01"}
    assert {name.split("/")[1] for name in rows if name.startswith("longer/")} == wanted
    assert all(len(rows[half]["scores"]) == 3 for half in halves)
    again = begin(Plan.load(**{**SMALL, "study": study}), tmp_path / "run", 5)
    assert list(again._jobs(set())) == []


@pytest.mark.gpu
def test_recorded_steps_are_those_that_are_not_recorded(plan: Plan, sets: Sets) -> None:
    device = torch.device("cuda")
    parts = (CachedImages(part.images.to(device), part.targets.to(device), ()) for part in vars(sets).values())
    on_gpu = Sets(*parts)
    (key,) = plan.draw(1, 1, 0)
    torch.backends.cudnn.deterministic = True
    with on_one_stream(device):
        trainings = [Training(plan.spec(key), plan.recipe(), on_gpu, record) for record in (True, False)]
        for training in trainings:
            training.run(12)
    torch.backends.cudnn.deterministic = False
    recorded, plain = trainings
    assert recorded.recorded, recorded.trouble
    theirs = plain.network.state_dict()
    for name, ours in recorded.network.state_dict().items():
        torch.testing.assert_close(ours, theirs[name], rtol=1e-2, atol=1e-3, msg=name)
