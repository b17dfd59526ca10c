"""The library's face: what `scalenet_zoo` offers does what the command line does."""

import copy
import json
import logging
import pkgutil
import subprocess
import sys
from importlib import import_module
from inspect import isfunction, ismodule, signature
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import scalenet_zoo
from scalenet_zoo import (
    benchmark,
    build,
    create_model,
    evaluate,
    export_model,
    fit,
    list_models,
    load_family,
    load_spec,
    predict,
    pull,
    push,
    run_search,
)
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import UsageError, ZooError
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.training.recipe import load_recipe
from scalenet_zoo.training.trainer import Fitted
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.command import Run
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.random_states import same_random_states
from tests.helpers.search_config import write_config
from tests.helpers.shapes import SPECS, Shapes

FACE = [
    "benchmark", "build", "compare", "create_model", "evaluate", "export_model", "fit", "inherit", "list_models",
    "load_family", "load_spec", "predict", "pull", "push", "run_search",
]  # fmt: skip
TINY = SPECS["classification"]
QUICK: dict[str, Any] = {"workers": 0, "cpu": True, "limit": 64, "epochs": 1}
FLAGS = ("--workers", 0, "--cpu", "--limit", 64, "--epochs", 1)


# --- what there is --------------------------------------------------------------------------------


def test_the_face_is_seen_and_says_what_it_takes() -> None:
    assert set(scalenet_zoo.__all__) == {*FACE, "ArchSpec", "__version__"}
    assert set(scalenet_zoo.__all__) <= set(dir(scalenet_zoo))
    for name in FACE:
        function = getattr(scalenet_zoo, name)
        assert function.__name__ == name
        assert "Args:" in function.__doc__ or "Arguments as" in function.__doc__
        assert all(argument.annotation is not argument.empty for argument in signature(function).parameters.values())
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = scalenet_zoo.train


