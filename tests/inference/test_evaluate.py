"""Evaluation of networks and of exported files, in the library and on the command line."""

import gc
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import nn

from scalenet_zoo import create_model
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError, WeightsError
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.tensorrt.build import EngineNetwork, EngineOptions, build_engine
from scalenet_zoo.inference.evaluate import Evaluation, check_labels, evaluate_network
from scalenet_zoo.inference.predict import DECISIONS
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.publish import push
from tests.helpers.command import Run
from tests.helpers.data_files import write_shards
from tests.helpers.fake_tensorrt import fake_tensorrt
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.networks import random_model
from tests.helpers.processes import run_processes
from tests.helpers.shapes import SPECS, Shapes
from tests.helpers.tensorrt_bindings import VERSIONS

TASKS: tuple[Task, ...] = ("classification", "segmentation", "pose")
EPOCHS = {"classification": 2, "segmentation": 8, "pose": 4}
LR = {"classification": 1e-2, "segmentation": 2e-2, "pose": 1e-2}


def fitted(task: Task, folder: Path) -> nn.Module:
    """A small network that has learned something of `Shapes`."""
    if not (folder / "best").exists():
        torch.manual_seed(0)
        recipe = Recipe(epochs=EPOCHS[task], batch_size=8, lr=LR[task], scale=(0.8, 1.0), hflip=0.0)
        data = Shapes(task, 64)
        network = create_model(SPECS[task], num_classes=len(data.labels.names))
        train_network(network, recipe, data, Shapes(task, 16, "val"), folder, Options(workers=0, cpu=True))
    return create_model(f"local-dir:{folder / 'best'}")


@pytest.fixture(scope="module")
def networks(shared: Path, worker_id: str) -> dict[Task, nn.Module]:
    """Trained once for all processes, of which two begin at both ends rather than wait for each other."""
    found: dict[Task, nn.Module] = {}
    for task in reversed(TASKS) if worker_id == "gw1" else TASKS:
        with FileLock(shared / f"evaluate_{task}.lock"):
            found[task] = fitted(task, shared / "evaluate" / task)
    return found


def same(ours: Evaluation, theirs: Evaluation, tolerance: float = 1e-6) -> bool:
    """Whether two evaluations found the same, to rounding."""
    ious = [dict(found.metrics).pop("iou", {}) for found in (ours, theirs)]
    numbers = [{k: v for k, v in found.metrics.items() if k != "iou"} for found in (ours, theirs)]
    return ours.images == theirs.images and all(a == pytest.approx(b, abs=tolerance) for a, b in (numbers, ious))


