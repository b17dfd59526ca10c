"""Data sets that torchvision and Hugging Face read."""

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.evaluate import evaluate_network
from tests.helpers.data_files import (
    picture,
    pixels,
    png,
)
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 20\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
@pytest.mark.parametrize("kind", ["wds", "torch:image_folder"])
def test_no_library_runs_postscript(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow detects PostScript by content, not by name, and would run Ghostscript."""
    import webdataset

    ran: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin.subprocess, "check_call", lambda *_, **__: ran.append(1))  # type: ignore[attr-defined]
    contents = {"cat": POSTSCRIPT, "dog": png(picture(1)), "eel": png(picture(2))}
    with webdataset.TarWriter(str(tmp_path / "val-0.tar")) as tar:
        for number, (name, content) in enumerate(contents.items()):
            tar.write({"__key__": name, "png": content, "cls": str(number).encode()})
            (tmp_path / "val" / name).mkdir(parents=True)
            (tmp_path / "val" / name / "0.png").write_bytes(content)
    split = {"name": "val", "num_samples": 3, "filenames": ["val-0.tar"], "shard_lengths": [3]}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"val": split}}))
    found = evaluate_network(
        random_model(SPECS["classification"]), open_data(f"{kind}:{tmp_path}", "classification", "val")
    )
    assert (found.images, ran, EpsImagePlugin.gs_binary) == (2, [], "gs")
    gc.collect()


def test_hugging_face_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = datasets.Dataset.from_dict(
        {"img": [png(picture(i)) for i in range(4)], "kind": [0, 1, 1, 0], "id": [*"abcd"]}
    )
    table = table.cast_column("img", datasets.Image()).cast_column("kind", datasets.ClassLabel(names=["cat", "dog"]))
    (tmp_path / "animals").mkdir()
    table.to_parquet(tmp_path / "animals" / "validation.parquet")
    examples = open_data(f"hfds:{tmp_path / 'animals'}", "classification", "val")
    assert not isinstance(examples, Stream)
    assert examples.labels.names == ("cat", "dog")
    assert pixels(examples) == [(picture(i).tobytes(), kind) for i, kind in enumerate((0, 1, 1, 0))]
    with pytest.raises(InputError, match="found no split train, expected one of validation"):
        open_data(f"hfds:{tmp_path / 'animals'}", "classification", "train")
    (tmp_path / "numbers").mkdir()
    datasets.Dataset.from_dict({"number": [1]}).to_parquet(tmp_path / "numbers" / "train.parquet")
    with pytest.raises(InputError, match=r"found 0 columns of images in \['number'\], expected one"):
        open_data(f"hfds:{tmp_path / 'numbers'}", "classification", "train")
    with pytest.raises(InputError, match="nowhere: cannot be loaded: [^\n]+$"):
        open_data(f"hfds:{tmp_path / 'nowhere'}", "classification", "train")


def test_data_sets_of_torchvision(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    for name in ("train", "t10k"):  # the format: zeros, type, dimensions, sizes, values
        for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(5, dtype=np.uint8))):
            header = np.array([0x0800 + values.ndim, *values.shape], ">u4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    examples = open_data(f"torch:mnist:{tmp_path}", "classification", "val")
    assert not isinstance(examples, Stream)
    assert examples.labels.names[:2] == ("0 - zero", "1 - one")
    assert [target for _, target in pixels(examples)] == [0, 1, 2, 3, 4]
    image, _ = examples.read(2)
    assert np.array_equal(np.asarray(image), np.repeat(images[2][..., None], 3, axis=2))
    for source, complaint in (
        (f"torch:mnist:{tmp_path / 'nowhere'}", "cannot be opened: Dataset not found"),
        (f"torch:nothing:{tmp_path}", "cannot be opened: Unknown torchvision dataset nothing"),
    ):
        with pytest.raises(InputError, match=f"{source}: {complaint}"):
            open_data(source, "classification", "val")
