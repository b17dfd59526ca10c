"""EfficientNet-B0 from its spec against timm's, and its ONNX export against torchvision's B0 exported the same way.

python -m benchmarks.efficientnet_b0: about 5 minutes; ratios ours / peer, below 1 is faster.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
import torchvision
from torch import nn

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo import create_model


def infer(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    model = model.eval().to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            model(images)

    return step


def train(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    labels = torch.arange(len(images))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def session(model: nn.Module, images: np.ndarray, folder: Path) -> Callable[[], object]:
    path = folder / f"{type(model).__name__}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *images.shape[1:]),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["image"],
            external_data=False,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: opened.run(None, {"image": images})


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a shared machine, one thread gives steadier times
    images = torch.randn(8, 3, 224, 224).to(memory_format=torch.channels_last)

    def ours() -> nn.Module:
        return create_model("efficientnet_b0")

    def peer() -> nn.Module:
        model: nn.Module = timm.create_model("efficientnet_b0")
        return model

    measured: dict[str, object] = {"threads": torch.get_num_threads(), "batch": len(images)}
    measured["construction"] = ratio(*interleave(ours, peer, 100))
    measured["inference"] = ratio(*interleave(infer(ours(), images), infer(peer(), images), 40))
    measured["training"] = ratio(*interleave(train(ours(), images), train(peer(), images), 40))
    with tempfile.TemporaryDirectory() as folder:
        image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
        theirs = torchvision.models.efficientnet_b0()
        ours_run, their_run = session(ours(), image, Path(folder)), session(theirs, image, Path(folder))
        measured["onnxruntime_against_torchvision"] = ratio(*interleave(ours_run, their_run, 400))
    record("efficientnet_b0", measured)


if __name__ == "__main__":
    main()