@pytest.fixture(scope="module")
def deciding(networks: dict[Task, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    """Files of the same networks, which normalise images and give probabilities, classes of pixels, or joints."""
    paths = {task: tmp_path_factory.mktemp("deciding") / f"{task}.onnx" for task in TASKS}
    for task, path in paths.items():
        export_onnx(networks[task], path, OnnxOptions(output=DECISIONS[task], preprocess=True))
    return paths


@dataclass(frozen=True)
class Broken:
    """Examples of which every fourth cannot be read."""

    whole: Any

    def __getattr__(self, name: str) -> Any:
        if name == "whole":
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, index: int) -> Any:
        if index % 4 == 1:
            raise InputError(f"{self.whole.name(index)}: cannot be read")
        return self.whole.read(index)


# --- networks -------------------------------------------------------------------------------------


def test_what_networks_have_learned_is_measured(networks: dict[Task, nn.Module]) -> None:
    for task, metric, low, high in (
        ("classification", "top1", 0.5, 0.95),
        ("segmentation", "miou", 0.4, 0.99),
        ("pose", "ap", 0.5, 0.99),
    ):
        found = evaluate_network(networks[task], Shapes(task, 30, "val"))  # type: ignore[index, arg-type]
        assert low < found.metrics[metric] < high  # type: ignore[operator]
        assert (found.task, found.model, found.data, found.split) == (task, networks[task].spec.name, "shapes", "val")  # type: ignore[index, union-attr]
        assert (found.images, found.broken) == (30, ())
        assert found.seconds > 0
        assert json.loads(json.dumps(found.to_dict()))["metrics"] == found.metrics


@pytest.mark.parametrize("task", TASKS)
def test_batches_workers_and_memory_formats_make_no_difference(networks: dict[Task, nn.Module], task: Task) -> None:
    network, data = networks[task], Shapes(task, 13, "val")
    alone = evaluate_network(network, data, batch_size=13)
    assert same(evaluate_network(network, data, batch_size=4, workers=2), alone, 1e-5)
    network.to(memory_format=torch.channels_last)
    assert same(evaluate_network(network, data, batch_size=5), alone, 1e-5)


def test_a_classifier_is_measured_as_a_loop_would(networks: dict[Task, nn.Module]) -> None:
    network, data = networks["classification"].eval(), Shapes("classification", 25, "val")
    transform = prepare_inference(network).transform
    pairs = [data.read(i) for i in range(25)]
    with torch.inference_mode():
        logits = network(torch.stack([torch.as_tensor(transform(image)) for image, _ in pairs]))
    right = logits.argmax(1) == torch.tensor([target for _, target in pairs])
    assert evaluate_network(network, data, batch_size=7).metrics["top1"] == pytest.approx(float(right.float().mean()))


def test_a_network_is_left_as_it_was_found() -> None:
    network: Any = random_model(SPECS["classification"]).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    strides = [value.stride() for value in network.parameters()]
    evaluate_network(network, Shapes("classification", 4))
    assert network.training
    assert all(value.equal(state[name]) for name, value in network.state_dict().items())
    assert [value.stride() for value in network.parameters()] == strides
    network(torch.zeros(2, 3, 32, 32)).sum().backward()  # it can still be trained
    network.pretrained_cfg["labels"] = {"names": ["dark", "green", "tail"]}
    with pytest.raises(InputError):
        evaluate_network(network.eval(), Shapes("classification", 4))
    assert not network.training


def test_autocast_loses_little(networks: dict[Task, nn.Module]) -> None:
    network, data = networks["segmentation"], Shapes("segmentation", 6, "val")
    half = evaluate_network(network, data, dtype=torch.bfloat16)
    assert half.metrics != evaluate_network(network, data).metrics
    assert same(half, evaluate_network(network, data), 0.02)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_a_stream_of_unknown_order_is_evaluated(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    told: list[tuple[str, int, int]] = []
    data = open_data(f"wds:{write_shards(tmp_path)}", "classification", "val")
    network = random_model(SPECS["classification"])
    found = evaluate_network(network, data, batch_size=5, on_progress=lambda *told_: told.append(told_))
    again = evaluate_network(network, data, batch_size=12)
    assert found.images == again.images == 12
    assert same(found, again, 1e-5)
    assert [done for _, done, _ in told] == [1, 2, 3]
    gc.collect()


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    network: Any = random_model(SPECS["classification"])
    evaluate_network(network, Shapes("classification", 7), batch_size=3, on_progress=lambda *told_: told.append(told_))
    assert told == [("evaluating tiny", i, 3) for i in (1, 2, 3)]


# --- mirror images --------------------------------------------------------------------------------


def test_the_mean_with_the_mirror_image() -> None:
    network: Any = random_model(SPECS["classification"])
    inference = prepare_inference(network)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = (network(images) + network(images.flip(3))) / 2
        torch.testing.assert_close(inference.mirrored(Labels()).run(images), expected)
        # A network whose output is its input: whatever is mirrored on the way in is mirrored back.
        dense = replace(inference, run=lambda images: images, spec=SPECS["segmentation"])
        torch.testing.assert_close(dense.mirrored(Labels()).run(images), images)
        pose = replace(dense, spec=SPECS["pose"])
        labels = Labels(names=("left", "right", "nose"), flip_pairs=((0, 1),))
        mean = (images[:, 0] + images[:, 1]) / 2
        expected = torch.stack([mean, mean, images[:, 2]], 1)
        torch.testing.assert_close(pose.mirrored(labels).run(images), expected)


@pytest.mark.parametrize("task", TASKS)
def test_a_mirrored_data_set_has_the_same_figures_with_flip(networks: dict[Task, nn.Module], task: Task) -> None:
    class Mirrored(Shapes):
        def read(self, index: int) -> tuple[Image.Image, Any]:
            image, target = super().read(index)
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if task == "segmentation":
                target = np.ascontiguousarray(target[:, ::-1])
            if task == "pose":
                joints = target.keypoints[::-1].copy()
                joints[:, 0] = 63 - joints[:, 0]
                target = replace(target, keypoints=joints)
            return image, target

    network = networks[task]
    plain, mirrored = Shapes(task, 12, "val"), Mirrored(task, 12, "val")
    assert same(evaluate_network(network, plain, flip=True), evaluate_network(network, mirrored, flip=True), 1e-4)
    if task != "classification":
        assert not same(evaluate_network(network, plain), evaluate_network(network, mirrored), 1e-6)


# --- tiles and boxes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Large(Shapes):
    """Two by two images in one."""

    def read(self, index: int) -> tuple[Image.Image, Any]:
        parts = [super(Large, self).read(4 * index + i) for i in range(4)]
        picture = Image.new("RGB", (128, 128))
        for i, (part, _) in enumerate(parts):
            picture.paste(part, (64 * (i % 2), 64 * (i // 2)))
        masks = [mask for _, mask in parts]
        return picture, np.vstack([np.hstack(masks[:2]), np.hstack(masks[2:])])


def test_large_images_are_evaluated_in_tiles(networks: dict[Task, nn.Module]) -> None:
    """Tiles that do not overlap are the four images that the network knows."""
    network = networks["segmentation"]
    tiled = evaluate_network(network, Large("segmentation", 3, "val"), overlap=0.0, batch_size=3)
    assert tiled.images == 3
    assert same(replace(tiled, images=12), evaluate_network(network, Shapes("segmentation", 12, "val")), 1e-3)
    squeezed = evaluate_network(network, Large("segmentation", 3, "val"))
    overlapping = evaluate_network(network, Large("segmentation", 3, "val"), overlap=0.25)
    assert squeezed.metrics["miou"] < overlapping.metrics["miou"]  # type: ignore[operator]
    flipped = evaluate_network(network, Large("segmentation", 3, "val"), overlap=0.25, flip=True, workers=1)
    assert flipped.metrics["miou"] == pytest.approx(tiled.metrics["miou"], abs=0.2)
    broken = evaluate_network(network, Broken(Large("segmentation", 3, "val")), overlap=0.25)
    assert (broken.images, broken.broken) == (2, ("shape 1: cannot be read",))


def test_classes_of_a_file_are_evaluated_in_tiles(networks: dict[Task, nn.Module], deciding: dict[Task, Path]) -> None:
    data = Large("segmentation", 2, "val")
    found, expected = (
        evaluate_network(one, data, overlap=0.25)
        for one in (OnnxNetwork.load(deciding["segmentation"]), networks["segmentation"])
    )
    assert "ece" not in found.metrics
    assert found.metrics["miou"] == pytest.approx(expected.metrics["miou"], abs=0.05)


def test_only_segmentations_have_tiles(networks: dict[Task, nn.Module]) -> None:
    for task in ("classification", "pose"):
        with pytest.raises(InputError, match="found a network for .*, expected segmentation for pictures in tiles"):
            evaluate_network(networks[task], Shapes(task, 2), overlap=0.25)


def test_what_cannot_be_averaged_is_refused(networks: dict[Task, nn.Module], deciding: dict[Task, Path]) -> None:
    with pytest.raises(InputError, match="tiny_pose: found joints as output, expected raw outputs for a flip test"):
        evaluate_network(OnnxNetwork.load(deciding["pose"]), Shapes("pose", 2), flip=True)
    with pytest.raises(InputError, match="found no pairs of left and right joints"):
        prepare_inference(networks["pose"]).mirrored(Labels())


# --- exported files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classification", OnnxOptions()),
        ("classification", OnnxOptions(preprocess=True, batch=(1, 2, 3))),
        ("segmentation", OnnxOptions(preprocess=True, batch=(5, 5, 5))),
        pytest.param("pose", OnnxOptions(precision="fp16", io="fp16", batch=(2, 4, 4)), marks=pytest.mark.nightly),
    ],
    ids=["plain", "preprocess", "fixed", "fp16"],
)
def test_a_file_has_its_networks_figures(
    networks: dict[Task, nn.Module], task: Task, options: OnnxOptions, tmp_path: Path
) -> None:
    data = Shapes(task, 13, "val")
    export_onnx(networks[task], tmp_path / "x.onnx", options)
    found = evaluate_network(OnnxNetwork.load(tmp_path / "x.onnx"), data)
    assert same(found, evaluate_network(networks[task], data), 1e-2 if options.precision == "fp16" else 1e-4)
    assert Metadata.read(tmp_path / "x.onnx").class_names == data.labels.names  # as training left them


def test_files_that_decide_have_nearly_their_networks_figures(
    networks: dict[Task, nn.Module], deciding: dict[Task, Path]
) -> None:
    found = {}
    for task, path in deciding.items():
        data = Shapes(task, 20, "val")
        found[task] = evaluate_network(OnnxNetwork.load(path), data), evaluate_network(networks[task], data)
    assert same(*found["classification"], 1e-4)
    assert same(*found["pose"], 1e-4)
    ours, theirs = (evaluation.metrics for evaluation in found["segmentation"])
    assert "ece" not in ours
    assert ours["miou"] == pytest.approx(theirs["miou"], abs=0.05)  # the classes of blocks of four by four pixels
    assert ours["pixel_accuracy"] == pytest.approx(theirs["pixel_accuracy"], abs=0.02)


@pytest.mark.parametrize(
    "task", ["classification", *(pytest.param(task, marks=pytest.mark.slow) for task in TASKS[1:])]
)
def test_what_int8_loses_is_measured(networks: dict[Task, nn.Module], task: Task, tmp_path: Path) -> None:
    data = Shapes(task, 40, "val")
    for i in range(16):
        Shapes(task, 16).read(i)[0].save(tmp_path / f"{i}.png")
    images = sorted(tmp_path.glob("*.png"))
    export_onnx(networks[task], tmp_path / "x.onnx", OnnxOptions(precision="int8"), images)
    found, plain = evaluate_network(OnnxNetwork.load(tmp_path / "x.onnx"), data), evaluate_network(networks[task], data)
    assert found.metrics != plain.metrics
    assert same(found, plain, 0.12)


def test_an_engine_has_its_networks_figures(
    networks: dict[Task, nn.Module],
    fake_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The engine is built and run by the fake of TensorRT, on the CPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(VERSIONS[-1]))
    export_onnx(networks["pose"], tmp_path / "x.onnx")
    build_engine(tmp_path / "x.onnx", tmp_path / "x.engine", EngineOptions(batch=(2, 3, 4)))
    data = Shapes("pose", 9, "val")  # two batches of 4, and one that is filled up
    found = evaluate_network(EngineNetwork.load(tmp_path / "x.engine"), data)
    assert same(found, evaluate_network(networks["pose"], data), 1e-4)


# --- classes and joints, found by name ------------------------------------------------------------


@dataclass(frozen=True)
class Renumbered(Shapes):
    """The same with classes or joints in another order."""

    @property
    def _order(self) -> list[int]:
        return [1, 0] if self.task == "pose" else [2, 0, 1]

    @property
    def labels(self) -> Labels:
        labels = super().labels
        return labels.model_copy(update={"names": tuple(labels.names[i] for i in self._order)})

    def read(self, index: int) -> Any:
        image, target = super().read(index)
        if self.task == "pose":
            return image, replace(target, keypoints=target.keypoints[self._order])
        numbers = np.argsort(self._order).astype(np.uint8)
        return image, numbers[target] if self.task == "segmentation" else int(numbers[target])


@pytest.mark.parametrize("task", TASKS)
def test_the_order_of_classes_and_joints_makes_no_difference(
    networks: dict[Task, nn.Module], deciding: dict[Task, Path], task: Task
) -> None:
    for network in (networks[task], OnnxNetwork.load(deciding[task])):
        same_names, others = (evaluate_network(network, data(task, 9, "val"), 4) for data in (Shapes, Renumbered))
        assert same(same_names, others)
        assert "top1_of_these" not in others.metrics
    same_names, others = (
        evaluate_network(networks[task], data(task, 9, "val"), flip=True) for data in (Shapes, Renumbered)
    )
    assert same(same_names, others)


RGB = {"ant": (0, 0, 0), "cat": (255, 0, 0), "dog": (0, 255, 0), "horse": (0, 0, 255)}


def write_colours(root: Path, classes: dict[str, tuple[int, int, int]], split: str = "val", count: int = 3) -> str:
    """An image folder in which an image's colour tells its class."""
    for name, colour in classes.items():
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), colour).save(root / split / name / f"{i}.png")
    return f"imagefolder:{root}"


def colour_network(names: tuple[str, ...], ids: tuple[str, ...] = ()) -> Any:
    """A network that knows red, green and blue by these names."""
    network: Any = random_model(SPECS["classification"], num_classes=3)
    network.pretrained_cfg["labels"] = Labels(names=names, ids=ids).to_cfg()
    network.forward = lambda images: images.mean((2, 3)) * 10
    return network


def test_a_folder_of_other_classes_is_measured_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = colour_network(("cat", "dog", "horse"))
    same_classes = open_data(
        write_colours(tmp_path / "A", {k: RGB[k] for k in ("cat", "dog", "horse")}), "classification", "val"
    )
    assert evaluate_network(network, same_classes).metrics["top1"] == 1.0
    assert not caplog.messages
    unknown = open_data(
        write_colours(tmp_path / "B", {k: RGB[k] for k in ("ant", "cat", "dog")}), "classification", "val"
    )
    with pytest.raises(
        InputError, match="B: found the class 'ant', which tiny does not know, expected one of cat, dog, horse$"
    ):
        evaluate_network(network, unknown)
    # One of three horses is as green as a dog: that is wrong; one of three dogs is red as a cat, which these are not.
    fewer = {"DOG ": RGB["dog"], "horse": RGB["horse"]}
    source = write_colours(tmp_path / "C", fewer)
    Image.new("RGB", (32, 32), RGB["dog"]).save(tmp_path / "C" / "val" / "horse" / "0.png")
    Image.new("RGB", (32, 32), (255, 200, 0)).save(tmp_path / "C" / "val" / "DOG " / "0.png")
    metrics = evaluate_network(network, open_data(source, "classification", "val")).metrics
    assert metrics["top1"] == pytest.approx(4 / 6)
    assert metrics["top1_of_these"] == pytest.approx(5 / 6)
    assert "C: has 2 of the 3 classes that tiny knows" in caplog.text


def test_one_class_alone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_colours(tmp_path, {"dog": RGB["dog"]})
    assert (
        evaluate_network(colour_network(("cat", "dog", "horse")), open_data(source, "classification", "val")).images
        == 3
    )
    assert "val has only the class 'dog': always predicting it is always right" in caplog.text
    caplog.clear()

    class Void(Shapes):
        def read(self, index: int) -> Any:
            image, mask = super().read(index)
            return image, np.where(mask > 0, np.uint8(1), np.uint8(255))

    evaluate_network(random_model(SPECS["segmentation"]), Void("segmentation", 2))
    assert "shapes: split train has only the class 'red'" in caplog.text


SYNSETS = {"n01440764": 0, "n02102040": 217, "n03126707": 517}
"""Tench, English springer and the crane that is a machine, with their numbers in ImageNet."""


@pytest.mark.parametrize("labelled", [False, True])
def test_imagenets_classes_are_found_by_their_synsets(tmp_path: Path, labelled: bool) -> None:
    """A network of 1000 classes, or of four of them in another order, which has both of ImageNet's cranes."""
    ids = ("n03126707", "n02102040", "n02012849", "n01440764") if labelled else ()
    network: Any = random_model(SPECS["classification"], num_classes=len(ids) or 1000)
    if labelled:
        words = ("crane", "English springer", "crane", "tench")
        network.pretrained_cfg["labels"] = Labels(names=words, ids=ids).to_cfg()
    numbers = [ids.index(name) if labelled else SYNSETS[name] for name in SYNSETS]
    bird = 2 if labelled else 134

    def forward(images: torch.Tensor) -> torch.Tensor:
        logits = images.new_zeros(len(images), len(ids) or 1000)
        logits[:, numbers] = images.mean((2, 3)) * 10
        logits[images.amax((1, 2, 3)) < 1, bird] = 50  # dark images
        return logits

    network.forward = forward
    source = write_colours(tmp_path, dict(zip(SYNSETS, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True)))
    Image.new("RGB", (32, 32), (0, 0, 140)).save(tmp_path / "val" / "n03126707" / "0.png")
    metrics = evaluate_network(network, open_data(source, "classification", "val")).metrics
    assert metrics["top1"] == pytest.approx(8 / 9)
    assert metrics["top1_of_these"] == 1.0


def test_words_of_imagenet_that_two_classes_have_are_refused(tmp_path: Path) -> None:
    network: Any = random_model(SPECS["classification"], num_classes=1000)
    source = write_colours(tmp_path, {"tench": RGB["cat"], "crane": RGB["dog"]}, count=1)
    with pytest.raises(InputError, match="found the class 'crane' more than once in tiny, expected it once"):
        evaluate_network(network, open_data(source, "classification", "val"))


def test_data_without_names_go_by_number(caplog: pytest.LogCaptureFixture) -> None:
    class Nameless(Shapes):
        @property
        def labels(self) -> Labels:
            return Labels()

    network: Any = random_model(SPECS["segmentation"])
    network.pretrained_cfg["labels"] = Shapes("segmentation", 1).labels.to_cfg()
    plain, nameless = (evaluate_network(network, data("segmentation", 3)) for data in (Shapes, Nameless))
    assert plain.metrics["miou"] == nameless.metrics["miou"]
    assert (
        "shapes: has no names for its classes; they are matched to those of tiny_segmentation by number" in caplog.text
    )


def test_a_teacher_is_to_have_the_same_order() -> None:
    spec, shapes = SPECS["classification"], Shapes("classification", 1)
    check_labels(spec, Labels(names=("dark", "red", "green")), shapes)
    check_labels(spec, Labels(), shapes)
    for names, complaint in (
        (("dark", "green", "red"), "shapes: found 'red' as class 1, expected 'green' as tiny has"),
        (("dark", "red", "blue"), "shapes: found 'green' as class 2, expected 'blue' as tiny has"),
    ):
        with pytest.raises(InputError, match=complaint):
            check_labels(spec, Labels(names=names), shapes)
    with pytest.raises(InputError, match="shapes: found 3 of the 4 classes that tiny has"):
        check_labels(spec.replace(classes=4), Labels(names=("dark", "red", "green", "blue")), shapes)


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "names", "complaint"),
    [
        ("classification", ["dark", "red", "tail"], "shapes: found the class 'green', which tiny does not know"),
        ("classification", ["noir", "rouge", "vert"], "'dark' and 2 more, .* expected one of noir, rouge, vert$"),
        ("classification", ["dark", "green", "green"], "found the class 'red' and 1 more, which tiny does not know"),
        ("segmentation", ["dark", "red", "blue"], "shapes: found the class 'green', which tiny_segmentation does not"),
        ("pose", ["left_corner", "tail"], "shapes: found the joint 'right_corner', which tiny_pose does not know"),
        ("pose", ["tail", "right_corner", "left_corner"], "shapes: found 2 joints, expected 3 as tiny_pose has"),
    ],
)  # fmt: skip
def test_other_names_are_refused(task: Task, names: list[str], complaint: str) -> None:
    network: Any = random_model(SPECS[task], num_classes=len(names))
    network.pretrained_cfg["labels"] = {"names": names}
    with pytest.raises(InputError, match=complaint):
        evaluate_network(network, Shapes(task, 4))


