"""Training: it learns, it resumes to the bit, it computes what timm's pieces do, and many processes are one."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from scalenet_zoo import create_model
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task, spec_of
from scalenet_zoo.core.errors import InputError, OutputError, TrainingError, WeightsError
from scalenet_zoo.core.files import SCRATCH
from scalenet_zoo.core.run_folder import LOCK, hold
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.training.accelerator import alone_in
from scalenet_zoo.training.checkpoint import (
    Checkpoint,
    Progress,
    checkpoints,
    load_checkpoint,
    load_newest,
    newest,
    read_state,
    save_state,
)
from scalenet_zoo.training.doubts import doubts, guessing
from scalenet_zoo.training.log import read_log
from scalenet_zoo.training.losses import task_loss, teacher_loss
from scalenet_zoo.training.optimisation import check_batch_norm, make_scheduler
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Fitted, Options, Trainer, train_network
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.pretrained import from_timm
from scalenet_zoo.zoo.weights_files import read_weights
from tests.helpers.data_files import spoil, write_image_folder, write_shards
from tests.helpers.processes import launch_two, run_processes
from tests.helpers.shapes import SPECS, Shapes

QUICK = Recipe(epochs=3, batch_size=8, lr=3e-3, warmup_epochs=0.0, scale=(0.5, 1.0), clip_grad=5.0)
HERE = Options(workers=0, log_interval=1, cpu=True)


def altered(recipe: Recipe, **values: Any) -> Recipe:
    """A recipe with other values."""
    return recipe.replace(values)


def tiny(task: Task, classes: int, seed: int = 0, **kwargs: Any) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(SPECS[task], num_classes=classes, **kwargs)


def run(folder: Path, task: Task = "classification", recipe: Recipe = QUICK, count: int = 40, **kwargs: Any) -> Fitted:
    data = Shapes(task, count), Shapes(task, 16, "val")
    network = tiny(task, len(data[0].labels.names), drop_path_rate=recipe.drop_path)
    return train_network(network, recipe, *data, folder, **{"options": HERE, **kwargs})


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_each_task_learns_and_leaves_a_network_that_says_how(task: Task, tmp_path: Path) -> None:
    recipe = altered(QUICK, epochs=4, lr=5e-3, hflip=0.5)
    trained = run(tmp_path / "run", task, recipe, count=64)
    history = losses(tmp_path / "run")
    assert len(history) == 4 * 8
    assert np.mean(history[-8:]) < 0.8 * np.mean(history[:4])
    values = [line[trained.metric] for line in read_log(tmp_path / "run") if line["kind"] == "val"]
    assert (trained.best, trained.epoch) == (max(values), 1 + values.index(max(values)))
    best: Any = create_model(f"local-dir:{tmp_path / 'run' / 'best'}")
    names = Shapes(task, 1).labels.names
    assert tuple(best.pretrained_cfg["labels"]["names"]) == names
    training = best.spec.provenance.details["training"]
    assert training["data"] == "shapes"
    assert training["recipe"]["lr"] == 5e-3
    assert ("smoothing" in training["recipe"]) is (task == "classification")
    assert ("heatmap_sigma" in training["recipe"]) is (task == "pose")
    measured = {result.metric: result for result in best.spec.provenance.results}
    assert measured[trained.metric].value == trained.best
    assert measured[trained.metric].origin == "measured"
    for name in ("curves.png", "log.jsonl", "recipe.yaml", "run.json", "tensorboard"):
        assert (tmp_path / "run" / name).exists()


def test_everything_at_once(tmp_path: Path) -> None:
    """Mixup, cutmix, smoothing, RandAugment, erasing, EMA, drop path, accumulation, bf16, layer decay, a teacher."""
    recipe = altered(
        QUICK, mixup=0.2, cutmix=1.0, smoothing=0.1, aa="rand-m5-mstd0.5", reprob=0.3, color_jitter=0.2,
        model_ema_decay=0.9, drop=0.1, drop_path=0.1, grad_accum_steps=2, amp="bf16", distill_temperature=2.0,
        layer_decay=0.8, channels_last=False,
    )  # fmt: skip
    trained = run(tmp_path, "classification", recipe, teacher=tiny("classification", 3, seed=1))
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.metric == "top1"


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_everything_of_dense_tasks_at_once(task: Task, tmp_path: Path) -> None:
    recipe = altered(
        QUICK, rotation=20.0, resize=(0.7, 1.4), hflip=0.5, color_jitter=0.3, train_size=(32, 48), layer_decay=0.9,
        model_ema_decay=0.9, drop=0.1, drop_path=0.1, grad_accum_steps=2, amp="bf16", sched="poly", opt="sgd",
        ohem_threshold=0.7 if task == "segmentation" else None,
    )  # fmt: skip
    trained = run(tmp_path, task, recipe, teacher=tiny(task, len(Shapes(task, 1).labels.names), seed=1))
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.metric == {"segmentation": "miou", "pose": "ap"}[task]


@pytest.mark.nightly
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        run(tmp_path / name, recipe=altered(QUICK, epochs=1, torchcompile=compiled))
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-3)


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_caller_s_network_keeps_its_own_description(average: float | None, tmp_path: Path) -> None:
    """Though the data's labels are others: what the run writes has those, and says how it was trained."""
    network: Any = tiny("classification", 3)
    network.pretrained_cfg["labels"] = Labels(names=("green", "dark", "blue")).to_cfg()
    cfg, spec = network.pretrained_cfg, network.spec
    before = deepcopy((cfg, spec))
    data = Shapes("classification", 16), Shapes("classification", 8, "val")
    trained = train_network(network, altered(QUICK, epochs=1, model_ema_decay=average), *data, tmp_path, HERE)
    assert network.pretrained_cfg is network.default_cfg is cfg
    assert network.spec is spec
    assert (cfg, spec) == before
    best, last = (create_model(folder) for folder in (tmp_path / "best", checkpoints(tmp_path)[0]))
    for written in (best, last):
        assert Interface.of_network(written).labels.names == ("dark", "red", "green")
        assert spec_of(written).provenance.details["training"]["steps"] == 2  # type: ignore[index,call-overload]
    measured = {result.metric: result.value for result in spec_of(best).provenance.results}
    assert measured == {"top1": trained.best, "ece": trained.last["ece"]}
    assert not spec_of(last).provenance.results
    if average is None:  # the caller's network is the one that was trained
        ours = network.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in best.state_dict().items())