def test_the_face_is_lazy() -> None:
    """What needs torch imports it when it is called, so that wrong arguments are told at once."""
    program = "import sys, scalenet_zoo; dir(scalenet_zoo); [getattr(scalenet_zoo, name) for name in sys.argv[1:]]\n"
    program += "print([name for name in ('torch', 'timm', 'onnx') if name in sys.modules])"
    command = [sys.executable, "-c", program, *(name for name in FACE if name not in ("pull", "push"))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_module_hides_a_name_of_the_face() -> None:
    for module in pkgutil.walk_packages(scalenet_zoo.__path__, "scalenet_zoo."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    assert [name for name in FACE if not isfunction(getattr(scalenet_zoo, name))] == []
    modules = {name for name, value in vars(scalenet_zoo).items() if ismodule(value)}
    assert {"arch", "cli", "export", "budgets"} <= modules
    assert modules.isdisjoint(FACE)


# --- each function does what its command does -----------------------------------------------------


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A tiny network that knows three classes, none of which are digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = create_model(TINY, num_classes=3)
    model.pretrained_cfg["labels"] = Shapes("classification", 1).labels.to_cfg()
    assert isinstance(model, nn.Module)
    return model


@pytest.fixture(scope="module")
def fitted(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A run of `fit` on digits, from a folder with that network."""
    folder = tmp_path_factory.mktemp("face")
    (folder / "three").mkdir()
    save_model(network, folder / "three")
    return fit(folder / "three", "digits", output=folder / "run", **QUICK)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "china.png"
    Image.open(sample_photographs()[0]).convert("RGB").resize((64, 48)).save(path)
    return path


def test_fit_resets_the_head_and_carries_names_as_train_does(run: Run, fitted: Fitted, tmp_path: Path) -> None:
    trained: Any = create_model(fitted.run)
    assert trained.spec.classes == 10
    assert Interface.of_network(trained).labels.names == tuple("0123456789")
    source = fitted.run.parent / "three"
    printed = run.json("train", source, "--data", "digits", "--output", tmp_path / "run", *FLAGS)
    assert printed["best"] == fitted.best
    weights = [folder / "best" / "model.safetensors" for folder in (fitted.run, tmp_path / "run")]
    assert weights[0].read_bytes()[-1000:] == weights[1].read_bytes()[-1000:]


def test_fit_takes_objects_and_trains_a_network_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model: Any = create_model(TINY, num_classes=3)
    cfg, spec = dict(model.pretrained_cfg), model.spec
    before = model.classifier.weight.detach().clone()
    training, validation = Shapes("classification", 32), Shapes("classification", 8, "val")
    recipe = load_recipe("quick").replace({"epochs": 1, "batch_size": 16, "warmup_epochs": 0.0})
    with same_random_states():
        found = fit(model, training, validation=validation, output=tmp_path / "run", recipe=recipe, workers=0, cpu=True)
    assert not torch.equal(model.classifier.weight, before)
    assert (model.pretrained_cfg, model.spec) == (cfg, spec)
    assert Interface.of_network(create_model(found.run)).labels == training.labels
    other: Any = create_model(TINY, num_classes=7)
    same = copy.deepcopy(other)
    with caplog.at_level(logging.WARNING):
        fit(other, training, validation=validation, output=tmp_path / "other", recipe=recipe, workers=0, cpu=True)
    torch.manual_seed(7)  # the new layer depends on the recipe's seed alone
    fit(same, training, validation=validation, output=tmp_path / "same", recipe=recipe, workers=0, cpu=True)
    assert torch.equal(same.classifier.weight, other.classifier.weight)
    assert other.spec.classes == other.classifier.out_features == 3
    assert "has 7 classes, not the 3 of shapes: its last layer starts from scratch" in caplog.text


def test_evaluate_of_a_name_a_network_and_a_file(run: Run, fitted: Fitted, tmp_path: Path) -> None:
    printed = run.json("evaluate", fitted.run, "--data", "digits", "--workers", 0, "--limit", 64)
    network = create_model(fitted.run)
    for model in (fitted.run, str(fitted.run), network.train()):
        with same_random_states():
            found = evaluate(model, "digits", workers=0, limit=64)
        assert found.metrics == printed["metrics"]
        assert (found.model, found.images, found.noun) == (printed["model"], printed["images"], "images")
    assert network.training
    made = export_model(network, tmp_path / "a.onnx")
    assert evaluate(made.files["onnx"], "digits", workers=0, limit=64).metrics["top1"] == printed["metrics"]["top1"]


def test_predict_gives_the_rows_that_the_command_prints(
    run: Run, fitted: Fitted, picture: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    printed = run.json("predict", picture, broken, "--model", fitted.run, "--top", 3)
    with same_random_states():
        found = predict(fitted.run, [picture, broken], top=3)
    assert {one.image: one.rows for one in found} == printed == {str(picture): found[0].rows, str(broken): None}
    with Image.open(picture) as opened:
        (of_picture,) = predict(create_model(fitted.run), opened, top=3)
    assert (of_picture.image, of_picture.rows, of_picture.drawn) == ("images[0]", found[0].rows, None)
    assert [row["class"] for row in found[0].rows or []] == [row["class"] for row in printed[str(picture)]]


def test_predict_draws(picture: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = SPECS["segmentation"]
    (found,) = predict(spec, picture, output=tmp_path / "drawn")
    assert found.drawn == tmp_path / "drawn" / "china.png"
    with Image.open(found.drawn) as drawn:
        assert drawn.height >= 48
    assert "the weights are initial, not trained" in caplog.text


def test_export_model_writes_what_the_command_writes(run: Run, fitted: Fitted, tmp_path: Path) -> None:
    printed = run.json("export", fitted.run, "--with-softmax", "--batch", "1:2:4", "--output", "a.onnx")
    with same_random_states():
        made = export_model(str(fitted.run), "b.onnx", with_softmax=True, batch=(1, 2, 4))
    assert (made.name, made.trained) == (printed["name"], printed["trained"]) == (TINY.name, True)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert made.verification is not None
    assert list(made.verification.batch_sizes) == printed["verification"]["batch_sizes"]
    written = export_model(made.files["onnx"], "repository", "triton")
    assert written.files == {"triton": Path("repository/tiny")}


def test_benchmark_takes_names_specs_networks_and_files(run: Run, network: nn.Module, tmp_path: Path) -> None:
    fast: dict[str, Any] = {"threads": 1, "warmup": 0, "seconds": 0, "runs": 2, "repeats": 1}
    TINY.save(tmp_path / "tiny.json")
    with same_random_states():
        measured = benchmark(["tiny.json", TINY, network], on="torch", output="all.json", **fast)
    assert [result.macs for result in measured.results] == [TINY.cost.macs] * 2 + [spec_of(network).cost.macs]
    flags = ("--threads", 1, "--warmup", 0, "--seconds", 0, "--runs", 2, "--repeats", 1)
    printed = run.json("benchmark", "tiny.json", "--on", "torch", *flags)
    written = json.loads((tmp_path / "all.json").read_text())
    assert written.keys() == printed.keys() == measured.to_dict().keys()
    assert written["results"][0].keys() == printed["results"][0].keys()
    assert written["timing"] == printed["timing"]


def test_build_is_what_the_command_builds(run: Run) -> None:
    network: Any = build(flops="100M", num_classes=10)
    printed = run.json("build", "--flops", "100M", "--classes", 10)
    assert network.spec.hash == printed["hash"]
    assert network.spec.cost.macs == printed["cost"]["macs"]
    assert load_spec("scalenet_100m.json") == network.spec


def test_names_specs_and_families() -> None:
    assert list_models("scalenet_*") == [f"scalenet_s{i}" for i in range(6)]
    assert load_spec("scalenet_s0").name == "scalenet_s0"
    assert load_family("scalenet").name == "scalenet"


def test_run_search_ends_with_what_the_command_finds_in_its_folder(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, baselines=[])
    with same_random_states():
        found = run_search(config, tmp_path / "run", workers=0, cpu=True)
    paths = [path.relative_to(found.folder) for path in (*found.written.paths, found.report)]
    assert paths == [Path("family.json"), Path("specs"), Path("report", "index.html")]
    printed = run.json("search", config, "--output", tmp_path / "run", "--cpu", "--workers", 0)
    assert (printed["run"], printed["report"]) == (str(found.folder), str(found.report))
    assert printed["family"]["provenance"]["details"].pop("command").startswith("scalenet-zoo search toy.yaml")
    assert printed["family"] == json.loads(json.dumps(found.written.values["family"]))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_push_and_pull(run: Run, hub: Hub, network: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push(network, "org/tiny", license="mit")
    assert pull("org/tiny").path == Path("tiny")
    assert run.json("pull", "org/tiny", "--output", "again")["folder"] == "again"
    files = [{path.name: path.read_bytes() for path in Path(folder).iterdir()} for folder in ("tiny", "again")]
    assert files[0] == files[1]


# --- what makes no sense --------------------------------------------------------------------------


def test_arguments_are_called_as_they_are_written_where_they_are_given(run: Run, fitted: Fitted, picture: Path) -> None:
    (Path("a.onnx")).write_bytes(b"\x08\x0a\x12 truncated")
    model = str(fitted.run)
    for call, message, command in (
        (
            lambda: fit(model, "digits", num_classes=7),
            "found `num_classes` 7, expected 10, as digits has",
            ("train", model, "--data", "digits", "--classes", 7, "--output", "new"),
        ),
        (
            lambda: export_model(model, precision="int8"),
            "`precision`: found int8 without `calibration`, expected a folder of images with it",
            ("export", model, "--precision", "int8"),
        ),
        (
            lambda: predict(model, picture, overlap=0.5),
            "`overlap`: found 0.5 without `tile`, expected both",
            ("predict", picture, "--model", model, "--overlap", 0.5),
        ),
        (
            lambda: predict("a.onnx", picture, pretrained=True),
            "found `pretrained` or `weights`, expected neither: an exported file has its own weights",
            ("predict", picture, "--model", "a.onnx", "--pretrained"),
        ),
        (
            lambda: evaluate("a.onnx", "digits", amp=True),
            "`amp`: found it with the file a.onnx, expected a network: a file has its own precision",
            ("evaluate", "a.onnx", "--data", "digits", "--amp"),
        ),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == message
        shown = message
        for name in ("num_classes", "precision", "calibration", "overlap", "tile", "pretrained", "weights", "amp"):
            shown = shown.replace(f"`{name}`", f"--{name.removeprefix('num_')}")
        assert run.error(*command) == (2, f"Invalid value: {shown}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, image: fit(model, "digits", pretrained=True),
            "`pretrained`: found it with a network that is built",
        ),
        (lambda model, image: fit(model, "digits", drop=0.1), "`drop`: found it with a network that is built"),
        (lambda model, image: fit(TINY, Shapes("classification", 8)), "`validation`: found none with examples"),
        (
            lambda model, image: fit(TINY, "digits", validation=Shapes("classification", 8)),
            "`validation`: found it with the data digits",
        ),
        (lambda model, image: fit(TINY, "digits", rotation=3.0), "rotation: found it for classification"),
        (
            lambda model, image: evaluate(model, "digits", pretrained=True),
            "expected neither: a network has its own weights",
        ),
        (
            lambda model, image: evaluate(TINY, "digits", device="abacus"),
            "`device`: found abacus, expected a device of this machine",
        ),
        (lambda model, image: export_model(model, img_size=32), "`img_size`: found it with a network that is built"),
        (
            lambda model, image: export_model(TINY, to="coreml"),  # type: ignore[arg-type]
            "`to`: found 'coreml', expected onnx, openvino, tensorrt, tensorrt-rtx or triton",
        ),
        (lambda model, image: predict(TINY, []), "images: found none, expected some"),
        (
            lambda model, image: predict(SPECS["pose"], Image.new("RGB", (8, 8)), boxes=image),
            "with images[0], expected image files",
        ),
        (
            lambda model, image: benchmark(TINY, precision="int8"),
            "found int8 for a network on torch, expected it on ort-cpu",
        ),
    ],
)
def test_what_the_functions_refuse(
    call: Any, message: str, network: nn.Module, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError) as caught:
        call(network, picture)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