def test_other_counts_and_tasks_are_refused() -> None:
    for task, classes, complaint in (
        ("classification", 4, "shapes: found 3 classes, expected 4 as tiny has"),
        ("pose", 17, "shapes: found 2 joints, expected 17 as tiny_pose has"),
        ("classification", 0, "tiny: found a network without a classifier"),
    ):
        with pytest.raises(InputError, match=complaint):
            evaluate_network(random_model(SPECS[task], num_classes=classes), Shapes(task, 4))  # type: ignore[index, arg-type]
    with pytest.raises(InputError, match="shapes: found data for segmentation, expected data for classification"):
        evaluate_network(random_model(SPECS["classification"]), Shapes("segmentation", 4))


@pytest.mark.parametrize("task", TASKS)
def test_broken_images_are_named_and_left_out(networks: dict[Task, nn.Module], task: Task) -> None:
    data = Shapes(task, 10, "val")
    found = evaluate_network(networks[task], Broken(data), batch_size=1)
    assert found.images == 7
    assert found.broken == ("shape 1: cannot be read", "shape 5: cannot be read", "shape 9: cannot be read")

    class Whole(Shapes):
        def read(self, index: int) -> tuple[Image.Image, Any]:
            return super().read([0, 2, 3, 4, 6, 7, 8][index])

    assert same(found, evaluate_network(networks[task], Whole(task, 7, "val")), 1e-5)
    with pytest.raises(InputError, match=r"found 3 images .* expected at most 2: shape 1: cannot be read"):
        evaluate_network(networks[task], Broken(data), broken_limit=2)


