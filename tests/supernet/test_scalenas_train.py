"""Training of ScaleNAS's supernet: a teacher first, then networks that learn from data and from it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.networks import MultipathNet
from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenas.samplers import GroupedSampler, TopologySandwichSampler, UniformTopologySampler
from scalenet_zoo.supernet.scalenas.settings import ScaleNASSettings, TeacherSettings
from scalenet_zoo.supernet.scalenas.train import ScaleNASTrainer, train_scalenas
from scalenet_zoo.supernet.summary import SupernetSummary
from scalenet_zoo.training.checkpoint import checkpoints
from scalenet_zoo.training.log import read_log
from scalenet_zoo.training.loop import LoopOptions
from scalenet_zoo.training.losses import task_loss
from scalenet_zoo.training.optimisation import make_optimizer
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.weights_files import read_weights
from tests.helpers.hub_server import Hub
from tests.helpers.networks import random_model
from tests.helpers.pretrained import publish
from tests.helpers.processes import run_processes
from tests.helpers.shapes import SPECS, Shapes

Head = Literal["segmentation", "pose"]
HEADS: tuple[Head, ...] = ("segmentation", "pose")
RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.01, "amp": "no", "resize": [0.9, 1.1]}
HERE = LoopOptions(workers=0, cpu=True)


def space_of(head: Head, **values: Any) -> MultipathSpace:
    small = {"width": 4, "modules": [1, 1, 1], "depths": [1, 2], "input": {"height": 32, "width": 32}}
    groups = {"depths": [[1], [1, 2], [2]]}
    return MultipathSpace.from_values({"name": "tiny", "head": head, "groups": groups, **small, **values}, "tiny")


def classes_of(head: Head) -> int:
    return len(Shapes(head, 1).labels.names)


def supernet(head: Head, seed: int = 0) -> ScaleNASSupernet:
    torch.manual_seed(seed)
    return ScaleNASSupernet(space_of(head), classes_of(head))


def settings(recipe: dict[str, Any] | None = None, **values: Any) -> ScaleNASSettings:
    return ScaleNASSettings(recipe={**RECIPE, **(recipe or {})}, **values)


def run(
    folder: Path,
    head: Head,
    chosen: ScaleNASSettings,
    net: ScaleNASSupernet | None = None,
    save_every: int | None = None,
    **on_step: Any,
) -> SupernetSummary:
    net, data = net or supernet(head), (Shapes(head, 40), Shapes(head, 8, "val"))
    options = LoopOptions(workers=0, save_every=save_every, log_interval=1, cpu=True)
    return train_scalenas(net, chosen, *data, folder, options, **on_step)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


def weights(folder: Path) -> dict[str, Tensor]:
    return read_weights(folder / "supernet.safetensors")[0]


def write_model(model: nn.Module, folder: Path) -> Path:
    with replacing_folder(folder) as new:
        save_model(model, new)
    return folder


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    chosen: Head = request.param
    return chosen


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[Head, Path]:
    """Folders of made-up teachers: largest networks with weights of their own."""
    folders = {}
    for head in HEADS:
        space = space_of(head)
        model = random_model(space.spec(space.largest, classes_of(head)))
        folders[head] = write_model(model, tmp_path_factory.mktemp("teacher") / head)
    return folders


def taught(folder: Path) -> TeacherSettings:
    return TeacherSettings(weights=str(folder))


ALONE: dict[str, Any] = {"init": "scratch", "distill_weight": 0.0}
"""No teacher at all."""


def trainer_of(
    head: Head, folder: Path, chosen: ScaleNASSettings, teacher: MultipathNet | None = None
) -> ScaleNASTrainer:
    trainer = ScaleNASTrainer(supernet(head), chosen, Shapes(head, 40), folder, HERE, teacher)
    trainer.supernet.train()
    return trainer


# --- a whole run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "sampler", "epochs", "lr"),
    [
        ("segmentation", "grouped", 7, 0.05),
        ("pose", "sandwich", 3, 0.01),
        pytest.param("pose", "uniform", 4, 0.01, marks=pytest.mark.slow),
    ],
)
def test_it_learns(head: Head, sampler: Any, epochs: int, lr: float, tmp_path: Path) -> None:
    summary = run(tmp_path, head, settings({"epochs": epochs, "lr": lr, "hflip": 0.0}, sampler=sampler, **ALONE))
    history = losses(tmp_path)
    assert np.mean(history[-5:]) < 0.7 * history[0]  # of a network whose prediction is nearly 0
    networks = 4 if sampler == "sandwich" else 1
    assert (summary.steps, summary.images) == (epochs * 5, epochs * 40 * networks)
    assert {"epoch", "loss", "lr", "images_per_second", "macs"} <= read_log(tmp_path)[-1].keys()
    assert not (tmp_path / "teacher").exists()
    again = supernet(head, seed=5)
    assert load_supernet(again, tmp_path) == summary
    saved = weights(tmp_path)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in again.state_dict().items())


class StoppedError(Exception):
    pass


def stopper(what: str, step: int) -> Any:
    def on_step(doing: str, done: int, total: int) -> None:
        if doing.startswith(what) and done == step:
            raise StoppedError

    return on_step


@pytest.mark.parametrize("head", ["segmentation", pytest.param("pose", marks=pytest.mark.slow)], indirect=True)
def test_the_largest_network_is_trained_first_and_once_and_stopped_anywhere(head: Head, tmp_path: Path) -> None:
    chosen = settings(teacher=TeacherSettings(recipe={"epochs": 3}))
    whole = run(tmp_path / "whole", head, chosen)
    for what, step in (("teacher", 8), ("supernet", 7)):
        with pytest.raises(StoppedError):
            run(tmp_path / "stopped", head, chosen, save_every=2, on_step=stopper(what, step))
    resumed = run(tmp_path / "stopped", head, chosen, on_step=stopper("teacher", 1))
    assert resumed.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})
    for part in (".", "teacher"):
        assert losses(tmp_path / "whole" / part) == losses(tmp_path / "stopped" / part)
    assert len(losses(tmp_path / "whole" / "teacher")) == 15
    teacher = create_model(tmp_path / "whole" / "teacher")
    assert isinstance(teacher, MultipathNet)
    assert teacher.spec.network == supernet(head).largest.spec.network
    settings_file = (tmp_path / "whole" / "settings.json").read_text()
    assert '"teacher_sha256": "' in settings_file


@pytest.mark.parametrize(
    ("head", "stop", "recipe", "values"),
    [
        ("pose", 7, {"clip_grad": 1.0, "rotation": 20.0}, {}),
        pytest.param(
            *("segmentation", 4, {"amp": "bf16"}, {"sampler": "sandwich", "init": "scratch"}), marks=pytest.mark.slow
        ),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    head: Head, stop: int, recipe: dict[str, Any], values: dict[str, Any], teachers: dict[Head, Path], tmp_path: Path
) -> None:
    chosen = settings(recipe, teacher=taught(teachers[head]), **values)
    whole = run(tmp_path / "whole", head, chosen)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", head, chosen, save_every=2, on_step=stopper("", stop))
    resumed = run(tmp_path / "stopped", head, chosen)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    assert resumed.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})
    assert run(tmp_path / "stopped", head, chosen) == resumed  # nothing is missing: nothing is done


@pytest.mark.nightly
def test_a_pretrained_hrnet_learns_the_task_and_teaches(hub: Hub, tmp_path: Path) -> None:
    publish(hub, "hrnet_w18_pose")
    space = space_of("pose", width=18, modules=[1, 4, 3], depths=[4], groups={"depths": [[4]]})
    chosen = settings({"epochs": 1, "batch_size": 2}, teacher=TeacherSettings(pretrained="hrnet_w18_pose"))
    net = ScaleNASSupernet(space, 2)
    data = Shapes("pose", 2), Shapes("pose", 2, "val")
    summary = train_scalenas(net, chosen, *data, tmp_path, LoopOptions(workers=0, log_interval=1, cpu=True))
    assert summary.steps == 1
    teacher, hrnet = load_spec(tmp_path / "teacher"), load_spec("hrnet_w18_pose")
    assert teacher.network == hrnet.network


def test_a_folder_is_one_run_s_however_it_is_called(tmp_path: Path) -> None:
    refused: dict[str, str] = {}

    def on_step(what: str, done: int, total: int) -> None:
        if (kind := what.partition(":")[0]) not in refused:
            with pytest.raises(TrainingError) as caught:
                run(tmp_path, "pose", settings({"epochs": 1}))
            refused[kind] = str(caught.value)

    run(tmp_path, "pose", settings({"epochs": 1}), on_step=on_step)
    said = "found another process at work in it, expected one at a time"
    assert refused == {"teacher": f"{tmp_path / 'teacher'}: {said}", "supernet": f"{tmp_path}: {said}"}


# --- what a step does -----------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [pytest.param(0.0, marks=pytest.mark.slow), 2.5])
def test_the_loss_is_the_task_s_and_the_teacher_s(
    weight: float, head: Head, teachers: dict[Head, Path], tmp_path: Path
) -> None:
    teacher = create_model(teachers[head])
    assert isinstance(teacher, MultipathNet)
    chosen = settings(sampler="sandwich", distill_weight=weight)
    trainer = trainer_of(head, tmp_path, chosen, teacher.train())
    net = trainer.supernet
    begun = net.largest.state_dict()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(begun[name], tensor), name  # it begins as the teacher
    batch, (networks,) = next(trainer._batches(0, 0)), trainer.draw(3)
    again = create_model(teachers[head]).eval()
    alone = [net.extract(spec) for spec in networks]  # before batch norms see the images
    task = task_loss(head, trainer.recipe)
    found = list(trainer.losses(batch["image"], batch["target"], networks))
    assert len(found) == 4
    for loss, network in zip(found, alone, strict=True):
        output = network(batch["image"])
        expected = task(output, batch["target"])
        if weight:
            with torch.no_grad():
                prediction = again(batch["image"])
            expected = expected + weight * F.mse_loss(output, prediction)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    after = teacher.state_dict()
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)  # it does not learn


def test_a_step_changes_what_is_active_as_the_network_alone_would(head: Head, tmp_path: Path) -> None:
    trainer = trainer_of(head, tmp_path, settings({"opt": "adamw", "weight_decay": 0.1}, **ALONE))
    net = trainer.supernet
    spec = next(
        spec for step in range(99) for spec in trainer.draw(step)[0] if spec.network != net.largest.spec.network
    )
    alone = net.extract(spec)
    optimizer = make_optimizer(alone, trainer.recipe)
    task = task_loss(head, trainer.recipe)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for batch in list(trainer._batches(0, 0))[:2]:
        found = trainer._train_step(batch, [[spec]])
        optimizer.zero_grad()
        loss = task(alone(batch["image"]), batch["target"])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(found, loss.detach(), rtol=1e-4, atol=1e-7)
    after, expected = net.state_dict(), alone.state_dict()
    assert len(expected) < len(after)
    for name, tensor in before.items():
        own = name.removeprefix("largest.")
        if own in expected:
            torch.testing.assert_close(after[name], expected[own], rtol=1e-3, atol=1e-4, msg=name)
        else:
            assert torch.equal(after[name], tensor), name  # weights and statistics
    learned = {name for name, parameter in alone.named_parameters() if parameter.grad is not None}
    with_state = {name for name, parameter in net.largest.named_parameters() if parameter in trainer.optimizer.state}
    assert with_state == learned
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("norm", [None, 1e-3, 1e6])
def test_a_step_of_several_networks_follows_the_mean_of_their_gradients(
    norm: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one network taken twice, this is its own gradient, clipped if the recipe says so."""
    trainer = trainer_of("pose", tmp_path, settings({"clip_grad": norm}, **ALONE))
    batch, ((spec,),) = next(trainer._batches(0, 0)), trainer.draw(3)
    taken: list[dict[nn.Parameter, Tensor]] = []
    monkeypatch.setattr(trainer, "update", lambda sums: taken.append({p: g for p, (_, g) in sums.parts.items()}))
    for networks in ([spec], [spec, spec]):
        trainer._train_step(batch, [networks])
    once, twice = taken
    assert once.keys() == twice.keys()
    for parameter, gradient in once.items():
        torch.testing.assert_close(twice[parameter], gradient, rtol=1e-4, atol=1e-7)
    found = torch.nn.utils.get_total_norm(list(once.values())).item()
    assert found == pytest.approx(1e-3, rel=1e-2) if norm == 1e-3 else 1e-3 < found < 1e3
    assert (trainer.images, trainer.image_macs) == (3 * 8, 3 * 8 * spec.cost.macs)


