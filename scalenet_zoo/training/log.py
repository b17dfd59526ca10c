"""The log of a training run in its folder: a JSON-lines file, TensorBoard, and a plot of the curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalenet_zoo.core.errors import OutputError, TrainingError
from scalenet_zoo.core.files import read_json_lines, replacing
from scalenet_zoo.core.quoting import quoted

LOG, RUN_FILE = "log.jsonl", "run.json"
_FIGURES = {"train": ("epoch", "loss", "lr"), "val": ("epoch",)}
"""The numeric fields that a line of each kind has in addition to its step."""


def holds_run(folder: Path, resume: bool, record: str = RUN_FILE) -> bool:
    """Tell whether a folder holds a training run to resume.

    Args:
        folder: the folder of the run.
        resume: whether to resume a run.
        record: the file that describes the run.

    Raises:
        TrainingError: the folder holds a run and `resume` is False, or it holds checkpoints without their run's record.
        OutputError: the path is not a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder to write")
    exists = (folder / record).exists()
    if exists and not resume:
        raise TrainingError(f"{folder}: found a run, expected a new folder, or --resume to continue it")
    if not exists and any((folder / "checkpoints").glob("*")):
        raise TrainingError(f"{folder}: found checkpoints without {record}, expected a run, or a new folder")
    return exists


class TrainingLog:
    """A writer of figures to RUN/log.jsonl and RUN/tensorboard.

    Args:
        run: the run's folder.
        step: the step of the checkpoint that the run resumes from; later lines are dropped.

    Raises:
        TrainingError: the file exists but is not a log.
        OutputError: the log cannot be written.
    """

    def __init__(self, run: Path, step: int = 0) -> None:
        import logging

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        from torch.utils.tensorboard import SummaryWriter

        lines = [line for line in read_log(run) if line["step"] <= step] if step else []
        with replacing(run / LOG) as temporary:
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        self.path = run / LOG
        board = run / "tensorboard"
        try:
            self.board = SummaryWriter(str(board), purge_step=step + 1 if step else None)
        except Exception as error:  # TensorFlow, if installed, raises errors of its own
            raise OutputError(f"{board}: cannot be written: {getattr(error, 'strerror', None) or error}") from error

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Add a line; figures also go to TensorBoard.

        Args:
            step: optimiser steps done.
            kind: train or val.
            values: the figures by name; values that are not numbers go to the file only.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self.board.add_scalar(f"{kind}/{name}", value, step)
        self.board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        self.board.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read the lines of RUN/log.jsonl; drop an incomplete last line, which a killed run leaves.

    Raises:
        TrainingError: a line is not valid in a log.
    """
    path = run / LOG
    if not path.exists():
        return []
    try:
        lines = read_json_lines(path)
        for number, line in enumerate(lines, 1):
            _check_line(line, number)
    except ValueError as error:
        raise TrainingError(f"{path}: {error}") from None
    return lines


def _check_line(line: Mapping[str, Any], number: int) -> None:
    if line.get("kind") not in tuple(_FIGURES):
        raise ValueError(f"line {number}: kind: found {quoted(line.get('kind'))}, expected train or val")
    for name in ("step", *_FIGURES[line["kind"]]):
        value = line.get(name)
        if not _is_number(value) or (name == "step" and not isinstance(value, int)):
            raise ValueError(f"line {number}: {name}: found {quoted(value)}, expected a number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plot_curves(run: Path, metric: str) -> Path:
    """Plot the loss, the learning rate and the validation metric over epochs to RUN/curves.png.

    Args:
        run: the run's folder.
        metric: the name of the task's metric in the log.

    Returns:
        The path of the plot.

    Raises:
        TrainingError: the log is damaged.
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    lines = read_log(run)
    train = [line for line in lines if line["kind"] == "train"]
    val = [line for line in lines if line["kind"] == "val" and _is_number(line.get(metric))]
    losses = [line for line in val if _is_number(line.get("loss"))]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels: list[tuple[str, list[tuple[str, list[dict[str, Any]], str]]]] = [
        (
            "loss",
            [
                ("training", train, "loss"),
                ("validation", losses, "loss"),
            ],
        ),
        (metric, [("validation", val, metric)]),
        ("learning rate", [("", train, "lr")]),
    ]
    for axes, (title, curves) in zip(figure.subplots(1, 3), panels, strict=True):
        for label, points, key in curves:
            if points:
                axes.plot(
                    [point["epoch"] for point in points],
                    [point[key] for point in points],
                    label=label,
                    marker="." if len(points) < 50 else "",
                )
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if len([points for _, points, _ in curves if points]) > 1:
            axes.legend()
    path = run / "curves.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path