# --- the same as others compute -------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weight", [0.0, 2.5])
@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_a_step_follows_the_task_s_loss_and_the_teacher_s(
    task: Task, weight: float, parts: int, tmp_path: Path
) -> None:
    recipe = Recipe(
        batch_size=4 * parts, grad_accum_steps=parts, distill_weight=weight, distill_temperature=3.0, opt="sgd",
        ohem_threshold=0.4 if task == "segmentation" else None, smoothing=0.2, channels_last=False,
    )  # fmt: skip
    classes = len(Shapes(task, 1).labels.names)
    network, teacher = tiny(task, classes), tiny(task, classes, seed=1).train()
    alone, judge = deepcopy(network).train(), deepcopy(teacher).eval()
    trainer = Trainer(network, recipe, Shapes(task, 8), Shapes(task, 4, "val"), tmp_path, HERE, teacher)
    batches = list(trainer._batches(0, 0))[:parts]
    trainer.model.train()
    found, _ = trainer.take_step(iter(batches))
    expected = torch.zeros(())
    for batch in batches:
        output = alone(batch["image"])
        with torch.no_grad():
            taught = judge(batch["image"])
        loss = task_loss(task, recipe)(output, batch["target"]) + weight * teacher_loss(task, 3.0)(output, taught)
        expected = expected + loss / parts
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    expected.backward()  # type: ignore[no-untyped-call]
    for (name, ours), theirs in zip(network.named_parameters(), alone.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
    after = teacher.state_dict()
    for name, tensor in judge.state_dict().items():
        assert torch.equal(after[name], tensor), name  # it does not learn


@pytest.mark.parametrize("norm", [1e-3, 1e6])
def test_gradients_are_shortened_to_a_norm(norm: float, tmp_path: Path) -> None:
    network, recipe = tiny("classification", 3), altered(QUICK, opt="sgd", clip_grad=norm)
    trainer = Trainer(
        network, recipe, Shapes("classification", 8), Shapes("classification", 4, "val"), tmp_path, HERE, None
    )
    trainer.take_step(trainer._batches(0, 0))
    found = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]).item()
    assert found == pytest.approx(norm, rel=1e-2) if norm < 1 else 1e-3 < found < 1e6