def test_networks_of_a_step_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    def drawn(step: int, seed: int = 0) -> str:
        return trainer_of("pose", tmp_path, settings({"seed": seed}, **ALONE)).draw(step)[0][0].to_json()

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(5), drawn(3, seed=1)}) == 4


def test_images_may_have_a_size_of_their_own(head: Head, tmp_path: Path) -> None:
    trainer = trainer_of(head, tmp_path, settings({"train_size": [32, 64]}, sampler="sandwich", **ALONE))
    (networks,) = trainer.draw(0)
    largest = trainer.supernet.largest.spec
    assert networks[0].network == largest.network
    assert networks[0].cost.macs == largest.replace(height=32, width=64).cost.macs
    batch = next(trainer._batches(0, 0))
    assert batch["image"].shape[-2:] == (32, 64)
    assert np.isfinite(float(trainer._train_step(batch, [networks])))


# --- samplers -------------------------------------------------------------------------------------

WIDE = MultipathSpace.load("scalenas_segmentation")
DRAWS = 540


def share_of_paths(topology: Topologies) -> float:
    """Of the paths that the depths allow."""
    possible = WIDE.canonical(topology.depth, WIDE.connections)
    return float(topology.fusion[WIDE.connections].sum() / possible.fusion[WIDE.connections].sum())


