"""Small data sets on disk, made up."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.shapes import SPECS

INTERFACE = Interface(interpolation="bilinear", crop_pct=1.0)


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    """Smooth noise, so that JPEG and resizing change it little."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def write_image_folder(root: Path, classes: Sequence[str] = ("cat", "dog", "eel"), count: int = 4) -> Path:
    """`train` with all classes, `val` without the last."""
    for split, names in (("train", classes), ("val", classes[:-1])):
        for number, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                picture(100 * number + i + 50 * (split == "val")).save(root / split / name / f"{i}.png")
    return root


def write_tar(path: Path, folder: Path, within: str = "") -> Path:
    """A tar file of what is in a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                tar.add(file, within + file.relative_to(folder).as_posix())
    return path


def write_shards(root: Path) -> Path:
    """A webdataset of 2 x 6 images in 3 classes, for each split."""
    import webdataset

    info: dict[str, Any] = {"splits": {}}
    for split in ("train", "val"):
        names = [f"{split}-{shard}.tar" for shard in range(2)]
        for shard, name in enumerate(names):
            with webdataset.TarWriter(str(root / name)) as writer:
                for i in range(6):
                    image = png(picture(10 * shard + i))
                    writer.write({"__key__": f"{shard}{i}", "png": image, "cls": str(i % 3).encode()})
        info["splits"][split] = {"name": split, "num_samples": 12, "filenames": names, "shard_lengths": [6, 6]}
    (root / "_info.json").write_text(json.dumps(info))
    return root


def write_masks(root: Path, count: int = 3, size: tuple[int, int] = (30, 40)) -> Path:
    """Images and masks of 3 classes and void (11), (height, width); a class is a colour."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(count):
        mask = blobs(i, size)
        Image.fromarray(COLOURS[mask]).save(root / "images" / f"{i}.png")
        Image.fromarray(np.where(mask == 3, 11, mask).astype(np.uint8)).save(root / "masks" / f"{i}.png")
    names = "\n".join(map(str, range(count)))
    (root / "train.txt").write_text(names)
    (root / "val.txt").write_text(names + "\n")
    rows = [
        {"index": i, "name": name, "colour": COLOURS[i].tolist(), "ignore": False}
        for i, name in enumerate(("sky", "road", "car"))
    ]
    (root / "classes.json").write_text(json.dumps([*rows, {"index": 11, "name": "void", "ignore": True}]))
    return root


COLOURS = np.array([[30, 60, 220], [90, 200, 60], [220, 40, 40], [240, 240, 240]], np.uint8)


def blobs(seed: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width): patches of the numbers 0 to 3."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 4, (4, 5)).astype(np.uint8))
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.NEAREST))


JOINTS = ("nose", "left_eye", "right_eye", "tail")


def write_coco(
    root: Path, split: str = "val", people: Sequence[dict[str, Any]] = (), category: dict[str, Any] | None = None
) -> Path:
    """Two images, and people in them: by default two in the first, one in the second."""
    folder = root / "images" / split
    folder.mkdir(parents=True)
    images = []
    for number, (width, height) in enumerate(((90, 70), (60, 80))):
        picture(number, width, height).save(folder / f"{number}.png")
        images.append({"id": 10 + number, "file_name": f"{number}.png", "width": width, "height": height})
    people = people or [person(1, 10), person(2, 10, x=30), person(3, 11)]
    category = {"id": 1, "name": "person", "keypoints": list(JOINTS), "skeleton": [[1, 2], [1, 4]], **(category or {})}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(
        json.dumps({"images": images, "annotations": list(people), "categories": [category, {"id": 2, "name": "dog"}]})
    )
    return root


def person(number: int, image: int, x: int = 5, **other: Any) -> dict[str, Any]:
    keypoints = [x + 4, 12, 2, x + 8, 10, 2, x + 2, 11, 1, 0, 0, 0]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": keypoints,
        "num_keypoints": 3,
        "bbox": [x, 8, 20, 40],
        "area": 400.0,
        **other,
    }


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def spoil(path: Path | str) -> None:
    """Cut a file in half."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def pixels(examples: Examples) -> list[tuple[bytes, Any]]:
    """What examples hold, in a form that can be compared."""
    return [(image.tobytes(), target) for image, target in map(examples.read, range(len(examples)))]


FILES: dict[Task, Callable[[Path], Path]] = {
    "classification": write_image_folder,
    "segmentation": write_masks,
    "pose": write_coco,
}


def examples_of(task: Task, root: Path, split: str = "val", **kwargs: Any) -> Examples:
    """Write examples of a task to a folder, and open them."""
    found = open_data(str(FILES[task](root)), task, split, **kwargs)
    assert not isinstance(found, Stream)
    return found


def fitting_spec(examples: Examples, **kwargs: Any) -> ArchSpec:
    """A small network with the classes of these examples."""
    return SPECS[examples.task].replace(classes=len(examples.labels.names), **kwargs)
