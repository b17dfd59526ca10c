"""Predictions: decisions in terms of the picture, drawn over it, for files and folders on the command line."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError, SpecError, WeightsError
from scalenet_zoo.data.image_files import read_image, sample_photographs
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.inference.draw import (
    LARGEST_LEGEND,
    LEAST_LABELLED,
    draw,
    draw_classes,
    draw_joints,
    draw_label,
    palette,
)
from scalenet_zoo.inference.predict import DECISIONS, class_names, describe_output, predict_pictures
from scalenet_zoo.inference.prepare import Inference, prepare_inference
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.command import Run
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS, Shapes

PHOTOGRAPHS = sample_photographs()
TASKS: tuple[Task, ...] = ("classification", "segmentation", "pose")


def network(task: Task) -> Any:
    """With random weights, and the labels of `Shapes`."""
    labels = Shapes(task, 1).labels
    model: Any = random_model(SPECS[task], num_classes=len(labels.names))
    if task == "pose":
        labels = labels.model_copy(update={"skeleton": ((0, 1),)})
    if task == "segmentation":
        labels = labels.model_copy(update={"colours": ((0, 0, 0), (255, 0, 0), (0, 255, 0))})
    model.pretrained_cfg["labels"] = labels.to_cfg()
    return model


def seeing(task: Task, function: Any) -> Inference:
    """A network that computes what a test says."""
    return replace(prepare_inference(network(task)), run=function)


# --- decisions ------------------------------------------------------------------------------------


def test_a_classifiers_decisions_are_probabilities() -> None:
    inference = prepare_inference(network("classification"))
    pictures = [read_image(path) for path in PHOTOGRAPHS]
    found = predict_pictures(inference, pictures)
    logits = inference.run(torch.stack([torch.as_tensor(inference.transform(picture)) for picture in pictures]))
    np.testing.assert_allclose(np.stack(found), logits.double().softmax(1).detach().numpy(), rtol=1e-6)
    rows = describe_output(inference.spec, found[0], 3, "softmax", inference.names)
    assert {row["name"] for row in rows} == {"dark", "red", "green"}
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)


def test_a_segmentation_has_a_class_for_each_of_the_pictures_own_pixels() -> None:
    def left_and_right(images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 3, 16, 16)
        logits[:, 1, :, :8] = logits[:, 2, :, 8:] = 1
        return logits

    pictures = [Image.new("RGB", (100, 60)), Image.new("RGB", (31, 77))]
    for picture, classes in zip(
        pictures, predict_pictures(seeing("segmentation", left_and_right), pictures), strict=True
    ):
        assert classes.shape == (picture.height, picture.width)
        half = picture.width // 2
        assert (classes[:, : half - 3] == 1).all()
        assert (classes[:, half + 4 :] == 2).all()


@pytest.mark.parametrize("size", [(200, 100), (64, 200), (64, 64)])
def test_joints_are_found_where_they_are_in_the_picture(size: tuple[int, int]) -> None:
    """A network that finds the brightest red and the brightest green pixel of what it sees."""
    picture = Image.new("RGB", size)
    red, green = (size[0] // 4, size[1] // 5), (size[0] * 3 // 4, size[1] * 4 // 5)
    for colour, (x, y) in (((255, 0, 0), red), ((0, 255, 0), green)):
        picture.paste(colour, (x - 4, y - 4, x + 5, y + 5))  # its middle is (x, y)

    def bright(images: Tensor) -> Tensor:
        spots = images[:, :2] - images[:, :2].amin((2, 3), keepdim=True)
        return nn.functional.avg_pool2d(spots, 5, 1, 2)

    ((found,),) = predict_pictures(seeing("pose", bright), [picture])
    pixels = found[:, :2] * picture.size - 0.5
    np.testing.assert_allclose(pixels, [red, green], atol=2.5 * 1.25 * max(size) / 64)  # pixels of the crop


def test_several_persons_are_found_in_their_boxes() -> None:
    """A network that finds the brightest red and green pixel of what it sees; there are two pairs of them."""
    picture = Image.new("RGB", (300, 200))
    spots = [((60, 60), (90, 100)), ((200, 40), (240, 90))]
    for person in spots:
        for colour, (x, y) in zip(((255, 0, 0), (0, 255, 0)), person, strict=True):
            picture.paste(colour, (x - 3, y - 3, x + 4, y + 4))
    sizes: list[int] = []

    def bright(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return nn.functional.avg_pool2d(images[:, :2], 5, 1, 2)

    boxes = [(190.0, 20.0, 60.0, 90.0), (50.0, 50.0, 50.0, 60.0)]
    inference = replace(seeing("pose", bright), largest=3)
    first, nobody, third = predict_pictures(inference, [picture] * 3, [boxes, [], boxes])
    assert sizes == [3, 1]
    assert nobody.shape == (0, 2, 3)
    np.testing.assert_array_equal(first, third)
    np.testing.assert_allclose(first[:, :, :2] * picture.size - 0.5, spots[::-1], atol=2.5)
    rows = describe_output(inference.spec, first, form="joints", names=inference.names)
    assert [(row["person"], row["name"]) for row in rows] == [
        (person, name) for person in (0, 1) for name in inference.names
    ]
    assert describe_output(inference.spec, nobody, form="joints") == []
    alone = describe_output(inference.spec, first[1], form="joints", names=inference.names)
    assert alone == [{key: value for key, value in row.items() if key != "person"} for row in rows[2:]]


@pytest.mark.parametrize("task", ["classification", "segmentation", pytest.param("pose", marks=pytest.mark.slow)])
def test_a_file_decides_as_its_network(task: Task, tmp_path: Path) -> None:
    model: Any = network(task)
    export_onnx(model, tmp_path / "x.onnx", OnnxOptions(preprocess=True, output=DECISIONS[task], batch=(1, 2, 4)))
    pictures = [read_image(path) for path in PHOTOGRAPHS]
    ours, theirs = (
        predict_pictures(prepare_inference(opened), pictures)
        for opened in (OnnxNetwork.load(tmp_path / "x.onnx"), model)
    )
    for found, expected in zip(ours, theirs, strict=True):
        if task == "segmentation":  # the file's classes are of blocks of pixels
            assert (found == expected).mean() > 0.7
        else:
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_outputs_that_are_no_numbers() -> None:
    for task in TASKS:
        shape = (1, 3) if task == "classification" else (1, 3, 4, 4)
        with pytest.raises(WeightsError, match="found outputs that are not finite"):
            predict_pictures(
                seeing(task, lambda images, shape=shape: torch.full(shape, torch.nan)), [Image.new("RGB", (9, 9))]
            )


@pytest.mark.parametrize("task", TASKS)
def test_features(task: Task) -> None:
    model = random_model(SPECS[task], num_classes=0)
    features = prepare_inference(model)
    (found,) = predict_pictures(features, [read_image(PHOTOGRAPHS[0])])
    assert found.shape[0] == model.num_features
    assert describe_output(features.spec, found, form="softmax")[0]["features"] == found.size


def test_names_are_those_of_the_labels_or_of_imagenet() -> None:
    spec = SPECS["classification"]
    assert class_names(spec, Labels(names=("a", "b", "c"))) == ("a", "b", "c")
    assert class_names(spec, Labels(names=("a", "b"))) == ()  # of another class count
    assert class_names(spec) == ()
    assert class_names(spec.replace(classes=1000), Labels())[0] == "tench"


# --- drawings -------------------------------------------------------------------------------------


def test_sixty_colours_differ() -> None:
    colours = palette(61)
    assert len(set(colours)) == 60
    assert colours[60] == colours[0]
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_classes_are_blended_and_those_that_occur_are_in_the_legend() -> None:
    picture = Image.new("RGB", (40, 200), (100, 100, 100))
    classes = np.zeros((200, 40), np.int64)
    classes[150:] = 2
    sheet = draw_classes(picture, classes, ("sky", "car", "road"), ((0, 0, 200), (9, 99, 9), (200, 0, 0)))
    assert sheet.height == 200
    assert sheet.getpixel((10, 10)) == (50, 50, 150)
    assert sheet.getpixel((10, 190)) == (150, 50, 50)
    legend = {colour for _, colour in sheet.crop((41, 0, *sheet.size)).getcolors(100_000) or []}
    assert {(0, 0, 200), (200, 0, 0), (255, 255, 255)} <= legend
    assert (9, 99, 9) not in legend
    assert picture.getpixel((10, 10)) == (100, 100, 100)  # the picture itself is as it was


def test_a_long_legend_is_cut_and_a_small_picture_has_room_for_it() -> None:
    classes = np.arange(100).reshape(10, 10)
    sheets = [
        draw_classes(Image.new("RGB", (10, 10)), classes % count, [f"class {i}" for i in range(count)])
        for count in (3, LARGEST_LEGEND, 100)
    ]
    heights = [sheet.height for sheet in sheets]
    assert heights[0] < heights[1] < heights[2] < heights[1] + 30  # one line more: how many are left out


def test_a_label_is_drawn_in_a_band_along_the_top() -> None:
    picture = Image.new("RGB", (400, 300), (200, 10, 10))
    labelled = draw_label(picture, "tabby cat", 0.873)
    assert labelled.size == picture.size
    band = labelled.crop((0, 0, 400, 20))
    assert band.getpixel((399, 1)) == (0, 0, 0)
    assert (255, 255, 255) in {colour for _, colour in band.getcolors(100_000) or []}
    assert labelled.crop((0, 40, 400, 300)).getcolors() == [(400 * 260, (200, 10, 10))]
    assert picture.getpixel((0, 0)) == (200, 10, 10)  # the picture itself is as it was
    assert draw_label(picture, "tabby cat", 0.1).tobytes() != labelled.tobytes()
    assert draw_label(picture, "x" * 500, 0.9).size == picture.size


def test_a_small_picture_is_enlarged_for_its_label() -> None:
    picture = Image.new("RGB", (8, 4))
    picture.putpixel((7, 3), (255, 0, 0))
    labelled = draw_label(picture, "seven", 1.0)
    assert labelled.size == (LEAST_LABELLED, LEAST_LABELLED // 2)
    assert labelled.getpixel((LEAST_LABELLED - 1, LEAST_LABELLED // 2 - 1)) == (255, 0, 0)


def test_a_classifiers_drawing_has_the_likeliest_class() -> None:
    inference, picture = prepare_inference(network("classification")), Image.new("RGB", (300, 200), "green")
    decision = np.array([0.2, 0.7, 0.1])
    assert draw(inference, picture, decision).tobytes() == draw_label(picture, inference.names[1], 0.7).tobytes()


def test_the_threshold_of_joints(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_model(network("pose"), tmp_path / "model")
    Image.new("RGB", (40, 60), "grey").save(tmp_path / "a.png")
    command = ("predict", tmp_path / "a.png", "--model", tmp_path / "model")
    rows = run.json(*command)[str(tmp_path / "a.png")]
    scores = sorted(row["score"] for row in rows)
    between = min(max((scores[0] + scores[-1]) / 2, 0.0), 1.0)
    kept = run.json(*command, "--threshold", between)[str(tmp_path / "a.png")]
    assert kept == [row for row in rows if row["score"] >= between]
    save_model(network("classification"), tmp_path / "model")
    code, _, err = run(*command, "--threshold", 0.5)
    assert code == 2
    assert "--threshold: found it for tiny" in err


@pytest.mark.parametrize(("threshold", "drawn"), [(0.05, 2), (0.2, 1), (0.95, 0)])
def test_joints_below_the_threshold_are_not_drawn(threshold: float, drawn: int) -> None:
    joints = np.array([[[0.25, 0.5, 0.9], [0.75, 0.5, 0.1]]])
    colours = ((255, 0, 0), (0, 0, 255))
    sheet = draw_joints(Image.new("RGB", (200, 100)), joints, ("a", "b"), (), colours, threshold).crop((0, 0, 200, 100))
    found = {colour for _, colour in sheet.getcolors(100_000) or []}
    assert len(found & set(colours)) == drawn


def test_joints_and_lines_are_drawn_where_the_score_allows() -> None:
    picture = Image.new("RGB", (200, 100))
    joints = np.array([[[0.25, 0.5, 0.9], [0.75, 0.5, 0.9], [0.5, 0.9, 0.1]]])
    colours = ((250, 0, 0), (0, 250, 0), (0, 0, 250))
    sheet = draw_joints(picture, joints, ("left", "right", "hidden"), ((0, 1), (1, 2)), colours)
    assert sheet.getpixel((50, 50)) == colours[0]
    assert sheet.getpixel((150, 50)) == colours[1]
    assert sheet.getpixel((100, 50)) == colours[1]  # the line between them
    assert sheet.getpixel((100, 90)) == (0, 0, 0)
    assert sheet.getpixel((100, 20)) == (0, 0, 0)


def test_joints_outside_the_picture_and_names_in_other_alphabets() -> None:
    joints = np.array([[[-0.5, 2.0, 0.9], [1e6, 0.5, 0.9]]])
    sheet = draw_joints(Image.new("RGB", (20, 20)), joints, ("Kopf ä", "голова 頭"), ((0, 1),))
    assert sheet.width > 20


def test_several_persons_have_numbers() -> None:
    picture = Image.new("RGB", (200, 100))
    joints = np.array([[[0.25, 0.5, 0.9], [0.25, 0.7, 0.1]], [[0.75, 0.5, 0.9], [0.75, 0.9, 0.1]]])
    colours = ((250, 0, 0), (0, 250, 0))
    one, two = (draw_joints(picture, persons, ("head", "foot"), (), colours) for persons in (joints[:1], joints))
    assert two.getpixel((50, 50)) == two.getpixel((150, 50)) == colours[0]
    numbers = [np.asarray(sheet.crop((0, 20, 200, 45))).max() for sheet in (one, two)]  # above the heads
    assert (numbers[0], numbers[1]) == (0, 255)
    legend = {colour for _, colour in two.crop((201, 0, *two.size)).getcolors(100_000) or []}
    assert colours[0] in legend
    assert colours[1] not in legend  # nobody's foot is drawn
    assert draw_joints(picture, joints[:0], ("head", "foot")).crop((0, 0, 200, 100)).getcolors() == [(20000, (0, 0, 0))]


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_networks_without_names_are_drawn_too(task: Task) -> None:
    model: Any = random_model(SPECS[task])
    picture = read_image(PHOTOGRAPHS[1]).resize((64, 48))
    inference = prepare_inference(model)
    (decision,) = predict_pictures(inference, [picture])
    sheet = draw(inference, picture, decision)
    assert sheet.width > 64
    assert (np.asarray(sheet)[:48, :64] != np.asarray(picture)).any() or task == "pose"


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them broken, in two folders."""
    folder = tmp_path / "pictures"
    (folder / "far").mkdir(parents=True)
    for i, place in enumerate(("a.png", "far/b.jpg")):
        Shapes("pose", 2).read(i)[0].save(folder / place)
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def saved(task: Task, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_model(network(task), folder)
    return folder


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_folder_of_pictures_is_drawn(run: Run, pictures: Path, tmp_path: Path, task: Task) -> None:
    model = saved(task, tmp_path / "model")
    code, out, err = run("predict", "pictures", "--model", model, "--output", "drawn")
    assert code == 0
    assert err.splitlines() == ["left out: pictures/c.png: cannot be read as an image: its format is unknown"]
    lines = out.splitlines()
    assert lines[0] == "pictures/a.png"
    assert "pictures/far/b.jpg" in lines
    assert lines[-2:] == ["wrote drawn/a.png", "wrote drawn/far/b.png"]
    written = sorted(path.relative_to(tmp_path / "drawn") for path in (tmp_path / "drawn").rglob("*.*"))
    assert written == [Path("a.png"), Path("far/b.png")]
    with Image.open(tmp_path / "drawn" / "a.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 64

    found = run.json("predict", "pictures", "--model", model)
    assert list(found) == ["pictures/a.png", "pictures/c.png", "pictures/far/b.jpg"]
    assert found["pictures/c.png"] is None
    names = {"segmentation": {"dark", "red", "green"}, "pose": {"left_corner", "right_corner"}}[task]
    assert {row["name"] for row in found["pictures/a.png"]} <= names


def test_drawings_within_the_folder_are_not_drawn_again(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = saved("pose", tmp_path / "model")
    for _ in range(2):
        assert run("predict", "pictures", "--model", model, "--output", "pictures/drawn")[0] == 0
    assert len(list((pictures / "drawn").rglob("*.png"))) == 2


def test_files_and_folders_together(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = saved("classification", tmp_path / "model")
    found = run.json("predict", PHOTOGRAPHS[0], pictures / "far", pictures / "far" / "b.jpg", "--model", model)
    assert list(found) == [str(PHOTOGRAPHS[0]), str(pictures / "far" / "b.jpg")]
    (alone,) = run.json("predict", PHOTOGRAPHS[0], "--model", model).values()
    assert found[str(PHOTOGRAPHS[0])] == alone


def test_a_file_for_several_images_is_filled_up(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = saved("classification", tmp_path / "model")
    run.json("export", model, "--batch", 3, "--output", "three.onnx")
    ours, theirs = (run.json("predict", pictures, *PHOTOGRAPHS, "--model", opened) for opened in ("three.onnx", model))
    assert ours.keys() == theirs.keys()
    for name, rows in theirs.items():
        for row, expected in zip(ours[name] or [], rows or [], strict=True):
            assert row["name"] == expected["name"]
            assert row["probability"] == pytest.approx(expected["probability"], rel=1e-3)


def test_persons_in_boxes(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = saved("pose", tmp_path / "model")
    boxes = [("far/b.jpg", 0.9), ("b", 0.8), ("b", 0.1), (17, 0.9)]
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image_id": i, "category_id": 1, "bbox": [2, 3, 50, 40], "score": score} for i, score in boxes])
    )
    arguments = ("predict", "pictures", "--model", model, "--boxes", "boxes.json")
    found = run.json(*arguments)
    rows = found["pictures/far/b.jpg"]
    assert [row["person"] for row in rows] == [0, 0, 1, 1]
    assert {**rows[0], "person": 1} == rows[2]  # of the same box
    assert (found["pictures/a.png"], found["pictures/c.png"]) == ([], None)
    assert len(run.json(*arguments, "--box-score", 0)["pictures/far/b.jpg"]) == 6
    code, out, _ = run(*arguments, "--output", "drawn")
    assert code == 0
    assert out.splitlines()[:3] == ["pictures/a.png", "no persons", "pictures/far/b.jpg"]
    assert (tmp_path / "drawn" / "a.png").exists()


def test_large_pictures_are_seen_in_tiles(run: Run, tmp_path: Path) -> None:
    model = saved("segmentation", tmp_path / "model")
    read_image(PHOTOGRAPHS[0]).crop((0, 0, 150, 100)).save(tmp_path / "large.png")
    arguments = ("predict", "large.png", "--model", model)
    code, out, err = run(*arguments)
    assert code == 0
    assert err == (
        "1 image was squeezed to less than half the width or height, to 64 x 64 pixels:"
        " --tile shows tiny_segmentation images at their own resolution\n"
    )
    code, tiled, err = run(*arguments, "--tile", "--output", "drawn")
    assert (code, err) == (0, "")
    assert out.splitlines()[2:] != tiled.splitlines()[2:]
    assert run.json(*arguments, "--tile") != run.json(*arguments, "--tile", "--overlap", 0.6)
    assert run.json(*arguments, "--tile") != run.json(*arguments, "--tile", "--flip")


@pytest.mark.parametrize("own", [True, False])
def test_pictures_shown_otherwise_than_in_training_are_told(run: Run, tmp_path: Path, own: bool) -> None:
    model = network("segmentation")
    training = {"training": {"recipe": {"own_resolution": own}}}
    provenance = model.spec.provenance.model_copy(update={"details": training})
    model.spec = model.spec.model_copy(update={"provenance": provenance})
    save_model(model, tmp_path / "model")
    read_image(PHOTOGRAPHS[0]).crop((0, 0, 150, 100)).save(tmp_path / "large.png")
    arguments = ("predict", "large.png", "--model", "model")
    code, _, whole = run(*arguments)
    assert code == 0
    code, _, tiled = run(*arguments, "--tile")
    assert code == 0
    if own:
        assert ": --tile shows tiny_segmentation images at their own resolution\n" in whole
        assert tiled == ""
    else:
        assert (
            whole == "1 image was squeezed to less than half the width or height, to 64 x 64 pixels, as in training\n"
        )
        assert tiled.startswith("tiny_segmentation was trained on whole pictures, squeezed to its input: in tiles it")


def test_a_log_says_how_far_a_large_picture_is(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = saved("segmentation", tmp_path / "model")
    read_image(PHOTOGRAPHS[0]).crop((0, 0, 150, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr("scalenet_zoo.cli.progress.LINE_SECONDS", 0.0)
    code, _, err = run("predict", "large.png", "--model", model, "--tile")
    assert code == 0
    assert err.splitlines() == ["rows of large.png: 36 of 100", "rows of large.png: 100 of 100", "predicting: 1 of 1"]


def test_names_of_files_do_nothing_to_a_terminal(run: Run, tmp_path: Path) -> None:
    model = saved("segmentation", tmp_path / "model")
    names = ["a\x1b[31m.png", "b\nc.png", os.fsdecode(b"d\xff.png")]
    (tmp_path / "pictures").mkdir()
    for name in names:
        Shapes("segmentation", 1).read(0)[0].save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "e\x1b.png").write_text("no picture")
    code, out, err = run("predict", "pictures", "--model", model, "--output", "drawn")
    assert code == 0
    lines = [line for line in out.splitlines() if "pictures" in line]
    assert lines == [r"pictures/a\x1b[31m.png", r"pictures/b\nc.png", r"pictures/d\udcff.png"]
    assert r"wrote drawn/b\nc.png" in out.splitlines()
    assert err == "left out: pictures/e\\x1b.png: cannot be read as an image: its format is unknown\n"
    assert "\x1b" not in out
    found = run.json("predict", "pictures", "--model", model)
    assert list(found) == [f"pictures/{name}" for name in (*names, "e\x1b.png")]


def test_what_is_no_picture_is_told_before_anything_is_run(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "hidden" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "hidden" / ".ipynb_checkpoints" / "a.png").touch()
    (tmp_path / "hidden" / "._a.png").touch()
    model = saved("segmentation", tmp_path / "model")
    long = "x" * 300 + ".png"
    for given, message in (
        ("fifo.png", "fifo.png: is not a regular file, expected one"),
        ("hidden", "hidden: found no image files, expected some, such as .jpg or .png"),
        (long, f"{long}: found no such file, expected an image"),
    ):
        assert run.error("predict", given, "--model", model) == (1, message)


def test_labels_in_a_legend_take_a_line_each() -> None:
    picture = Image.new("RGB", (60, 60))
    classes = np.zeros((60, 60), np.int32)
    plain, odd = (draw_classes(picture, classes, [name]) for name in (r"a\nb", "a\nb"))
    assert np.array_equal(np.asarray(plain), np.asarray(odd))


@pytest.mark.parametrize("task", TASKS)
def test_a_flip_test_is_the_mean_with_the_mirror_image(run: Run, tmp_path: Path, task: Task) -> None:
    model = saved(task, tmp_path / "model")
    Shapes(task, 1).read(0)[0].save(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    plain, mirrored = run.json("predict", "a.png", "b.png", "--model", model, "--flip").values()
    if task == "pose":  # what was left is right
        mirrored = [{**row, "joint": 1 - row["joint"], "x": 1 - row["x"]} for row in mirrored[::-1]]
    for row, other in zip(plain, mirrored, strict=True):
        for key in row.keys() - {"name"}:
            assert row[key] == pytest.approx(other[key], abs=1e-3)


def test_what_predict_refuses(run: Run, pictures: Path, tmp_path: Path) -> None:
    model, classifier = saved("pose", tmp_path / "pose"), saved("classification", tmp_path / "classifier")
    (tmp_path / "empty").mkdir()
    (pictures / "far" / "b.png").write_bytes((pictures / "a.png").read_bytes())
    boxes = "boxes.json"
    (tmp_path / boxes).write_text('[{"image_id": "a", "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]')
    (tmp_path / "far.json").write_text('[{"image_id": "a", "category_id": 1, "bbox": [900, 0, 9, 9], "score": 1}]')
    before = sorted(tmp_path.rglob("*"))
    for arguments, code, message in (
        (["nowhere.png", "--model", model], 1, "nowhere.png: found no such file, expected an image"),
        (["empty", "--model", model], 1, "empty: found no image files"),
        (["pictures/c.png", "--model", model], 1, "pictures/c.png: cannot be read as an image"),
        (["pictures", "--model", model, "--broken-limit", "0"], 1, "data: found 1 image that cannot be used, expected"),
        (["pictures", "--model", model, "--output", "drawn"], 1, "pictures/far/b.png: would be drawn to drawn/far/b"),
        (["pictures/a.png", "--model", model, "--output", "pictures"], 1, "pictures/a.png: would be drawn to pictures"),
        (["pictures", "--model", model, "--output", "pictures"], 1, "pictures: found the images in this folder"),
        (["pictures/a.png", "--model", model, "--tile"], 2, "Invalid value: --tile: found it for tiny_pose (pose)"),
        (["pictures/a.png", "--model", model, "--tile", "--overlap", "2"], 2, "Invalid value: --overlap: found 2.0, "),
        (["pictures/a.png", "--model", model, "--boxes", "far.json"], 1, "far.json: pictures/a.png: bbox: found [900,"),
        (["pictures/a.png", "--model", model, "--overlap", "0.5"], 2, "Invalid value: --overlap: found 0.5 without"),
        (["pictures/a.png", "--model", classifier, "--boxes", boxes], 2, "Invalid value: --boxes: found it for tiny "),
        (["pictures/a.png", "--model", model, "--boxes", "none.json"], 1, "none.json: cannot be read: No such file"),
        (["pictures/far", "--model", model, "--boxes", boxes], 1, "boxes.json: found boxes for the images a, expected"),
        (["pictures/a.png", "--model", "x.onnx"], 1, "x.onnx: cannot be read"),
    ):  # fmt: skip
        found_code, found = run.error("predict", *arguments)
        assert (found_code, found[: len(message)]) == (code, message)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_that_are_not_valid_are_refused() -> None:
    model: Any = network("classification")
    model.pretrained_cfg["labels"] = {"names": ["a", "b", "c"], "colours": [[1, 2, 300]]}
    entries = Metadata(SPECS["classification"], Interface(), OnnxOptions()).entries()
    entries["scalenet_zoo.preprocessing"] = json.dumps(model.pretrained_cfg)
    complaint = r"labels: colours.0.2: found 300, expected"
    with pytest.raises(InputError, match=f"x.onnx: found metadata that are not valid: preprocessing: {complaint}"):
        Metadata.parse(entries, "x.onnx")
    with pytest.raises(SpecError, match=f"tiny: pretrained_cfg: {complaint}"):
        prepare_inference(model)