def test_grouped_sampling_draws_every_group_as_often() -> None:
    sampler, rng = GroupedSampler(WIDE), np.random.default_rng(0)
    counts = dict.fromkeys(range(9), 0)
    for _ in range(DRAWS):
        drawn = sampler.sample(rng)
        assert len(drawn) == 1
        depths = drawn.depth[drawn.depth > 0]
        low, share = int(depths.min()), share_of_paths(drawn[0])
        assert set(depths.tolist()) == {low, low + 1}  # of 26 branches, both occur
        fusion = min((0, 1, 2), key=lambda group: abs(share - (0.2, 0.5, 0.8)[group]))
        counts[3 * (low - 2) + fusion] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_uniform_sampling_starves_the_ends() -> None:
    sampler, rng = UniformTopologySampler(WIDE), np.random.default_rng(0)
    drawn = Topologies.joined([sampler.sample(rng) for _ in range(DRAWS)])
    depths = drawn.depth[drawn.depth > 0]
    assert chisquare([int((depths == depth).sum()) for depth in WIDE.depths]).pvalue > 1e-4
    first_paths = drawn.fusion[:, 0, 0, 0, 1]  # every depth has a first step
    assert binomtest(int(first_paths.sum()), DRAWS, 0.5).pvalue > 1e-4
    shares = [share_of_paths(drawn[i]) for i in range(DRAWS)]
    assert min(shares) > 0.35
    assert max(shares) < 0.65  # grouped sampling: a third of the networks each near 0.2 and 0.8