def test_nothing_to_look_at() -> None:
    network: Any = random_model(SPECS["classification"])
    with pytest.raises(InputError, match="shapes: found no images in the split train, expected some"):
        evaluate_network(network, Shapes("classification", 0))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers(task: Task, value: float) -> None:
    network: Any = random_model(SPECS[task], num_classes=len(Shapes(task, 1).labels.names))
    list(network.parameters())[-1].data.fill_(value)
    with pytest.raises(WeightsError, match="found outputs that are not finite, expected finite numbers"):
        evaluate_network(network, Shapes(task, 3))


# --- several processes ----------------------------------------------------------------------------


def _evaluate_share(rank: int, world: int, count: int, broken: bool) -> list[Any]:
    found = []
    for task in TASKS:
        data: Any = Shapes(task, count, "val")
        network: Any = random_model(SPECS[task], num_classes=len(data.labels.names))
        evaluation = evaluate_network(network, Broken(data) if broken else data, 2, rank=rank, world=world)
        found.append((evaluation.metrics, evaluation.images, sorted(evaluation.broken)))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("count", "broken"), [(7, True), (1, False), pytest.param(7, False, marks=pytest.mark.nightly)]
)
def test_two_processes_find_what_one_does(count: int, broken: bool) -> None:
    alone = _evaluate_share(0, 1, count, broken)
    for of_process in run_processes(_evaluate_share, 2, count, broken):
        for (metrics, *rest), (expected, *others) in zip(of_process, alone, strict=True):
            assert rest == others
            assert metrics.pop("iou", None) == pytest.approx(expected.get("iou"))
            assert metrics == pytest.approx({k: v for k, v in expected.items() if k != "iou"}, abs=1e-6)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def folders(networks: dict[Task, nn.Module], tmp_path: Path) -> Path:
    """Data sets of each task on a disk, and networks for them."""
    for task in TASKS:
        write_data(Shapes(task, 8, "val"), tmp_path / f"{task}_data")
        (tmp_path / task).mkdir()
        save_model(networks[task], tmp_path / task)
    return tmp_path


