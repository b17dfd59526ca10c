"""Training of the supernet: it learns, resumes to the bit, and two processes are one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.core.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.core.run_folder import LOCK, hold
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.supernet.scalenet.train import ScaleNetTrainer, train_scalenet
from scalenet_zoo.supernet.summary import SupernetSummary
from scalenet_zoo.training.checkpoint import checkpoints
from scalenet_zoo.training.log import read_log
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.zoo.weights_files import read_weights
from tests.helpers.processes import run_processes
from tests.helpers.shapes import Shapes
from tests.helpers.spaces import TINY

RECIPE: dict[str, Any] = {"epochs": 3, "batch_size": 8, "lr": 0.05, "scale": [0.8, 1.0], "hflip": 0.0}
DATA = Shapes("classification", 40)
HERE = LoopOptions(workers=0, cpu=True)


def settings(recipe: dict[str, Any] | None = None, **values: Any) -> ScaleNetSettings:
    return ScaleNetSettings(recipe={**RECIPE, **(recipe or {})}, **values)


def supernet(seed: int = 0) -> ScaleNetSupernet:
    torch.manual_seed(seed)
    return ScaleNetSupernet(TINY, 3)


def run(
    folder: Path, chosen: ScaleNetSettings | None = None, save_every: int | None = None, **on_step: Any
) -> SupernetSummary:
    options = LoopOptions(workers=0, save_every=save_every, log_interval=1, cpu=True)
    return train_scalenet(supernet(), chosen or settings(), DATA, folder, options, **on_step)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "supernet.safetensors")[0]


def assert_equal(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert losses(one) == losses(other)


@pytest.mark.parametrize("sampler", ["hierarchical", "sandwich", pytest.param("uniform", marks=pytest.mark.slow)])
def test_it_learns(sampler: Any, tmp_path: Path) -> None:
    summary = run(tmp_path, settings({"epochs": 12, "smoothing": 0.0}, sampler=sampler))
    assert summary.steps == 60
    assert np.mean(losses(tmp_path)[-10:]) < 0.75 * np.mean(losses(tmp_path)[:5])
    networks = 4 if sampler == "sandwich" else 1
    assert summary.images == 60 * 8 * networks
    assert summary.image_macs > 0
    line = read_log(tmp_path)[-1]
    assert {"epoch", "loss", "lr", "images_per_second", "macs"} <= line.keys()
    again = supernet(seed=5)
    assert load_supernet(again, tmp_path) == summary
    saved = weights(tmp_path)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in again.state_dict().items())


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("stop", "recipe", "values"),
    [
        (7, {"mixup": 0.2}, {}),
        pytest.param(
            *(4, {"clip_grad": 1.0, "amp": "bf16"}, {"sampler": "sandwich", "resolution": "random"}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    stop: int, recipe: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    chosen = settings(recipe, **values)

    def on_step(what: str, done: int, total: int) -> None:
        if done == stop:
            raise StoppedError

    whole = run(tmp_path / "whole", chosen)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", chosen, save_every=2, on_step=on_step)
    resumed = run(tmp_path / "stopped", chosen, save_every=2)
    assert_equal(tmp_path / "whole", tmp_path / "stopped")
    assert resumed.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})
    assert run(tmp_path / "stopped", chosen) == resumed  # nothing is missing: nothing is done


def test_a_folder_is_one_run_s_however_it_is_called(tmp_path: Path) -> None:
    """A search holds RUN, its supernet's training RUN/supernet: these do not exclude each other."""
    refused = []

    def on_step(what: str, done: int, total: int) -> None:
        try:
            run(tmp_path / "supernet", settings({"epochs": 1}))
        except TrainingError as error:
            refused.append(str(error))

    with hold(tmp_path):
        run(tmp_path / "supernet", settings({"epochs": 1}), on_step=on_step)
    assert refused == [f"{tmp_path / 'supernet'}: found another process at work in it, expected one at a time"] * 5
    assert not (tmp_path / "supernet" / LOCK).exists()


PROGRAM = """
import sys
from pathlib import Path
import torch
from tests.supernet.test_scalenet_train import run, settings
torch.set_num_threads(1)
run(Path(sys.argv[1]), settings({"epochs": 2}), save_every=1)
"""


