"""Tiled prediction against a forward pass of the whole image, per MAC: the cost of cutting and blending.

python -m benchmarks.tiled: about 3 minutes; 1 thread. `segment` cuts an image into tiles that overlap by a quarter,
prepares them, runs the network, resizes and blends the logits, and takes the classes. The peer is the bare network on
the whole image at once. Tiles take more MACs, since they overlap: `ratio` is the ratio of times, `per_mac_ratio` that
of times per MAC.
"""

import numpy as np
import torch
from PIL import Image

from benchmarks.interleave import interleave, ratio, record
from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.inference.tiling import OVERLAP, segment, tile_starts
from scalenet_zoo.zoo.interface import Interface

TILE, PICTURE = 256, 640
REPEATS = 15


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURE, PICTURE, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    tile, whole = (create_model("hrnet_w18", img_size=(size, size)).eval() for size in (TILE, PICTURE))
    whole.load_state_dict(tile.state_dict())
    inference = prepare_inference(tile)
    seen = preprocessing(spec_of(whole), Interface.of_network(whole))(picture)[None]

    def at_once() -> None:
        with torch.inference_mode():
            whole(seen)

    measured = ratio(*interleave(lambda: segment(inference, picture), at_once, REPEATS))
    tiles = len(tile_starts(PICTURE, TILE, OVERLAP)) ** 2
    macs = tiles * spec_of(tile).cost.macs / spec_of(whole).cost.macs
    shares = {
        name.replace("ratio", "per_mac_ratio"): value / macs for name, value in measured.items() if "ratio" in name
    }
    case = {"threads": 1, "tile": TILE, "picture": PICTURE, "tiles": tiles, "macs_ratio": macs}
    record("tiled", {**case, **measured, **shares})


if __name__ == "__main__":
    main()