def test_the_sandwich_has_both_ends(head: Head) -> None:
    space = space_of(head)
    sampler = TopologySandwichSampler(space, UniformTopologySampler(space))
    largest, smallest, *between = space.keys(sampler.sample(np.random.default_rng(0)))
    assert [largest, smallest] == space.keys(Topologies.joined([space.largest[None], space.smallest[None]]))
    rng = np.random.default_rng(0)
    uniform = [space.keys(UniformTopologySampler(space).sample(rng))[0] for _ in range(2)]
    assert between == uniform


# --- many processes -------------------------------------------------------------------------------

SGD: dict[str, Any] = {"opt": "sgd", "lr": 0.05}


def double(head: Head) -> ScaleNASSupernet:
    """A supernet in double precision, images and all: batch norms of few pixels amplify what is rounded."""
    net = supernet(head).double()
    net.register_forward_pre_hook(lambda module, images: tuple(image.double() for image in images))
    return net


def _train_in_double(rank: int, world: int, folder: Path, head: Head, chosen: ScaleNASSettings) -> None:
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign] # of losses, in this process alone
    run(folder, head, chosen, net=double(head))


@pytest.mark.distributed
def test_two_processes_with_half_the_batch_are_one_with_the_whole(head: Head, tmp_path: Path) -> None:
    run_processes(_train_in_double, 1, tmp_path / "one", head, settings(SGD, **ALONE))
    run_processes(_train_in_double, 2, tmp_path / "two", head, settings(SGD, **ALONE))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-6)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.distributed