def start(program: Path, folder: Path) -> "subprocess.Popen[str]":
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, program, folder],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    finish(start(tmp_path / "program.py", tmp_path / "whole"))
    process = start(tmp_path / "program.py", tmp_path / "killed")
    step = int(np.random.default_rng().integers(1, 9))
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "killed")) < step:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finish(start(tmp_path / "program.py", tmp_path / "killed"))
    assert_equal(tmp_path / "whole", tmp_path / "killed")


def _train_in_double(rank: int, world: int, folder: Path, chosen: ScaleNetSettings) -> None:
    net = supernet().double()
    net.register_forward_pre_hook(lambda module, images: tuple(image.double() for image in images))
    train_scalenet(net, chosen, DATA, folder, LoopOptions(workers=0, log_interval=1, cpu=True))


@pytest.mark.distributed
def test_two_processes_with_half_the_batch_are_one_with_the_whole(tmp_path: Path) -> None:
    run_processes(_train_in_double, 1, tmp_path / "one", settings({"epochs": 2}))
    run_processes(_train_in_double, 2, tmp_path / "two", settings({"epochs": 2}))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-6)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.distributed
def test_two_processes_may_each_work_on_a_network_of_their_own(tmp_path: Path) -> None:
    """A step follows the mean of both gradients, as this process alone takes it."""
    chosen = settings({"epochs": 2}, processes="different")
    run_processes(_train_in_double, 2, tmp_path / "two", chosen)
    summary = SupernetSummary.load(tmp_path / "two" / "summary.json")
    assert summary.images == summary.steps * 8

    net = supernet().double().train()
    trainer = ScaleNetTrainer(net, chosen, DATA, tmp_path / "one", HERE)
    for epoch in range(2):
        for batch in trainer._batches(epoch, 0):
            trainer.scheduler.step_update(trainer.step)
            gradients = Gradients()
            for rank in range(2):
                (spec,) = trainer._draw(trainer.step, rank)
                trainer.activate(spec)
                half = slice(4 * rank, 4 * rank + 4)
                images = trainer._resized(batch["image"][half], spec.input.height).double()
                (trainer.loss(net(images), batch["target"][half]) / 2).backward()  # type: ignore[no-untyped-call]
                gradients.add(net.windows)
            trainer.optimizer.update(gradients)
            trainer.step += 1
    two = weights(tmp_path / "two")
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(two[name], parameter.detach(), rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_a_gpu_trains(amp: str, tmp_path: Path) -> None:
    net = supernet()
    train_scalenet(net, settings({"amp": amp, "epochs": 12}), DATA, tmp_path, LoopOptions(workers=0, log_interval=1))
    assert next(net.parameters()).device.type == "cuda"
    assert np.mean(losses(tmp_path)[-10:]) < np.mean(losses(tmp_path)[:5])


@pytest.mark.parametrize("last", [True, False])
def test_channels_come_first_on_a_gpu(last: bool, tmp_path: Path) -> None:
    trainer = ScaleNetTrainer(supernet(), settings({"channels_last": last}), DATA, tmp_path, HERE)
    assert trainer.memory_format == (torch.channels_last if last else torch.contiguous_format)
    trainer.device = torch.device("cuda")  # a stand-in: most machines that run this test have no GPU
    assert trainer.choose_layout() == torch.contiguous_format


def test_networks_of_a_step_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    def drawn(step: int, seed: int = 0) -> str:
        chosen = settings({"seed": seed}, resolution="random")
        trainer = ScaleNetTrainer(supernet(), chosen, DATA, tmp_path, HERE)
        return trainer.draw(step)[0][0].to_json()

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(5), drawn(3, seed=1)}) == 4