def write_data(shapes: Shapes, folder: Path) -> None:
    """Shapes as an image folder, images with masks, or COCO keypoints."""
    names = shapes.labels.names
    folder.mkdir()
    if shapes.task == "segmentation":
        (folder / "masks").mkdir()
        (folder / "val.txt").write_text("".join(f"{i}\n" for i in range(len(shapes))))
        classes = [{"index": i, "name": name, "color": [90 * i, 0, 0]} for i, name in enumerate(names)]
        (folder / "classes.json").write_text(json.dumps(classes))
    images = {"classification": folder / "val", "segmentation": folder / "images", "pose": folder / "images" / "val"}
    images[shapes.task].mkdir(parents=True)
    if shapes.task == "classification":  # of which there is none else
        (images["classification"] / "dark").mkdir()
        Image.new("RGB", (64, 64)).save(images["classification"] / "dark" / "dark.png")
    annotations = []
    for i in range(len(shapes)):
        image, target = shapes.read(i)
        place = images[shapes.task]
        if shapes.task == "classification":
            place /= names[target]
            place.mkdir(exist_ok=True)
        image.save(place / f"{i}.png")
        if shapes.task == "segmentation":
            Image.fromarray(target).save(folder / "masks" / f"{i}.png")
        if shapes.task == "pose":
            keypoints, area = target.keypoints.ravel().tolist(), target.area
            person = {"keypoints": keypoints, "num_keypoints": 2, "bbox": list(target.box), "area": area, "iscrowd": 0}
            annotations.append({"id": i + 1, "image_id": i, "category_id": 1, **person})
    if shapes.task == "pose":
        category = {"id": 1, "name": "square", "keypoints": list(names), "skeleton": [[1, 2]], "sigmas": [0.1, 0.1]}
        pictures = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(len(shapes))]
        document = {"images": pictures, "annotations": annotations, "categories": [category]}
        (folder / "annotations").mkdir()
        (folder / "annotations" / "person_keypoints_val.json").write_text(json.dumps(document))


