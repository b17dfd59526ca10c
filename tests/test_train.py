"""Training: it learns, it resumes to the bit, it computes what timm's pieces do, and many processes are one."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from scalenet_zoo import create_model
from scalenet_zoo.checkpoint import checkpoints, load_checkpoint
from scalenet_zoo.data import open_data
from scalenet_zoo.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.pretrained import from_timm
from scalenet_zoo.recipe import Recipe
from scalenet_zoo.spec import Task
from scalenet_zoo.train import Options, Trained, Trainer, train
from scalenet_zoo.training_log import read_log
from scalenet_zoo.weights import read_weights
from tests.data_files import spoil, write_image_folder, write_shards
from tests.shapes import SPECS, Shapes

QUICK = Recipe(epochs=3, batch_size=8, lr=3e-3, warmup_epochs=0.0, scale=(0.5, 1.0), clip_grad=5.0)
HERE = Options(workers=0, log_interval=1, cpu=True)


def tiny(task: Task, classes: int, seed: int = 0, **kwargs: Any) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(SPECS[task], num_classes=classes, **kwargs)


def run(folder: Path, task: Task = "classification", recipe: Recipe = QUICK, count: int = 40, **kwargs: Any) -> Trained:
    data = Shapes(task, count), Shapes(task, 16, "val")
    network = tiny(task, len(data[0].labels.names), drop_path_rate=recipe.drop_path)
    return train(network, recipe, *data, folder, **{"options": HERE, **kwargs})


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_each_task_learns_and_leaves_a_network_that_says_how(task: Task, tmp_path: Path) -> None:
    recipe = replace(QUICK, epochs=4, lr=5e-3, hflip=0.5)
    trained = run(tmp_path / "run", task, recipe, count=64)
    history = losses(tmp_path / "run")
    assert len(history) == 4 * 8
    assert np.mean(history[-8:]) < 0.8 * np.mean(history[:4])
    best: Any = create_model(f"local-dir:{tmp_path / 'run' / 'best'}")
    names = Shapes(task, 1).labels.names
    assert tuple(best.pretrained_cfg["labels"]["names"]) == names
    training = best.spec.provenance.details["training"]
    assert training["data"] == "shapes"
    assert training["recipe"]["lr"] == 5e-3
    measured = {result.metric: result for result in best.spec.provenance.results}
    assert measured[trained.metric].value == trained.best
    assert measured[trained.metric].origin == "measured"
    for name in ("curves.png", "log.jsonl", "recipe.yaml", "run.json", "tensorboard"):
        assert (tmp_path / "run" / name).exists()


def test_everything_at_once(tmp_path: Path) -> None:
    """Mixup, cutmix, smoothing, RandAugment, erasing, EMA, drop path, accumulation, bf16, layer decay, a teacher."""
    recipe = replace(
        QUICK, mixup=0.2, cutmix=1.0, smoothing=0.1, aa="rand-m5-mstd0.5", reprob=0.3, color_jitter=0.2,
        model_ema_decay=0.9, drop=0.1, drop_path=0.1, grad_accum_steps=2, amp="bf16", distill_temperature=2.0,
        layer_decay=0.8, channels_last=False,
    )  # fmt: skip
    trained = run(tmp_path, "classification", recipe, teacher=tiny("classification", 3, seed=1))
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.metric == "top1"


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_everything_of_dense_tasks_at_once(task: Task, tmp_path: Path) -> None:
    recipe = replace(
        QUICK, rotation=20.0, resize=(0.7, 1.4), hflip=0.5, color_jitter=0.3, train_size=(32, 48), layer_decay=0.9,
        model_ema_decay=0.9, drop=0.1, drop_path=0.1, grad_accum_steps=2, amp="bf16", sched="poly", opt="sgd",
        ohem_threshold=0.7 if task == "segmentation" else None,
    )  # fmt: skip
    trained = run(tmp_path, task, recipe, teacher=tiny(task, len(Shapes(task, 1).labels.names), seed=1))
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.metric == {"segmentation": "miou", "pose": "ap"}[task]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        run(tmp_path / name, recipe=replace(QUICK, epochs=1, torchcompile=compiled))
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-3)


def test_a_perfect_teacher_alone_is_followed(tmp_path: Path) -> None:
    recipe = replace(QUICK, distill_weight=100.0)
    run(tmp_path / "far", "pose", recipe, teacher=tiny("pose", 2, seed=3))
    run(tmp_path / "none", "pose", recipe)
    assert losses(tmp_path / "far")[0] > losses(tmp_path / "none")[0]


# --- the same as others compute -------------------------------------------------------------------


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
    trainer.before(resume=False)

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
        found, _ = trainer._step(step, iter([batch]))
        assert found.item() == pytest.approx(loss.item(), rel=1e-4), step


# --- stopped and resumed --------------------------------------------------------------------------

WHOLE = replace(QUICK, epochs=4, drop=0.2, drop_path=0.2, model_ema_decay=0.9, mixup=0.4, reprob=0.5, hflip=0.5)


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
        (11, {"opt": "lookahead_sgd", "sched": "poly", "grad_accum_steps": 2}),
        (19, {"opt": "adafactor", "sched": "none", "model_ema_decay": None}),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(step: int, changes: dict[str, Any], tmp_path: Path) -> None:
    recipe, options = replace(WHOLE, **changes), replace(HERE, save_every=2)
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
    recipe, options = replace(WHOLE, amp=amp), replace(HERE, cpu=False, workers=2)
    with pytest.raises(StoppedError):
        run(tmp_path, recipe=recipe, options=options, on_step=stopper(8))
    trained = run(tmp_path, recipe=recipe, options=options, resume=True)
    assert np.isfinite(losses(tmp_path)).all()
    assert trained.best > 0.4


# --- many processes -------------------------------------------------------------------------------


@pytest.mark.distributed
@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_two_processes_with_half_the_batch_are_one_with_the_whole(task: Task, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nimport torch\n"
        "from tests.test_train import HERE, QUICK, Shapes, replace, tiny, train\n"
        "torch.set_num_threads(1)\n"
        f"data = Shapes({task!r}, 40), Shapes({task!r}, 16, 'val')\n"
        # In double precision: batch norms of a few pixels amplify what rounding is left of a sum in another order.
        f"network = tiny({task!r}, len(data[0].labels.names)).double()\n"
        "network.register_forward_pre_hook(lambda module, images: tuple(image.double() for image in images))\n"
        "train(network, replace(QUICK, lr=1e-2, opt='sgd'), *data, Path(sys.argv[1]), HERE)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    one = subprocess.run(
        [sys.executable, program, str(tmp_path / "one")], env=environment, capture_output=True, text=True
    )
    assert one.returncode == 0, one.stderr
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run(
        [*launch, program, str(tmp_path / "two")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert two.returncode == 0, two.stderr
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    logs = [[line for line in read_log(tmp_path / name) if line["kind"] == "val"] for name in ("one", "two")]
    assert [line.keys() for line in logs[0]] == [line.keys() for line in logs[1]]


# --- what is refused ------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "whole", recipe=WHOLE)
    with pytest.raises(StoppedError):
        run(tmp_path / "run", recipe=WHOLE, on_step=stopper(18))
    newest, _ = checkpoints(tmp_path / "run")
    content = (newest / "training.safetensors").read_bytes()
    (newest / "training.safetensors").write_bytes(content[:-7] + b"damaged")
    run(tmp_path / "run", recipe=WHOLE, resume=True)
    assert f"{newest / 'training.safetensors'}: is damaged; the checkpoint before it is used" in caplog.text
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


@pytest.mark.parametrize("name", ["training.json", "training.safetensors", "model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_any_damage_is_found(name: str, damage: str, tmp_path: Path) -> None:
    run(tmp_path, recipe=replace(QUICK, epochs=1), options=replace(HERE, keep=1))
    (newest,) = checkpoints(tmp_path)
    content = (newest / name).read_bytes()
    (newest / name).unlink()
    if damage == "truncated":
        (newest / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=rf"found no whole checkpoint among 1: .*{name}: (is|cannot)"):
        run(tmp_path, recipe=replace(QUICK, epochs=1), resume=True)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    run(tmp_path, recipe=replace(QUICK, epochs=1))
    other = create_model("scalenet_s0", num_classes=3, img_size=32)
    with pytest.raises(
        WeightsError, match=r"found a checkpoint of another architecture \(hash \w{12}\), expected scalenet_s0"
    ):
        load_checkpoint(checkpoints(tmp_path)[0], other)


def test_a_run_is_not_overwritten_or_changed(tmp_path: Path) -> None:
    run(tmp_path, recipe=replace(QUICK, epochs=1))
    with pytest.raises(TrainingError, match="found a run, expected a new folder, or --resume"):
        run(tmp_path, recipe=replace(QUICK, epochs=1))
    with pytest.raises(TrainingError, match=r"lr: found 0.003 in this run, expected 0.1, as now given"):
        run(tmp_path, recipe=replace(QUICK, epochs=1, lr=0.1), resume=True)
    with pytest.raises(TrainingError, match="training: found"):
        run(tmp_path, recipe=replace(QUICK, epochs=1), count=48, resume=True)


def test_a_damaged_description_of_a_run_is_one_line(tmp_path: Path) -> None:
    run(tmp_path, recipe=replace(QUICK, epochs=1))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json: is not valid JSON"):
        run(tmp_path, recipe=replace(QUICK, epochs=1), resume=True)


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, options=replace(HERE, save_every=1, keep=3))
    assert [int(path.name) for path in checkpoints(tmp_path)] == [15, 14, 13]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_size": 64}, "shapes: found 40 images of train, expected at least a batch of 64"),
        ({"batch_size": 9, "grad_accum_steps": 2}, "batch_size: found 9, expected a multiple of 2"),
        ({"batch_size": 9, "mixup": 0.5}, "batch_size: found 9, expected an even share"),
        ({"opt": "nonesuch"}, "opt: found 'nonesuch', expected one of timm's optimisers"),
        ({"sched": "nonesuch"}, "sched: found 'nonesuch'"),
        ({"sched": "plateau"}, "sched: found plateau"),
        ({"amp": "fp16"}, "amp: found fp16 without a GPU"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, recipe=replace(QUICK, **changes))
    assert complaint in str(caught.value)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"found the loss (nan|inf) near step \d+, expected a finite one"):
        run(tmp_path, recipe=replace(QUICK, lr=1e18, opt="sgd", clip_grad=None))


def test_teachers_of_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="teacher: found classes 5 of .*, expected 3"):
        run(tmp_path, teacher=tiny("classification", 5))


# --- data sets of other kinds ---------------------------------------------------------------------


def train_on(source: str, folder: Path, **kwargs: Any) -> Trained:
    training, validation = (open_data(source, "classification", split) for split in ("train", "val"))
    network = tiny("classification", len(training.labels.names))
    recipe = replace(QUICK, epochs=2, batch_size=4, **kwargs)
    return train(network, recipe, training, validation, folder, HERE)


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
    train(tiny("classification", 3), replace(QUICK, epochs=2, batch_size=4), data[0], data[1], tmp_path / "run", HERE)
    history = losses(tmp_path / "run")
    assert len(history) == 6
    assert np.isfinite(history).all()
    gc.collect()