def test_twenty_steps_are_timms(tmp_path: Path) -> None:
    """Our training of efficientnet_b0 and of timm's own model: same recipe, data order and seed."""
    recipe = Recipe(epochs=10, batch_size=4, lr=1e-3, warmup_epochs=2, smoothing=0.1, sched="cosine", opt="rmsproptf")
    torch.manual_seed(0)
    theirs = timm.create_model("efficientnet_b0", num_classes=3)
    ours = create_model("efficientnet_b0", num_classes=3, img_size=64)
    ours.load_state_dict(from_timm(theirs.state_dict(), ours))
    trainer = Trainer(
        ours, recipe, Shapes("classification", 8), Shapes("classification", 4, "val"), tmp_path, HERE, None
    )
    assert trainer.steps_per_epoch == 2
    trainer.take_up(resume=False)

    theirs.train().to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(theirs, "rmsproptf", 1e-3, recipe.weight_decay, recipe.momentum)
    scheduler, _ = timm.scheduler.create_scheduler_v2(
        optimizer, "cosine", num_epochs=10, warmup_epochs=2, warmup_lr=recipe.warmup_lr,
        step_on_epochs=False, updates_per_epoch=2,
    )  # fmt: skip
    criterion = timm.loss.LabelSmoothingCrossEntropy(0.1)
    ours.train()
    for step in range(20):
        if step % 2 == 0:
            batches = list(trainer._batches(step // 2, 0))
        batch = batches[step % 2]
        scheduler.step_update(step)
        loss = criterion(theirs(batch["image"].contiguous(memory_format=torch.channels_last)), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trainer.scheduler.step_update(step)
        found, _ = trainer.take_step(iter([batch]))
        trainer.step += 1
        assert found.item() == pytest.approx(loss.item(), rel=1e-4), step


def test_the_moving_average_follows_as_timm_s_with_its_warm_up(tmp_path: Path) -> None:
    network, recipe = tiny("classification", 3), altered(QUICK, model_ema_decay=0.9)
    data = Shapes("classification", 16), Shapes("classification", 4, "val")
    trainer = Trainer(network, recipe, *data, tmp_path, HERE, None)
    batches, weights = trainer._batches(0, 0), []
    for step in range(2):
        trainer.step = step
        trainer.take_step(batches)
        weights.append(network.classifier.weight.detach().clone())  # type: ignore[union-attr,operator]
    share = 1 - 2 ** (-2 / 3)  # of what was before, in the second step; in the first none
    average = share * weights[0] + (1 - share) * weights[1]
    torch.testing.assert_close(trainer.result.classifier.weight, average)  # type: ignore[union-attr]


# --- stopped and resumed --------------------------------------------------------------------------

WHOLE = altered(QUICK, epochs=4, drop=0.2, drop_path=0.2, model_ema_decay=0.9, mixup=0.4, reprob=0.5, hflip=0.5)


def weights(run_folder: Path) -> dict[str, Tensor]:
    """What a run ended with: the last checkpoint's network and moving average, and the best network."""
    network = tiny("classification", 3)
    last = checkpoints(run_folder)[0]
    load_checkpoint(last, network)
    found = {f"trained.{key}": value for key, value in network.state_dict().items()}
    for name, path in (("average", last), ("best", run_folder / "best")):
        found |= {f"{name}.{key}": value for key, value in read_weights(path / "model.safetensors")[0].items()}
    return found


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


class StoppedError(Exception):
    pass


def stopper(step: int) -> Any:
    def on_step(what: str, done: int, total: int) -> None:
        if done == step:
            raise StoppedError

    return on_step


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (3, {}),
        (5, {"opt": "rmsproptf", "sched": "step", "decay_epochs": 0.6}),
        (8, {"opt": "lamb", "sched": "multistep", "decay_milestones": (1.0, 2.0)}),
        (13, {"opt": "lookahead_sgd", "sched": "poly", "grad_accum_steps": 2}),
        (19, {"opt": "adafactor", "sched": "none", "model_ema_decay": None}),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(step: int, changes: dict[str, Any], tmp_path: Path) -> None:
    recipe, options = altered(WHOLE, **changes), replace(HERE, save_every=2)
    run(tmp_path / "whole", recipe=recipe, options=options)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", recipe=recipe, options=options, on_step=stopper(step))
    run(tmp_path / "stopped", recipe=recipe, options=options, resume=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


def test_workers_do_not_change_a_run(tmp_path: Path) -> None:
    run(tmp_path / "none", recipe=WHOLE)
    run(tmp_path / "two", recipe=WHOLE, options=replace(HERE, workers=2))
    assert_equal(weights(tmp_path / "none"), weights(tmp_path / "two"))


TRAIN = (
    "train", "scalenet_s0", "--data", "digits", "--size", "32", "--cpu", "--workers", "1", "--limit", "96",
    "--epochs", "3", "--batch-size", "32", "--save-every", "1", "--log-interval", "1",
    "--model-ema-decay", "0.9", "--drop-path", "0.1",
)  # fmt: skip


def cli(*arguments: str, launcher: Sequence[str] = (), **kwargs: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "scalenet_zoo", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **kwargs,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = cli(*TRAIN, "--output", str(tmp_path / "whole"))
    killed = cli(*TRAIN, "--output", str(tmp_path / "killed"), start_new_session=True)
    step = int(np.random.default_rng().integers(1, 8))
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "killed")) < step:
        assert killed.poll() is None or time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = cli(*TRAIN, "--output", str(tmp_path / "killed"), "--resume")
    for process in (whole, again):
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "best top1" in out
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed"), step
    for name in ("model.safetensors", "training.safetensors"):
        one, other = (checkpoints(tmp_path / run)[0] / name for run in ("whole", "killed"))
        assert_equal(read_weights(one)[0], read_weights(other)[0])


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["no", "bf16", "fp16"])
def test_a_gpu_trains_and_resumes(amp: Any, tmp_path: Path) -> None:
    recipe, options = altered(WHOLE, amp=amp), replace(HERE, cpu=False, workers=2)
    with pytest.raises(StoppedError):
        run(tmp_path, recipe=recipe, options=options, on_step=stopper(8))
    trained = run(tmp_path, recipe=recipe, options=options, resume=True)
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.best > 0.4


# --- many processes -------------------------------------------------------------------------------


def _train_in_double(rank: int, world: int, task: Task, folder: Path) -> None:
    """In double precision, since batch norms of a few pixels amplify the rounding of a sum in another order."""
    data = Shapes(task, 40), Shapes(task, 16, "val")
    network = tiny(task, len(data[0].labels.names)).double()
    network.register_forward_pre_hook(lambda module, images: tuple(image.double() for image in images))
    train_network(network, altered(QUICK, lr=1e-2, opt="sgd"), *data, folder, HERE)


@pytest.mark.distributed
@pytest.mark.parametrize(
    "task", ["classification", *(pytest.param(task, marks=pytest.mark.nightly) for task in ("segmentation", "pose"))]
)
def test_two_processes_with_half_the_batch_are_one_with_the_whole(task: Task, tmp_path: Path) -> None:
    run_processes(_train_in_double, 1, task, tmp_path / "one")
    run_processes(_train_in_double, 2, task, tmp_path / "two")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    logs = [[line for line in read_log(tmp_path / name) if line["kind"] == "val"] for name in ("one", "two")]
    assert [line.keys() for line in logs[0]] == [line.keys() for line in logs[1]]


@pytest.mark.distributed
def test_a_process_that_ends_before_a_collective_has_ended_ends_well(tmp_path: Path) -> None:
    # The last collective of the first process ends while Python deletes its modules. Its thread then frees tensors.
    program = tmp_path / "program.py"
    program.write_text(
        "import time\nfrom pathlib import Path\nimport torch\n"
        "from scalenet_zoo.training.accelerator import make_accelerator\n"
        "from scalenet_zoo.training.recipe import Recipe\n"
        "class Last:\n"
        f"    ends, sleep = Path({str(tmp_path / 'ends')!r}), staticmethod(time.sleep)\n"
        "    def __del__(self):\n"
        "        self.ends.touch()\n"
        "        self.sleep(1)\n"
        "first = make_accelerator(Recipe(), cpu=True).process_index == 0\n"
        "deadline = time.monotonic() + 2\n"
        "while not first and not Last.ends.exists() and time.monotonic() < deadline:\n"
        "    time.sleep(0.01)\n"
        "shares = [torch.zeros(1), torch.zeros(1)]\n"
        "work = torch.distributed.all_gather(shares, torch.ones(1), async_op=True)\n"
        "if first:\n"
        "    last = Last()\n"
        "else:\n"
        "    work.wait()\n"
        "del shares, work\n"
    )
    launch_two(program)


# --- what is refused ------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "whole", recipe=WHOLE)
    with pytest.raises(StoppedError):
        run(tmp_path / "run", recipe=WHOLE, on_step=stopper(18))
    newest, _ = checkpoints(tmp_path / "run")
    content = (newest / "training.safetensors").read_bytes()
    (newest / "training.safetensors").write_bytes(content[:-7] + b"damaged")
    run(tmp_path / "run", recipe=WHOLE, resume=True)
    assert f"{newest / 'training.safetensors'}: is damaged; an older checkpoint is used instead" in caplog.text
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of the steps 5 and 10."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StoppedError):
        run(folder, on_step=stopper(12))
    assert [int(path.name) for path in checkpoints(folder)] == [10, 5]
    return folder


@pytest.fixture
def resumable(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def changed(content: bytes, before: bytes, after: bytes) -> bytes:
    assert content.count(before) > 0
    return content.replace(before, after, 1)


DAMAGE = {
    "another number": ("training.json", lambda content: changed(content, b'["lr", 0.00', b'["lr", 0.90')),
    "another word": ("training.json", lambda content: changed(content, b'"dict"', b'"dicT"')),
    "another tensor": ("training.json", lambda content: changed(content, b'.exp_avg"', b'.exp_avG"')),
    "another type": ("training.json", lambda content: changed(content, b'"rest": {', b'"rest": [], "was": {')),
    "another version": ("training.json", lambda content: changed(content, b'"version": 2', b'"version": 1')),
    "another architecture": ("training.json", lambda content: changed(content, b'"trained": "', b'"trained": "0')),
    "a list": ("training.json", lambda content: b"[]"),
    **{
        f"{what} {name}": (name, damage)
        for name in ("training.json", "training.safetensors", "model.safetensors", "config.json", "spec.json")
        for what, damage in (
            ("truncated", lambda content: content[: len(content) // 2]),
            ("longer", lambda content: content + b"\n}"),
            ("missing", lambda content: None),
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_is_told_and_the_checkpoint_before_used(
    damage: str, resumable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, change = DAMAGE[damage]
    path = checkpoints(resumable)[0] / name
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    found = load_newest(resumable, tiny("classification", 3))
    assert found is not None
    assert found.progress.step == 5
    assert f"{path}: is {'missing' if content is None and name != 'training.json' else 'damaged'}" in caplog.text
    assert "an older checkpoint is used instead" in caplog.text
    shutil.rmtree(checkpoints(resumable)[1])
    with pytest.raises(WeightsError, match="found no intact checkpoint among 1, expected one: "):
        load_newest(resumable, tiny("classification", 3))


def test_no_byte_of_a_checkpoints_description_can_be_changed_unnoticed(resumable: Path) -> None:
    whole, (path, _) = tiny("classification", 3), checkpoints(resumable)
    expected = load_checkpoint(path, whole)
    content = (path / "training.json").read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(100):
        place = rng.randrange(len(content))
        (path / "training.json").write_bytes(content[:place] + bytes([rng.randrange(32, 127)]) + content[place + 1 :])
        try:
            found = load_checkpoint(path, whole)
        except WeightsError:
            refused += 1
            continue
        assert found.progress == expected.progress  # the same byte, or white space
        assert found.states["optimizer"]["param_groups"] == expected.states["optimizer"]["param_groups"]
    assert refused > 70


def as_version_1(path: Path) -> None:
    """Rewrite a checkpoint as versions of this package before it had a digest did."""
    state = json.loads((path / "training.json").read_text())
    del state["digest"]
    (path / "training.json").write_text(json.dumps({**state, "version": 1}))


def test_checkpoints_without_a_digest_are_gone_on_with(resumable: Path) -> None:
    last, _ = checkpoints(resumable)
    whole, network = tiny("classification", 3), tiny("classification", 3, seed=1)
    load_checkpoint(last, whole)
    as_version_1(last)
    found = load_newest(resumable, network)
    assert found is not None
    assert found.progress.step == 10
    assert_equal(network.state_dict(), whole.state_dict())
    text = (last / "training.json").read_text()
    (last / "training.json").write_text(text.replace('"dict"', '"dicT"', 1))
    found = load_newest(resumable, network)
    assert found is not None
    assert found.progress.step == 5


def test_a_damaged_checkpoint_does_not_outlive_those_that_are_written_after_it(tmp_path: Path) -> None:
    def read(path: Path) -> Checkpoint:
        return read_state(path, "hash", "a space")

    for step in (1, 2):
        save_state(tmp_path, "hash", {"counts": [step, 0.5, None]}, Progress(step=step * 10))
    (checkpoints(tmp_path)[0] / "training.json").write_text("{}")
    found = newest(tmp_path, read)
    assert found is not None
    assert found.states == {"counts": [1, 0.5, None]}
    save_state(tmp_path, "hash", {"counts": [3, 0.5, None]}, Progress(step=12), keep=1)
    assert [int(path.name) for path in checkpoints(tmp_path)] == [12]


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    run(tmp_path, recipe=altered(QUICK, epochs=1))
    other = create_model("scalenet_s0", num_classes=3, img_size=32)
    with pytest.raises(
        WeightsError, match=r"found a checkpoint of another architecture \(hash \w{12}\), expected scalenet_s0"
    ):
        load_checkpoint(checkpoints(tmp_path)[0], other)


def test_a_run_is_not_overwritten_or_changed(tmp_path: Path) -> None:
    run(tmp_path, recipe=altered(QUICK, epochs=1))
    with pytest.raises(TrainingError, match="found a run, expected a new folder, or --resume"):
        run(tmp_path, recipe=altered(QUICK, epochs=1))
    with pytest.raises(TrainingError, match=r"lr: found 0.003 in this run, expected 0.1, as now given"):
        run(tmp_path, recipe=altered(QUICK, epochs=1, lr=0.1), resume=True)
    with pytest.raises(TrainingError, match="training: found"):
        run(tmp_path, recipe=altered(QUICK, epochs=1), count=48, resume=True)


def test_a_run_goes_on_with_the_same_classes_alone(tmp_path: Path) -> None:
    """Though the path and the number of images be the same: a folder may have been renamed."""
    recipe, source = altered(QUICK, epochs=1), f"imagefolder:{write_image_folder(tmp_path / 'data', count=8)}"

    def go_on(resume: bool) -> Fitted:
        data = [open_data(source, "classification", split) for split in ("train", "val")]
        return train_network(tiny("classification", 3), recipe, data[0], data[1], tmp_path / "run", HERE, resume=resume)

    go_on(resume=False)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record.pop("labels") == ["cat", "dog", "eel"]
    for split in ("train", "val"):
        (tmp_path / "data" / split / "cat").rename(tmp_path / "data" / split / "fox")
    with pytest.raises(
        TrainingError, match=r"labels: found \['cat', 'dog', 'eel'\] in this run, expected \['dog', 'eel'"
    ):
        go_on(resume=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))  # as older versions wrote it
    assert go_on(resume=True).metric == "top1"
    (tmp_path / "run" / "log.jsonl").unlink()
    with pytest.raises(TrainingError, match=r"log\.jsonl: found no evaluation, expected the one at the end of the run"):
        go_on(resume=True)


def test_figures_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OutputError, match="tensorboard: cannot be written: "):
        run(tmp_path, recipe=altered(QUICK, epochs=1))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's, where an epoch ends within a file
@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_of_which_nothing_can_be_used_ends(workers: int, tmp_path: Path) -> None:
    write_shards(tmp_path)
    for shard in tmp_path.glob("*.tar"):
        shard.write_bytes(shard.read_bytes().replace(b".cls", b".txt"))
    data = [open_data(f"wds:{tmp_path}", "classification", split) for split in ("train", "val")]
    with pytest.raises(InputError, match=r"found no images with classes in the split train, expected .* in 1.cls"):
        train_network(
            tiny("classification", 3), QUICK, data[0], data[1], tmp_path / "run", Options(workers=workers, cpu=True)
        )
    gc.collect()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("run.json", b"{", r"run\.json: is not valid JSON"),
        ("run.json", b"[]", r"run\.json: found \[\], expected an object"),
        ("run.json", b"{}", r"classes: found None in this run, expected 3, as now given"),
        ("run.json", None, r"found checkpoints without run\.json"),
        ("recipe.yaml", b"lr: \xff", r"recipe\.yaml: is not UTF-8 text"),
        ("recipe.yaml", b"lr: 0.1", r"epochs: found 100 in this run, expected 3, as now given"),
        ("log.jsonl", b"\xff\n", r"log\.jsonl: line 1: is not UTF-8 text"),
        ("log.jsonl", b"3.5\n", r"log\.jsonl: line 1: found 3\.5, expected an object"),
        ("log.jsonl", b'{"kind": []}\n', r"log\.jsonl: line 1: kind: found \[\], expected train or val"),
        ("log.jsonl", b'{"kind": "val", "step": "1"}\n', r"log\.jsonl: line 1: step: found '1', expected a number"),
        (
            "log.jsonl",
            b'{"kind": "train", "step": 1, "epoch": 0.5, "loss": 1, "lr": 1}\n'
            b'{"kind": "train", "step": 2, "epoch": 0.5, "loss": null, "lr": 1}\n',
            r"log\.jsonl: line 2: loss: found None, expected a number",
        ),
    ],
)
def test_what_is_damaged_in_a_runs_folder_is_one_line(
    name: str, content: bytes | None, complaint: str, resumable: Path
) -> None:
    (resumable / name).unlink()
    if content is not None:
        (resumable / name).write_bytes(content)
    with pytest.raises((TrainingError, InputError), match=complaint):
        run(resumable, resume=True)


def test_the_line_of_a_log_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    line = '{"step": 1, "kind": "val", "epoch": 1}'
    (tmp_path / "log.jsonl").write_text(f"{line}\n{line[:20]}")
    assert read_log(tmp_path) == [json.loads(line)]


HOLDER = """
import sys, time
from pathlib import Path
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.run_folder import hold
with hold(Path(sys.argv[1])), replacing_folder(Path(sys.argv[1]) / "checkpoints" / "00000012") as folder:
    (folder / "half").write_text("written")
    print("held", flush=True)
    time.sleep(60)
"""
"""Another run, in the midst of writing a checkpoint."""


def test_two_runs_are_not_in_one_folder_and_a_killed_one_leaves_nothing(resumable: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in resumable.rglob("*") if path.is_file()}

    other = subprocess.Popen([sys.executable, "-c", HOLDER, resumable], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    before = content()
    with pytest.raises(TrainingError, match=rf"{resumable}: found another process at work in it, expected one"):
        run(resumable, resume=True)
    assert content() == before
    other.kill()
    other.communicate()
    assert list(resumable.rglob(f"{SCRATCH}*"))
    run(resumable, resume=True)
    assert [path for path in resumable.rglob("*") if path.name.startswith(SCRATCH) or path.name == LOCK] == []
    assert [int(path.name) for path in checkpoints(resumable)] == [15, 10]


def _taken(rank: int, world: int, folder: Path) -> str:
    try:
        with alone_in(folder):
            return "taken"
    except TrainingError as error:
        return str(error)


@pytest.mark.distributed
def test_all_processes_of_a_second_run_are_refused(tmp_path: Path) -> None:
    with hold(tmp_path / "run"):
        refused = run_processes(_taken, 2, tmp_path / "run")
    assert refused == [f"{tmp_path / 'run'}: found another process at work in it, expected one at a time"] * 2
    assert run_processes(_taken, 2, tmp_path / "run") == ["taken"] * 2


@pytest.mark.slow
def test_workers_of_a_killed_run_do_not_keep_its_folder(tmp_path: Path) -> None:
    """The run alone is killed, so that for seconds its workers outlive it; it is gone on with at once."""
    killed = cli(*TRAIN, "--output", str(tmp_path / "run"))
    deadline = time.monotonic() + 120
    while not checkpoints(tmp_path / "run"):
        assert killed.poll() is None or time.monotonic() < deadline
        time.sleep(0.01)
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    killed.kill()
    again = cli(*TRAIN, "--output", str(tmp_path / "run"), "--resume")
    assert workers
    out, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "best top1" in out
    killed.communicate()


def test_the_log_has_a_line_so_often_and_at_the_end_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by a second whenever it is looked at."""
    monkeypatch.setattr("scalenet_zoo.training.loop.time", SimpleNamespace(monotonic=count().__next__))
    run(tmp_path, options=replace(HERE, log_interval=3, val_interval=2))
    lines = [line for line in read_log(tmp_path) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [3, 5, 6, 9, 10, 12, 15]
    assert [line["images_per_second"] for line in lines] == [8 * steps for steps in (3, 2, 1, 3, 1, 2, 3)]
    assert [line["step"] for line in read_log(tmp_path) if line["kind"] == "val"] == [10, 15]


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, options=replace(HERE, save_every=1, keep=3))
    assert [int(path.name) for path in checkpoints(tmp_path)] == [15, 14, 13]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_size": 64}, "shapes: found 40 images of train, expected at least a batch of 64"),
        ({"batch_size": 9, "grad_accum_steps": 2}, "batch_size: found 9, expected a multiple of 2"),
        ({"batch_size": 9, "mixup": 0.5}, "batch_size: found 9, expected an even number of images"),
        ({"opt": "nonesuch"}, "opt: found 'nonesuch', expected one of timm's optimisers"),
        ({"sched": "nonesuch"}, "sched: found 'nonesuch'"),
        ({"sched": "plateau"}, "sched: found plateau"),
        ({"amp": "fp16"}, "amp: found fp16 without a GPU"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, recipe=altered(QUICK, **changes))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 4, "grad_accum_steps": 4}, {"batch_size": 2}])
@pytest.mark.parametrize("size", [16, 32, 48])
def test_single_images_are_refused_where_a_batch_norm_would_see_one_value(
    task: Task, changes: dict[str, Any], size: int
) -> None:
    network, recipe = tiny(task, 3), altered(QUICK, train_size=(size, size), **changes)
    images = torch.randn(recipe.batch_size // recipe.grad_accum_steps, 3, size, size)
    try:
        network.train()(images)
    except ValueError:  # torch: expected more than 1 value per channel
        with pytest.raises(InputError, match=r"batch_size: found \d with \d grad_accum_steps, expected [28] or more"):
            check_batch_norm(spec_of(network), recipe)
    else:
        check_batch_norm(spec_of(network), recipe)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"found the loss (nan|inf) near step \d+, expected a finite one"):
        run(tmp_path, recipe=altered(QUICK, lr=1e18, opt="sgd", clip_grad=None))


def test_teachers_of_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="teacher: found classes 5 of .*, expected 3"):
        run(tmp_path, teacher=tiny("classification", 5))


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [4, 6])
@pytest.mark.parametrize("sched", ["cosine", "step", "poly"])
def test_a_warm_up_that_never_ends_is_told(epochs: int, sched: str, caplog: pytest.LogCaptureFixture) -> None:
    recipe = altered(QUICK, epochs=epochs, warmup_epochs=5.0, lr=0.1, sched=sched)
    optimizer = create_optimizer_v2(tiny("classification", 3), "sgd", recipe.lr)
    scheduler = make_scheduler(optimizer, recipe, 100)
    highest = 0.0
    for step in range(100 * epochs):
        scheduler.step_update(step)
        highest = max(highest, optimizer.param_groups[0]["lr"])
    if epochs < 5:
        assert highest == pytest.approx(0.08, rel=0.01)
        assert "warmup_epochs: found 5, expected fewer than the 4 epochs: the learning rate ends at 0.08" in caplog.text
    else:
        assert highest == pytest.approx(0.1, rel=0.03)
        assert not caplog.text


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_network_that_does_not_look_is_recognised(task: Task) -> None:
    network = tiny(task, len(Shapes(task, 1).labels.names)).eval()
    assert list(doubts(network, Shapes(task, 8), "a metric", 0.9, 100)) == []
    network.register_forward_pre_hook(lambda module, images: (torch.zeros_like(images[0]),))
    (doubt,) = doubts(network, Shapes(task, 8), "a metric", 0.9, 100)
    assert doubt.startswith("found predictions that do not depend on the image: more epochs")


@dataclass(frozen=True)
class Counted(Shapes):
    """Of which the classes are known: one of each four is the second."""

    @property
    def targets(self) -> np.ndarray:
        return np.array([1, 2, 2, 2] * (self.count // 4))


def test_what_guessing_reaches() -> None:
    assert guessing(Counted("classification", 400)) == pytest.approx(0.75 + 2 * (0.75 * 0.25 / 400) ** 0.5)
    assert guessing(Shapes("classification", 200)) == pytest.approx(1 / 3 + 2 * (2 / 9 / 200) ** 0.5)
    assert guessing(Shapes("segmentation", 200)) == pytest.approx(1 / 3)
    assert guessing(Shapes("pose", 200)) == 0


def test_few_steps_and_chance_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "few", recipe=altered(QUICK, epochs=1, lr=1e-9), count=40)
    assert "few: found 5 steps of training, expected about 100 or more, and 59% of batch norm's" in caplog.text
    assert "no better than guessing (0.569): more epochs, another lr, pretrained weights" in caplog.text


@pytest.mark.parametrize(
    ("names", "said", "kept"),
    [
        (("dark", "red", "green"), "", [0, 1, 2]),
        (("green", "dark", "red"), "knows the classes of shapes in another order", [1, 2, 0]),
        (("dark", "red", "blue"), "knows other classes than shapes has: its last layer starts from scratch", None),
        (("a", "b"), "", [0, 1, 2]),  # of a head that it had before
    ],
)
def test_a_head_begins_with_the_classes_that_it_knows(
    names: tuple[str, ...], said: str, kept: list[int] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network: Any = tiny("classification", 3)
    network.pretrained_cfg["labels"] = Labels(names=names).to_cfg()
    weight, bias = network.classifier.weight.detach().clone(), torch.arange(3.0)
    with torch.no_grad():
        network.classifier.bias.copy_(bias)
    data = Shapes("classification", 8), Shapes("classification", 8, "val")
    trainer = Trainer(network, QUICK, *data, tmp_path, HERE, None)
    assert (said in caplog.text) if said else not caplog.text
    if kept is None:
        assert not torch.equal(network.classifier.weight, weight)
        assert not network.classifier.bias.any()
    else:
        assert torch.equal(network.classifier.weight, weight[kept])
        assert torch.equal(network.classifier.bias, bias[kept])
    assert network.pretrained_cfg["labels"]["names"] == list(names)  # the caller's description stays
    assert Interface.of_network(trainer._described()).labels.names == ("dark", "red", "green")


# --- data sets of other kinds ---------------------------------------------------------------------


def train_on(source: str, folder: Path, **kwargs: Any) -> Fitted:
    training, validation = (open_data(source, "classification", split) for split in ("train", "val"))
    network = tiny("classification", len(training.labels.names))
    recipe = altered(QUICK, epochs=2, batch_size=4, **kwargs)
    return train_network(network, recipe, training, validation, folder, HERE)


def test_broken_images_are_counted_named_and_passed_over(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "data")
    spoil(root / "train" / "cat" / "1.png")
    trained = train_on(f"imagefolder:{root}", tmp_path / "run")
    assert [name.partition(":")[0] for name in trained.broken] == [str(root / "train" / "cat" / "1.png")]
    with pytest.raises(InputError, match=r"found 1 image that cannot be used, expected at most 0: .*1\.png"):
        train_on(f"imagefolder:{root}", tmp_path / "strict", broken_limit=0)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's, where an epoch ends within a file
def test_streams_are_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    write_shards(tmp_path)
    data = [open_data(f"wds:{tmp_path}", "classification", split) for split in ("train", "val")]
    train_network(
        tiny("classification", 3), altered(QUICK, epochs=2, batch_size=4), data[0], data[1], tmp_path / "run", HERE
    )
    history = losses(tmp_path / "run")
    assert len(history) == 6
    assert np.isfinite(history).all()
    gc.collect()