SOURCES = {"classification": "imagefolder", "segmentation": "masks", "pose": "coco"}


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_and_a_file_on_the_command_line(
    run: Run,
    folders: Path,
    deciding: dict[Task, Path],
    task: Task,
) -> None:
    data = f"{SOURCES[task]}:{folders / f'{task}_data'}"
    found = run.json("evaluate", folders / task, "--data", data, "--workers", 0, "--batch-size", 3)
    count = 9 if task == "classification" else 8
    assert (found["images"], found["source"]) == (count, str(folders / task))
    of_file = run.json("evaluate", deciding[task], "--data", data, "--workers", 0)
    assert of_file["metrics"].keys() | {"ece"} == found["metrics"].keys() | {"ece"}
    main = {"classification": "top1", "segmentation": "miou", "pose": "ap"}[task]
    assert of_file["metrics"][main] == pytest.approx(found["metrics"][main], abs=0.05)
    code, out, err = run("evaluate", folders / task, "--data", data, "--workers", 0)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"tiny{'' if task == 'classification' else '_' + task} on {data} val: {count} ")
    first = {"classification": "top-1 accuracy", "segmentation": "mean IoU", "pose": "AP"}[task]
    assert lines[3].split("  ")[0] == first
    assert lines[3].split()[-1] == f"{found['metrics'][main]:.2%}"
    if task == "segmentation":
        assert [line.split()[0] for line in lines[-3:]] == ["dark", "red", "green"]


