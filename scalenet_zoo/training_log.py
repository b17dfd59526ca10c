"""What a training run tells: a JSON-lines file, TensorBoard, and a picture of the curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalenet_zoo._files import replacing

LOG = "log.jsonl"


class TrainingLog:
    """Writes lines of figures to RUN/log.jsonl and RUN/tensorboard.

    Args:
        run: the run's folder.
        step: of the checkpoint that the run goes on from: later lines are dropped.
    """

    def __init__(self, run: Path, step: int = 0) -> None:
        import logging

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        from torch.utils.tensorboard import SummaryWriter

        lines = [line for line in read_log(run) if line["step"] <= step] if step else []
        with replacing(run / LOG) as temporary:
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        self.path = run / LOG
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Add a line; figures also go to TensorBoard.

        Args:
            step: optimiser steps done.
            kind: train or val.
            values: by name; what is no number goes to the file alone.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self.board.add_scalar(f"{kind}/{name}", value, step)
        self.board.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        self.board.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/log.jsonl; a last one that was cut off by a kill is left out."""
    path = run / LOG
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def plot_curves(run: Path, metric: str) -> Path:
    """Draw loss, learning rate and the validation metric over epochs: RUN/curves.png.

    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib.figure import Figure

    lines = read_log(run)
    train = [line for line in lines if line["kind"] == "train"]
    val = [line for line in lines if line["kind"] == "val" and metric in line]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels: list[tuple[str, list[tuple[str, list[dict[str, Any]], str]]]] = [
        ("loss", [("training", train, "loss"), ("validation", [line for line in val if "loss" in line], "loss")]),
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
