"""Evaluation against a bare loop of loader and forward pass: the cost of the metrics, per task and for an ONNX file.

python -m benchmarks.evaluate_speed: about 10 minutes; ratios ours / bare, below 1 is faster. One thread computes and
one process loads; both sides use the same loader, batches and memory format. Data are synthetic: crops of
scikit-learn's photographs as JPEG, random masks and random persons.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.image_files import read_image, sample_photographs
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.zoo.interface import Interface

BATCH, WORKERS = 8, 1
COCO_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` different JPEG files of `size`, (width, height) in pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photographs = [read_image(path).resize((2 * size[0], 2 * size[1])) for path in sample_photographs()]
    for i in range(count):
        x, y = int(rng.integers(size[0])), int(rng.integers(size[1]))
        photographs[i % 2].crop((x, y, x + size[0], y + size[1])).save(folder / f"{i:03}.jpg", quality=90)


def image_folder(folder: Path, count: int) -> Examples:
    """Images of ImageNet's typical size in a thousand classes."""
    for i in range(1000):
        (folder / "val" / f"{i:03}").mkdir(parents=True)
    write_images(folder / "new", count, (500, 375))
    for i in range(1000):  # the reader ignores classes without images
        (folder / "val" / f"{i:03}" / "image.jpg").symlink_to(folder / "new" / f"{i % count:03}.jpg")
    return open_data(f"imagefolder:{folder}", "classification", "val", limit=count)  # type: ignore[return-value]


def masks(folder: Path, count: int) -> Examples:
    """Images and masks with CamVid's size, number of classes and share of void pixels."""
    write_images(folder / "images", count, (480, 360))
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        mask = rng.integers(0, 12, (9, 12)).astype(np.uint8).repeat(40, 0).repeat(40, 1)
        Image.fromarray(mask).save(folder / "masks" / f"{i:03}.png")
    (folder / "val.txt").write_text("".join(f"{i:03}\n" for i in range(count)))
    return open_data(f"masks:{folder}", "segmentation", "val", ignore_index=11)  # type: ignore[return-value]


def persons(folder: Path, count: int) -> Examples:
    """Images of COCO's typical size, with one person each."""
    write_images(folder / "images" / "val", count, (640, 480))
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(count):
        points = np.concatenate([rng.uniform(100, 400, (17, 2)), np.full((17, 1), 2)], axis=1)
        known = {"num_keypoints": 17, "bbox": [100, 100, 300, 300], "area": 50_000, "iscrowd": 0}
        annotations.append(
            {"id": i + 1, "image_id": i, "category_id": 1, "keypoints": points.ravel().tolist(), **known}
        )
    document = {
        "images": [{"id": i, "file_name": f"{i:03}.jpg", "width": 640, "height": 480} for i in range(count)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": COCO_JOINTS, "skeleton": []}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "person_keypoints_val.json").write_text(json.dumps(document))
    return open_data(f"coco:{folder}", "pose", "val")  # type: ignore[return-value]


def bare(network: nn.Module, examples: Examples) -> Callable[[], object]:
    """The loop without metrics that anybody would write."""
    spec = spec_of(network)
    transform = preprocessing(spec, Interface.of_network(network))

    def run() -> None:
        with torch.inference_mode():
            for batch in evaluation_loader(examples, transform, spec, BATCH, WORKERS):
                network(batch["image"].to(memory_format=torch.channels_last))

    return run


def bare_session(opened: OnnxNetwork, examples: Examples) -> Callable[[], object]:
    transform = prepare_inference(opened).transform

    def run() -> None:
        for batch in evaluation_loader(examples, transform, opened.spec, BATCH, WORKERS):
            opened.session.run(None, {"image": batch["image"].numpy()})

    return run


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a shared machine, one thread gives steadier times
    cases: tuple[tuple[str, int, tuple[int, int] | None, Callable[[Path, int], Examples], int], ...] = (
        ("efficientnet_b0", 1000, None, image_folder, 64),
        ("hrnet_w18", 11, (360, 480), masks, 8),
        ("hrnet_w18_pose", 17, None, persons, 24),
    )
    measured: dict[str, object] = {"threads": torch.get_num_threads(), "batch": BATCH, "workers": WORKERS}
    with tempfile.TemporaryDirectory() as scratch:
        for name, classes, size, write, count in cases:
            examples = write(Path(scratch) / name, count)
            network = create_model(name, num_classes=classes, img_size=size).eval()
            network.to(memory_format=torch.channels_last)

            def ours(network: nn.Module = network, examples: Examples = examples) -> None:
                evaluate_network(network, examples, BATCH, WORKERS)

            measured[f"{name}_on_{count}_images"] = ratio(*interleave(ours, bare(network, examples), 10))
            if spec_of(network).task == "classification":
                path = Path(scratch) / f"{name}.onnx"
                export_onnx(network, path)
                opened = OnnxNetwork.load(path)

                def of_file(opened: OnnxNetwork = opened, examples: Examples = examples) -> None:
                    evaluate_network(opened, examples, BATCH, WORKERS)

                measured[f"{name}_onnx_on_{count}_images"] = ratio(
                    *interleave(of_file, bare_session(opened, examples), 10)
                )
    record("evaluate_speed", measured)


if __name__ == "__main__":
    main()