def test_fewer_classes_on_the_command_line(
    run: Run,
    folders: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = folders / "classification_data"
    (data / "val" / "green").rename(folders / "green")
    arguments = ["evaluate", folders / "classification", "--data", data, "--workers", 0]
    figures = run.json(*arguments)["metrics"]
    assert figures["top1_of_these"] >= figures["top1"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert f"top-1 accuracy among the data's classes {figures['top1_of_these']:.2%}" in " ".join(out.split())
    assert f"{data}: has 2 of the 3 classes that tiny knows" in caplog.text


def test_tiles_on_the_command_line(run: Run, folders: Path) -> None:
    arguments = ["evaluate", folders / "segmentation", "--data", folders / "segmentation_data", "--workers", 0]
    plain, tiled = (run.json(*arguments, *more) for more in ((), ("--tile", "--overlap", 0.5)))
    for metric in ("miou", "pixel_accuracy", "ece"):  # images of the network's size are one tile
        assert plain["metrics"][metric] == pytest.approx(tiled["metrics"][metric], abs=1e-6)
    assert run.error(*arguments, "--overlap", 0.5)[1].startswith("Invalid value: --overlap: found 0.5 without --tile")


def test_a_detectors_boxes_on_the_command_line(run: Run, folders: Path) -> None:
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [0, 0, 64, 64], "score": score}
        for i, score in ((0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9), (4, 0.9), (4, 0.9), (5, 0.05))
    ]
    (folders / "boxes.json").write_text(json.dumps(boxes))
    arguments = ["evaluate", folders / "pose", "--data", folders / "pose_data", "--workers", 0]
    own, found = (run.json(*arguments, *more) for more in ((), ("--boxes", "boxes.json", "--flip")))
    assert (own["images"], found["images"]) == (8, 7)
    assert set(found["metrics"]) == {name for name in own["metrics"] if not name.startswith("pck")}
    fewer = run.json(*arguments, "--boxes", "boxes.json", "--box-score", 0.5)
    assert fewer["images"] == 6
    assert 0 < fewer["metrics"]["ar"] <= 5 / 8  # of eight persons five have a box
    limited = run.json(*arguments, "--boxes", "boxes.json", "--limit", 4)
    assert limited["images"] == 4  # boxes in the images 0, 2, 4 and 6


