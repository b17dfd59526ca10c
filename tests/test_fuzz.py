"""Every reader of files, given damaged ones by the hundred, and by the thousand with `-m fuzz`."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.bounds import KIB
from scalenet_zoo.core.quantities import parse_count, parse_ms
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.training.recipe import load_recipe
from tests.helpers.data_files import picture, write_coco, write_image_folder, write_masks, write_tar
from tests.helpers.fuzzing import Reader, fuzz
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

FEW, MANY = 100, 1200
"""Cases of each reader in the suite, and with the marker."""


def _read_all(task: Any, source: str, split: str, **reading: Any) -> None:
    examples = open_data(source, task, split, **reading)
    for index in range(len(examples)):  # type: ignore[arg-type]
        examples.read(index)  # type: ignore[union-attr]


def _spec(folder: Path) -> list[Path]:
    SPECS["classification"].save(folder / "mbconv.json")
    SPECS["pose"].save(folder / "multipath.json")
    return [folder / "mbconv.json", folder / "multipath.json"]


def _read_specs(folder: Path) -> None:
    for path in folder.glob("*.json"):
        spec = ArchSpec.load(path)
        assert spec.trace.params == spec.cost.params


def _family(folder: Path) -> list[Path]:
    from scalenet_zoo.zoo.catalog import load_family

    load_family("scalenet").save(folder / "family.json")
    return [folder / "family.json"]


def _read_family(folder: Path) -> None:
    from scalenet_zoo.arch.constraints import Macs
    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.scaling import expand, fit_budget

    family = Family.load(folder / "family.json")
    expand(family)
    fit_budget(family, Macs(600_000_000))


def _recipe(folder: Path) -> list[Path]:
    recipe = load_recipe("imagenet").to_dict()
    path = folder / "recipe.yaml"
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in recipe.items()))
    return [path]


def _search(folder: Path) -> list[Path]:
    (folder / "scalenet.yaml").write_text(
        "name: pets\ndata: digits\nspace: small\nlimits: {macs: 20M}\nsupernet: {recipe: {epochs: 100, lr: 1e-1}}\n"
        "search: {population: 32, generations: 10}\nbaselines: [random]\n"
    )
    (folder / "scalenas.yaml").write_text(
        "name: streets\nmethod: scalenas\ndata: masks:streets\nspace: scalenas_segmentation\n"
        "limits: {latency: 40ms, backend: ort-cpu}\nsearch: {first: 200, evaluations: 600}\n"
    )
    return [folder / "scalenet.yaml", folder / "scalenas.yaml"]


def _read_search(folder: Path) -> None:
    from scalenet_zoo.search.methods import load_config

    for path in folder.glob("*.yaml"):
        load_config(path).open_space()


def _space(folder: Path) -> list[Path]:
    from importlib.resources import files

    spaces = [path for path in Path(str(files("scalenet_zoo.spaces"))).rglob("*.yaml") if "digits" not in path.name]
    for path in spaces:
        (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    return sorted(folder.iterdir())


def _read_spaces(folder: Path) -> None:
    from scalenet_zoo.spaces.scalenas import MultipathSpace
    from scalenet_zoo.spaces.scalenet import Space

    for path in sorted(folder.iterdir()):
        kind = MultipathSpace if path.name.startswith("scalenas-") else Space
        kind.load(path).sample(np.random.default_rng(0), 2)


def _coco(folder: Path) -> list[Path]:
    write_coco(folder, "val")
    outlines = [[5.0, 5.0, 20.0, 5.0, 20.0, 30.0]], {"size": [70, 90], "counts": [100, 50, 6150]}
    path = folder / "annotations" / "person_keypoints_val.json"
    document = json.loads(path.read_bytes())
    for number, outline in enumerate(outlines):
        crowd = {**document["annotations"][0], "id": 50 + number, "iscrowd": 1, "segmentation": outline}
        document["annotations"].append({**crowd, "keypoints": [0] * 12, "num_keypoints": 0})
    path.write_text(json.dumps(document))
    (folder / "joints.yaml").write_text("flip_pairs: [[1, 2]]\nskeleton: [[0, 1]]\nsigmas: {nose: 0.03, tail: 0.1}\n")
    return [path, path, path, folder / "joints.yaml"]


def _read_coco(folder: Path) -> None:
    from scalenet_zoo.data.people import as_images, draw_people

    examples = open_data(f"coco:{folder}", "pose", "val", joints=folder / "joints.yaml")
    everybody: Any = as_images(examples)  # type: ignore[arg-type]
    for index in range(len(everybody)):
        _, people = everybody.read(index)
        if people.persons:
            draw_people(people, np.array([[90.0, 0, 0], [0, 70.0, 0]]), (64, 64), 2.0)


def _boxes(folder: Path) -> list[Path]:
    write_coco(folder, "val")
    found = [
        {"image_id": 10, "category_id": 1, "bbox": [5, 5, 20, 40], "score": 0.9},
        {"image_id": 11, "category_id": 1, "bbox": [2.5, 5, 20, 40], "score": 0.4},
    ]
    (folder / "boxes.json").write_text(json.dumps(found))
    return [folder / "boxes.json"]


def _masks(folder: Path) -> list[Path]:
    write_masks(folder)
    return [folder / "classes.json", folder / "train.txt", folder / "masks" / "0.png", folder / "images" / "1.png"]


def _pictures(folder: Path) -> list[Path]:
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "train" / "a").mkdir(parents=True)
    (folder / "train" / "b").mkdir()
    for suffix in ("png", "jpg", "webp", "bmp", "tif", "gif", "ppm"):
        turned: dict[str, Any] = {"exif": exif} if suffix == "jpg" else {}
        picture(1).save(folder / "train" / "a" / f"1.{suffix}", **turned)
        picture(2).save(folder / "train" / "b" / f"2.{suffix}")
    return sorted((folder / "train" / "a").iterdir())


def _tar(folder: Path) -> list[Path]:
    write_tar(folder / "all.tar", write_image_folder(folder / "source", count=1))
    return [folder / "all.tar"]


def _model_folder(folder: Path) -> list[Path]:
    from scalenet_zoo.zoo.model_folder import save_model

    model: Any = random_model(SPECS["classification"])
    model.pretrained_cfg["labels"] = {"names": ["a", "b", "c"]}
    save_model(model, folder)
    return [folder / "config.json", folder / "spec.json", folder / "model.safetensors"]


def _read_model_folder(folder: Path) -> None:
    from scalenet_zoo import create_model

    create_model(f"local-dir:{folder}")


def _weights(folder: Path) -> list[Path]:
    from scalenet_zoo.zoo.weights import save_weights

    save_weights(random_model(SPECS["classification"]), folder / "model.safetensors")
    return [folder / "model.safetensors"]


def _read_weights(folder: Path) -> None:
    from scalenet_zoo import create_model

    create_model(SPECS["classification"], weights=folder / "model.safetensors")


def _pickles(folder: Path) -> list[Path]:
    import torch

    state = {"state_dict": random_model(SPECS["classification"]).state_dict(), "epoch": 3}
    torch.save(state, folder / "new.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [folder / "new.pth", folder / "old.pth"]


def _read_pickles(folder: Path) -> None:
    from scalenet_zoo import create_model

    for name in ("new.pth", "old.pth"):
        create_model(SPECS["classification"], weights=folder / name)


def _checkpoint(folder: Path) -> list[Path]:
    import torch

    from scalenet_zoo.training.checkpoint import Progress, checkpoints, save_checkpoint

    model = random_model(SPECS["classification"])
    optimizer = torch.optim.AdamW(model.parameters())
    states = {"optimizer": {**optimizer.state_dict(), "moments": {0: torch.ones(3)}}, "scaler": {}}
    save_checkpoint(folder, model, states, Progress(step=3, best=(0.5, 2)))
    return sorted(checkpoints(folder)[0].iterdir())


def _read_checkpoint(folder: Path) -> None:
    from scalenet_zoo.training.checkpoint import load_newest

    load_newest(folder, random_model(SPECS["classification"]))


def _log(folder: Path) -> list[Path]:
    lines: list[dict[str, Any]] = [
        {"step": i, "kind": "train", "epoch": i / 5, "loss": 1 / i, "lr": 0.1} for i in (1, 2, 3)
    ]
    lines.append({"step": 3, "kind": "val", "epoch": 1.0, "top1": 0.5})
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return [folder / "log.jsonl"]


def _read_log(folder: Path) -> None:
    from scalenet_zoo.training.log import read_log

    for line in read_log(folder):
        assert isinstance(line["step"], int)
        assert isinstance(line["kind"], str)


def _run(folder: Path) -> list[Path]:
    from tests.helpers.search_runs import write_run

    write_run(folder)
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _read_run(folder: Path) -> None:
    from scalenet_zoo.search.report.data import read_run

    read_run(folder)


def _latency(folder: Path) -> list[Path]:
    from scalenet_zoo.latency.model import fit_latency_model
    from scalenet_zoo.latency.plan import Plan
    from tests.helpers.latency import made_up_profile

    profile = made_up_profile(plan=Plan(layers=4, networks=12, held_out=4))
    profile.save(folder / "model.profile.json")
    fit_latency_model(profile).save(folder / "model.json")
    return [folder / "model.json", folder / "model.profile.json"]


def _read_latency(folder: Path) -> None:
    from scalenet_zoo.latency.model import LatencyModel
    from scalenet_zoo.latency.profile import Profile

    LatencyModel.load(folder / "model.json").predict_spec(SPECS["classification"])
    profile = Profile.load(folder / "model.profile.json")
    assert len(profile.milliseconds) == len(profile.measurements)


def _onnx(folder: Path) -> list[Path]:
    from scalenet_zoo.export.onnx import export_onnx

    export_onnx(random_model(SPECS["classification"]), folder / "model.onnx")
    return [folder / "model.onnx"]


def _read_onnx(folder: Path) -> None:
    from scalenet_zoo.export.onnx_network import OnnxNetwork
    from scalenet_zoo.export.tensorrt.source import EngineSource

    EngineSource.read(folder / "model.onnx")
    OnnxNetwork.load(folder / "model.onnx")


def _openvino(folder: Path) -> list[Path]:
    from scalenet_zoo.export.openvino.convert import convert_onnx

    (source,) = _onnx(folder)
    convert_onnx(source, folder / "model.xml", lambda file: None)
    source.unlink()
    return [folder / "model.xml", folder / "model.bin"]


def _read_openvino(folder: Path) -> None:
    from scalenet_zoo.export.openvino.network import OpenVinoNetwork

    OpenVinoNetwork.load(folder / "model.xml")


def _engine(folder: Path) -> list[Path]:
    from scalenet_zoo.export.tensorrt.record import EngineOptions, EngineRecord, OptimizationProfile, record_path

    path = folder / "x.engine"
    path.write_bytes(content := gzip.compress(bytes(range(256)) * 8))
    shapes = ((1, 3, 4, 5), (8, 3, 4, 5), (32, 3, 4, 5))
    record = EngineRecord(
        engine_sha256=hashlib.sha256(content).hexdigest(),
        engine_bytes=len(content),
        plan_bytes=2048,
        onnx_sha256="0" * 64,
        entries={"scalenet_zoo.version": "1"},
        precision="fp32",
        options=EngineOptions(library="tensorrt-rtx", batch=(1, 8, 32), compress=True),
        tensorrt="1.4.0",
        profiles=(OptimizationProfile(tensor="image", smallest=shapes[0], optimal=shapes[1], largest=shapes[2]),),
    )
    record.sealed().save(record_path(path))
    return [path, record_path(path)]


def _read_engine(folder: Path) -> None:
    from scalenet_zoo.export.tensorrt.record import read_engine

    read_engine(folder / "x.engine")


def _quantity(folder: Path) -> list[Path]:
    (folder / "600M").write_bytes(b"600M")
    (folder / "4ms").write_bytes(b"4.5ms")
    return [folder / "600M", folder / "4ms"]


def _read_quantities(folder: Path) -> None:
    parse_count((folder / "600M").read_bytes().decode("utf-8", "surrogateescape"), "--flops")
    parse_ms((folder / "4ms").read_bytes().decode("utf-8", "surrogateescape"), "--latency")


READERS: dict[str, Reader] = {
    "specs": Reader(_spec, _read_specs),
    "families": Reader(_family, _read_family),
    "recipes": Reader(_recipe, lambda folder: load_recipe(folder / "recipe.yaml")),
    "searches": Reader(_search, _read_search),
    "spaces": Reader(_space, _read_spaces),
    "coco": Reader(_coco, _read_coco),
    "boxes": Reader(_boxes, lambda folder: _read_all("pose", f"coco:{folder}", "val", boxes=folder / "boxes.json")),
    "masks": Reader(_masks, lambda folder: _read_all("segmentation", f"masks:{folder}", "train")),
    "pictures": Reader(_pictures, lambda folder: _read_all("classification", f"imagefolder:{folder}", "train")),
    "tars": Reader(_tar, lambda folder: _read_all("classification", f"imagefolder:{folder / 'all.tar'}", "train")),
    "model folders": Reader(_model_folder, _read_model_folder),
    "weights": Reader(_weights, _read_weights),
    "files of torch.save": Reader(_pickles, _read_pickles),
    "checkpoints": Reader(_checkpoint, _read_checkpoint),
    "logs": Reader(_log, _read_log),
    "runs": Reader(_run, _read_run),
    "latency models": Reader(_latency, _read_latency),
    "onnx": Reader(_onnx, _read_onnx),
    "openvino": Reader(_openvino, _read_openvino),
    "engines": Reader(_engine, _read_engine),
    "quantities": Reader(_quantity, _read_quantities),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    counts = fuzz(READERS[name], tmp_path, range(FEW))
    assert counts["refused"] > FEW // 5


@pytest.mark.fuzz
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_files(name: str, tmp_path: Path) -> None:
    """In a process of its own with bounded memory, whose death by a signal would be seen."""
    note, folder = tmp_path / "note", tmp_path / "files"
    folder.mkdir()
    program = f"""
import resource
from pathlib import Path
from tests.helpers.fuzzing import fuzz
from tests.test_fuzz import READERS
resource.setrlimit(resource.RLIMIT_AS, ({12_000_000 * KIB}, {12_000_000 * KIB}))
print(fuzz(READERS[{name!r}], Path({str(folder)!r}), range({FEW}, {FEW + MANY}), Path({str(note)!r})))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{note.read_text() if note.exists() else ''}: {result.stderr[-1000:]}"