def test_two_processes_may_each_work_on_a_network_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A step follows the mean of both gradients, as this process alone takes it."""
    chosen = settings(SGD, processes="different", **ALONE)
    run_processes(_train_in_double, 2, tmp_path / "two", "pose", chosen)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    net = double("pose").train()
    trainer = ScaleNASTrainer(net, chosen, Shapes("pose", 40), tmp_path / "one", HERE, None)
    for epoch in range(2):
        for batch in trainer._batches(epoch, 0):
            trainer.scheduler.step_update(trainer.step)
            gradients, networks = Gradients(), [trainer._draw(trainer.step, rank) for rank in range(2)]
            for (spec,) in networks:  # what is active and fed to no output has momentum
                trainer.enter(spec)
                gradients.cover(net.windows)
            for rank in range(2):
                half = slice(4 * rank, 4 * rank + 4)
                target = {name: tensor[half] for name, tensor in batch["target"].items()}
                for loss in trainer.losses(batch["image"][half], target, networks[rank]):
                    (loss / 2).backward()  # type: ignore[no-untyped-call]
                    gradients.add(net.windows)
            trainer.update(gradients)
            trainer.step += 1
    two = weights(tmp_path / "two")
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(two[name], parameter.detach(), rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.distributed
def test_two_processes_train_and_follow_a_teacher(tmp_path: Path) -> None:
    run_processes(_train_in_double, 2, tmp_path / "run", "segmentation", settings(SGD))
    assert len(losses(tmp_path / "run" / "teacher")) == len(losses(tmp_path / "run")) == 10


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_a_gpu_trains(amp: str, head: Head, tmp_path: Path) -> None:
    net, data = supernet(head), (Shapes(head, 40), Shapes(head, 8, "val"))
    chosen = settings({"amp": amp, "epochs": 8}, sampler="sandwich")
    train_scalenas(net, chosen, *data, tmp_path, LoopOptions(workers=0, log_interval=1))
    assert next(net.parameters()).device.type == "cuda"
    assert np.mean(losses(tmp_path)[-10:]) < np.mean(losses(tmp_path / "teacher")[:5])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "recipe", "complaint"),
    [
        ("pose", {"amp": "fp16"}, "supernet: recipe: amp: found fp16, expected bf16 or no"),
        ("pose", {"model_ema_decay": 0.9}, "model_ema_decay: found 0.9, expected None for a supernet"),
        ("pose", {"drop_path": 0.1}, "drop_path: found 0.1, expected 0.0"),
        ("pose", {"speed": 1}, "supernet: recipe: speed: found no such field"),
        ("pose", {"mixup": 0.2}, "recipe: mixup: found it for pose, expected it for classification"),
        ("pose", {"ohem_threshold": 0.7}, "ohem_threshold: found it for pose, expected it for segmentation"),
        ("segmentation", {"distill_weight": 2.0}, "found it in the recipe, expected it in the section supernet"),
        ("segmentation", {"batch_size": 64}, "shapes: found 40 images of train, expected at least a batch of 64"),
        ("segmentation", {"opt": "nonesuch"}, "opt: found 'nonesuch', expected one of timm's optimisers"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(
    head: Head, recipe: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint):
        run(tmp_path, head, settings(recipe, **ALONE))
    assert not (tmp_path / "settings.json").exists()


def test_data_for_another_task_or_of_other_classes_are_refused(tmp_path: Path) -> None:
    data = Shapes("pose", 40), Shapes("pose", 8, "val")
    for values in (ALONE, {}):  # with a teacher, before it is trained
        with pytest.raises(
            InputError, match="found data for pose, expected data for segmentation, the task of largest"
        ):
            train_scalenas(
                supernet("segmentation"), settings(**values), *data, tmp_path, LoopOptions(workers=0, cpu=True)
            )
    other = ScaleNASSupernet(space_of("pose"), 17)
    with pytest.raises(InputError, match="shapes: found 2 joints, expected 17 as largest has"):
        train_scalenas(other, settings(**ALONE), *data, tmp_path, HERE)


def test_teachers_that_do_not_fit_are_refused(teachers: dict[Head, Path], tmp_path: Path) -> None:
    def refused(source: str, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as caught:
            run(tmp_path / "run", "pose", settings(teacher=TeacherSettings(weights=source)))
        assert "\n" not in str(caught.value)

    def of(spec: ArchSpec, labels: tuple[str, ...] = ()) -> str:
        model = create_model(spec)
        cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        cfg["labels"] = {"names": labels}
        return str(write_model(model, tmp_path / f"{len(list(tmp_path.iterdir()))}"))

    space = space_of("pose")
    largest = space.spec(space.largest, 2)
    wide = space_of("pose", width=5)
    refused(of(wide.spec(wide.largest, 2)), "teacher: width: found 5, expected 4, as in the supernet")
    refused(str(teachers["segmentation"]), "teacher: candidate: found 3 classes and 3 channels, expected 2 and 3")
    segmentation = space_of("segmentation")
    refused(of(segmentation.spec(segmentation.largest, 2)), "teacher: head: found segmentation, expected pose")
    refused(of(largest.replace(classes=5)), "teacher: candidate: found 5 classes and 3 channels, expected 2 and 3")
    refused(of(largest, ("nose", "neck")), "found 'left_corner' as joint 0, expected 'nose' as candidate has")
    refused(of(SPECS["classification"]), "found a classifier in .*, expected a multipath network")
    refused("hrnet_w32_pose", "weights: found hrnet_w32_pose, expected a folder that `train` wrote, hf-hub:org/name")
    with pytest.raises(WeightsError, match=r"none.safetensors: expected a file of weights"):
        run(tmp_path / "run", "pose", settings(teacher=TeacherSettings(weights="none.safetensors")))
    with pytest.raises(InputError, match="teacher: width: found 32, expected 4, as in the supernet"):
        run(tmp_path / "run", "pose", settings(teacher=TeacherSettings(pretrained="hrnet_w32_pose")))
    with pytest.raises(InputError, match="supernet: teacher: recipe: mixup: found it for pose"):
        run(tmp_path / "run", "pose", settings(teacher=TeacherSettings(recipe={"mixup": 0.1})))
    with pytest.raises(ValidationError, match="found weights with pretrained or recipe, expected only weights"):
        TeacherSettings(weights="folder", recipe={"epochs": 3})
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_resume_with_other_settings(teachers: dict[Head, Path], tmp_path: Path) -> None:
    one = {"epochs": 1}
    teacher = taught(teachers["pose"])
    run(tmp_path / "run", "pose", settings(one, teacher=teacher))
    with pytest.raises(TrainingError, match=r"recipe.lr: found 0.01 in this run, expected 0.1, as now given"):
        run(tmp_path / "run", "pose", settings({"epochs": 1, "lr": 0.1}, teacher=teacher))
    with pytest.raises(TrainingError, match=r"sampler: found 'grouped' in this run, expected 'uniform'"):
        run(tmp_path / "run", "pose", settings(one, teacher=teacher, sampler="uniform"))
    space = space_of("pose")
    file = tmp_path / "other.safetensors"
    other = random_model(space.spec(space.largest, 2), drop_rate=0.0)
    write_model(other, tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").rename(file)
    chosen = settings(one, teacher=taught(file))
    run(tmp_path / "file", "pose", chosen)
    first = next(other.parameters())
    first.data.mul_(2)
    write_model(other, tmp_path / "changed")
    (tmp_path / "changed" / "model.safetensors").replace(file)
    with pytest.raises(
        TrainingError, match=r"teacher_sha256: found '\w{64}' in this run, expected '\w{64}', as now given"
    ):
        run(tmp_path / "file", "pose", chosen)


def test_a_supernet_of_another_space_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "pose", settings({"epochs": 1}, **ALONE))
    (newest,) = checkpoints(tmp_path)
    assert space_of("pose").hash in (newest / "training.json").read_text()
    with pytest.raises(WeightsError, match="found a supernet of another space, expected tiny"):
        load_supernet(supernet("segmentation"), tmp_path)
    with pytest.raises(WeightsError, match="does not fit tiny: .*size mismatch"):
        load_supernet(ScaleNASSupernet(space_of("pose"), 3), tmp_path)


# --- inheritance ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation network of the space, but narrower, without its largest mask."""
    space = space_of("segmentation", width=3)
    model: Any = random_model(space.spec(space.smallest, classes_of("segmentation"), "source"))
    model.pretrained_cfg |= {"labels": Shapes("segmentation", 1).labels.to_cfg(), "mean": [0.1, 0.2, 0.3]}
    folder = tmp_path_factory.mktemp("source") / "model"
    save_model(model, folder)
    return folder