def test_broken_images_on_the_command_line(run: Run, folders: Path) -> None:
    data = folders / "classification_data"
    path = next(data.rglob("*.png"))
    path.write_bytes(b"no picture")
    arguments = ["evaluate", folders / "classification", "--data", data, "--workers", 0]
    found = run.json(*arguments)
    assert (found["images"], len(found["broken"])) == (8, 1)
    assert found["broken"][0].startswith(f"{path}: cannot be read")
    code, out, _ = run(*arguments)
    assert code == 0
    assert out.splitlines()[-2] == "1 image was left out:"
    code, message = run.error(*arguments, "--broken-limit", 0)
    assert code == 1
    assert "found 1 image that cannot be used, expected at most 0" in message


def test_a_folder_is_exported_with_its_weights_and_labels(run: Run, folders: Path) -> None:
    data = folders / "classification_data"
    exported = run.json("export", folders / "classification", "--output", "x.onnx")
    assert exported["trained"] is True
    assert Metadata.read("x.onnx").class_names == ("dark", "red", "green")
    ours, theirs = (
        run.json("evaluate", model, "--data", data, "--workers", 0) for model in ("x.onnx", folders / "classification")
    )
    assert ours["metrics"] == pytest.approx(theirs["metrics"], abs=1e-4)


def test_digits_and_limits_on_the_command_line(run: Run, tmp_path: Path) -> None:
    spec = SPECS["classification"].replace(classes=10)
    spec.save(tmp_path / "ten.json")
    code, out, err = run("evaluate", "ten.json", "--data", "digits", "--limit", 20, "--workers", 0, "--flip")
    assert code == 0
    assert "digits val: 20 images" in out
    assert "the weights are initial, not trained" in err
    first = run.json("evaluate", "ten.json", "--data", "digits", "--limit", 20, "--workers", 0)
    again = run.json("evaluate", "ten.json", "--data", "digits", "--limit", 20, "--workers", 0)
    rounded = run.json("evaluate", "ten.json", "--data", "digits", "--limit", 20, "--workers", 0, "--amp")
    assert rounded["metrics"]["ece"] != first["metrics"]["ece"]
    assert first["metrics"] == again["metrics"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scalenet_s0", "--data", "digits"], 1, "digits: found 10 classes, expected 1000 as scalenet_s0 has"),
        (["scalenet_s9", "--data", "digits"], 1, "scalenet_s9: found no such entry"),
        (["scalenet_s0", "--data", "nowhere"], 1, "nowhere: "),
        (["scalenet_s0", "--data", "digits", "--split", "half"], 1, "digits: found no split half, expected one of"),
        (["scalenet_s0"], 2, "Missing option '--data'"),
        (["x.onnx", "--data", "digits", "--device", "cuda"], 2, "Invalid value: --device: found cuda with the file"),
        (["x.onnx", "--data", "digits", "--amp"], 2, "Invalid value: --amp: found it with the file x.onnx"),
        (["x.onnx", "--data", "digits", "--pretrained"], 2, "Invalid value: found --pretrained or --weights"),
        (["x.onnx", "--data", "digits"], 1, "x.onnx: cannot be "),
        (["x.engine", "--data", "digits"], 1, "x.engine: "),
        (["scalenet_s0", "--data", "digits", "--device", "gpu"], 2, "Invalid value: --device: found gpu, expected"),
        (["scalenet_s0", "--data", "digits", "--device", "cuda:99"], 2, "Invalid value: --device: found cuda:99"),
    ],
    ids=lambda x: " ".join(x)[:40] if isinstance(x, list) else "",
)  # fmt: skip
def test_errors_are_one_line(run: Run, arguments: list[str], code: int, message: str) -> None:
    found_code, found = run.error("evaluate", *arguments)
    assert (found_code, found[: len(message)]) == (code, message)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client
def test_a_repository_on_the_command_line(run: Run, folders: Path, hub: Hub) -> None:
    push(folders / "segmentation", "somebody/shapes", token=TOKEN)
    data = f"masks:{folders / 'segmentation_data'}"
    ours, theirs = (
        run.json("evaluate", model, "--data", data, "--workers", 0)
        for model in ("hf-hub:somebody/shapes", folders / "segmentation")
    )
    assert ours["metrics"] == theirs["metrics"]
    code, out, err = run("predict", next(folders.rglob("*_data/images/*.png")), "--model", "hf-hub:somebody/shapes")
    assert (code, err) == (0, "")
    assert any(name in out for name in ("dark", "red", "green"))
