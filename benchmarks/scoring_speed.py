"""Scoring a network with a supernet's weights, against its bare forward passes.

python -m benchmarks.scoring_speed: about 10 minutes; ratios ours / bare, below 1 is faster. Ours extracts both coupled
paths, estimates batch-norm statistics and counts correct answers, reading images as bytes from disk. The peer runs the
same two networks, extracted beforehand, on as many images that are ready in memory. One thread computes. A real search
uses more images per network (thousands), so extraction has less weight there.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.search.images import CachedImages
from scalenet_zoo.search.scalenet.config import ScaleNetScoring
from scalenet_zoo.search.scalenet.judging import score_network
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet

CLASSES, BATCH, TRAINING, VALIDATION = 10, 32, 128, 256
SCALINGS = {
    "small": Scaling(0, 1.0, 1.0, 64),
    "middle": Scaling(1, 1.16, 1.16, 96),
    "large": Scaling(3, 1.64, 1.64, 128),
}


def images(folder: Path, count: int, size: int) -> CachedImages:
    """Random images, mapped from a file like real ones."""
    rng = np.random.default_rng(count)
    path = folder / f"{count}-{size}.npy"
    np.save(path, rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
    targets = torch.from_numpy(rng.integers(0, CLASSES, count))
    return CachedImages(torch.from_numpy(np.load(path, mmap_mode="c")), targets, ())


def bare(supernet: ScaleNetSupernet, spec: ArchSpec) -> Callable[[], object]:
    """The forward passes of both networks on batches in memory."""
    networks: list[nn.Module] = [supernet.extract(spec, side).eval() for side in ("left", "right")]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    size = spec.input.height
    ready = torch.randn(TRAINING + VALIDATION, 3, size, size).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for network in networks:
                for start in range(0, len(ready), BATCH):
                    network(ready[start : start + BATCH])

    return run


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a shared machine, one thread gives steadier times
    space = Space.load("scalenet")
    supernet = ScaleNetSupernet(space, CLASSES).eval()
    kernels = space.sample(np.random.default_rng(0), 1)[0]
    settings = ScaleNetScoring(bn_images=TRAINING, batch_size=BATCH)
    measured: dict[str, object] = {"threads": torch.get_num_threads(), "batch": BATCH}
    with tempfile.TemporaryDirectory() as scratch:
        for name, scaling in SCALINGS.items():
            spec = space.spec(kernels, scaling, CLASSES)
            training, validation = (images(Path(scratch), n, scaling.resolution) for n in (TRAINING, VALIDATION))

            def ours(
                spec: ArchSpec = spec, training: CachedImages = training, validation: CachedImages = validation
            ) -> None:
                score_network(supernet, spec, training, validation, settings)

            measured[f"{name}_{spec.cost.macs / 1e6:.0f}M_at_{scaling.resolution}"] = ratio(
                *interleave(ours, bare(supernet, spec), 10)
            )
    record("scoring_speed", measured)


if __name__ == "__main__":
    main()