def features(network: nn.Module) -> Tensor:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        result: Tensor = network.eval()(images)
    return result


def test_a_supernet_without_a_teacher_begins_with_what_is_inherited(source: Path, tmp_path: Path) -> None:
    chosen = settings(inherit=str(source), init="scratch", distill_weight=0.0)
    trainer = trainer_of("segmentation", tmp_path, chosen)
    assert trainer.load() is None
    expected = features(create_model(source))
    found = features(trainer.supernet.largest.cpu())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_teacher_begins_with_what_is_inherited(source: Path, tmp_path: Path) -> None:
    """With a learning rate of 0 it is what it began with; and so is the supernet, whose weights are the teacher's."""
    chosen = settings({"epochs": 1, "lr": 0.0}, inherit=str(source))
    net = supernet("segmentation")
    data = Shapes("segmentation", 40)
    train_scalenas(net, chosen, data, data, tmp_path, HERE)
    teacher = create_model(tmp_path / "teacher")
    assert isinstance(teacher, MultipathNet)
    assert Interface.of_network(teacher).mean == (0.1, 0.2, 0.3)
    given, ours = create_model(source).state_dict(), teacher.state_dict()
    for name in ("stem.0.conv.weight", "stage1.0.conv1.conv.weight"):  # of the same size in both
        assert torch.equal(ours[name], given[name]), name
    record = teacher.spec.provenance.details["inherited"]
    assert isinstance(record, dict)
    assert record["exact"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"inherit": "hrnet_w32", "teacher": {"weights": "runs/wide"}}, "inherit: found it with the teacher runs/wide"),
        ({"inherit": "hrnet_w32", "teacher": {"pretrained": "hrnet_w18"}}, "found it with the teacher hrnet_w18"),
    ],
)
def test_weights_of_two_origins_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ScaleNASSettings.model_validate(values)