@pytest.mark.parametrize("step", [2, 3])
def test_the_first_network_learns_the_task_and_the_others_its_answer(step: int, tmp_path: Path) -> None:
    net, chosen = supernet().train(), settings({"smoothing": 0.1}, sampler="sandwich")
    trainer = ScaleNetTrainer(net, chosen, DATA, tmp_path, HERE)
    trainer.step = step
    batch, (networks,) = next(trainer._batches(0, 0)), trainer.draw(step)
    alone = [net.extract(spec, "right" if step % 2 else "left") for spec in networks]
    found = list(trainer.losses(batch["image"], batch["target"], networks))
    assert len(found) == 4
    assert len({spec.input.height for spec in networks}) > 1
    answer = None
    for loss, network, spec in zip(found, alone, networks, strict=True):
        size = (spec.input.height, spec.input.width)
        output = network(F.interpolate(batch["image"], size=size, mode="bilinear", antialias=True))
        if answer is None:
            answer = output.detach().softmax(1)
            expected = F.cross_entropy(output, batch["target"], label_smoothing=0.1)
        else:
            expected = F.cross_entropy(output, answer)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_the_resolution_is_the_stage_s_or_any(tmp_path: Path) -> None:
    def heights(resolution: Any) -> set[int]:
        """Of images for the largest network."""
        trainer = ScaleNetTrainer(supernet(), settings(resolution=resolution, sampler="sandwich"), DATA, tmp_path, HERE)
        return {trainer.draw(step)[0][0].input.height for step in range(20)}

    assert heights("stage") == {40}
    assert heights("random") == {24, 32, 40}


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "values", "complaint"),
    [
        ({"opt": "adamw"}, {}, "supernet: recipe: opt: found adamw, expected sgd for a supernet"),
        ({"amp": "fp16"}, {}, "supernet: recipe: amp: found fp16, expected bf16 or no"),
        ({"model_ema_decay": 0.9}, {}, "model_ema_decay: found 0.9, expected None"),
        ({"speed": 1}, {}, "supernet: recipe: speed: found no such field"),
        ({}, {"sampler": "uniform", "stage_probabilities": (1.0,)}, "found some, expected none for the uniform"),
        ({}, {"stage_probabilities": (1.0,)}, r"stage_probabilities: found \[1.0\], expected 3 numbers"),
        ({"batch_size": 64}, {}, "shapes: found 40 images of train, expected at least a batch of 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    recipe: dict[str, Any], values: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint):
        run(tmp_path, settings(recipe, **values))
    assert not (tmp_path / "settings.json").exists()


def test_the_smallest_images_are_enough_for_batch_norm(tmp_path: Path) -> None:
    """At 8 pixels, a stride of 8 leaves one value per channel of a single image; at 32 pixels, more."""
    values = TINY.model_dump(mode="json")
    values["scaling"][0]["resolution"] = [8]
    network = ScaleNetSupernet(Space.from_values(values, "small"), 3)
    with pytest.raises(InputError, match="batch_size: found 1 .*expected 2 or more: .* a single image of 8x8"):
        train_scalenet(network, settings({"batch_size": 1}), DATA, tmp_path, HERE)


def test_a_run_does_not_resume_with_other_settings(tmp_path: Path) -> None:
    run(tmp_path, settings({"epochs": 1}))
    with pytest.raises(TrainingError, match=r"recipe.lr: found 0.05 in this run, expected 0.1, as now given"):
        run(tmp_path, settings({"epochs": 1, "lr": 0.1}))
    with pytest.raises(TrainingError, match=r"sampler: found 'hierarchical' in this run, expected 'uniform'"):
        run(tmp_path, settings({"epochs": 1}, sampler="uniform"))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="found the loss nan near step .*: a lower lr"):
        run(tmp_path, settings({"lr": 1e15, "epochs": 4}))


def test_a_damaged_supernet_is_refused(tmp_path: Path) -> None:
    run(tmp_path, settings({"epochs": 1}))
    (newest,) = checkpoints(tmp_path)
    assert json.loads((newest / "training.json").read_text())["trained"] == TINY.hash
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"supernet.safetensors: is damaged or missing"):
        load_supernet(supernet(), tmp_path)
    other = Space.from_values({**TINY.model_dump(mode="json"), "divisor": 2}, "other")
    with pytest.raises(WeightsError, match="found a supernet of another space"):
        load_supernet(ScaleNetSupernet(other, 3), tmp_path)
