"""Training of efficientnet_b0 by `scalenet-zoo train` against timm's script, with equal images, batches and threads.

python -m benchmarks.train_speed --timm-script PATH: about 7 minutes. PATH is `train.py` of timm's repository, which is
not in timm's package. Images per second of a whole epoch after the first, timed in turn; ratios are ours / timm's,
above 1 is faster.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from timm.data import create_dataset, create_loader

from benchmarks.interleave import record
from scalenet_zoo import load_spec
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.data.loaders import training_loader
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.training.log import read_log
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.zoo.interface import Interface

SIZE, BATCH, IMAGES, EPOCHS, WORKERS, PAIRS = 128, 32, 960, 2, 1, 4
COMMON = [
    *("--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--workers", str(WORKERS), "--opt", "sgd", "--lr", "0.05"),
    *("--sched", "cosine", "--smoothing", "0.1", "--color-jitter", "0.4", "--log-interval", "5", "--channels-last"),
]


def make_images(folder: Path) -> None:
    """Write crops of two photographs as JPEG files, in two classes."""
    for label, photograph in enumerate(sample_photographs()):
        with Image.open(photograph) as whole:
            for i in range(IMAGES // 2):
                x, y = (37 * i) % (whole.width - 160), (23 * i) % (whole.height - 160)
                for split in ("train", "val") if i < BATCH // 2 else ("train",):
                    path = folder / split / str(label) / f"{i}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    whole.crop((x, y, x + 160, y + 160)).save(path)


def ours(data: Path, run: Path, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "scalenet_zoo", "train", "efficientnet_b0", "--data", f"imagefolder:{data}"]
    more = ["--size", str(SIZE), "--output", str(run), "--cpu", "--scale", "0.08", "1.0", "--clip-grad", "none"]
    subprocess.run([*command, *more, *COMMON], env=environment, check=True, capture_output=True)
    lines = [line for line in read_log(run) if line["kind"] == "train" and line["epoch"] > 1]
    steps = [
        line["step"] - before
        for line, before in zip(lines, [IMAGES // BATCH, *(x["step"] for x in lines)], strict=False)
    ]
    seconds = sum(BATCH * count / line["images_per_second"] for line, count in zip(lines, steps, strict=True))
    return BATCH * sum(map(int, steps)) / float(seconds)


def theirs(script: Path, data: Path, run: Path, environment: dict[str, str]) -> float:
    command = [sys.executable, str(script), "--data-dir", str(data), "--model", "efficientnet_b0", "--device", "cpu"]
    more = ["--num-classes", "2", "--img-size", str(SIZE), "--output", str(run), "--warmup-epochs", "0", "--seed", "0"]
    done = subprocess.run([*command, *more, *COMMON], env=environment, check=True, capture_output=True, text=True)
    averages = re.findall(r"Train: [1-9]\d* \[.*?Time:[^(]*\(\s*[\d.]+s,\s+([\d.]+)/s\)", done.stdout + done.stderr)
    return float(averages[-1])  # over the last epoch


def loading(data: Path) -> dict[str, float]:
    """Measure the images per second of both loaders alone, over an epoch after one to warm up."""
    spec = load_spec("efficientnet_b0").replace(classes=2, height=SIZE, width=SIZE)
    recipe = Recipe(color_jitter=0.4)
    examples = open_data(f"imagefolder:{data}", "classification", "train")
    loader = training_loader(examples, spec, Interface.of(spec), recipe, BATCH, WORKERS)
    dataset = create_dataset("", root=str(data), split="train")
    peer = create_loader(
        dataset, (3, SIZE, SIZE), BATCH, is_training=True, color_jitter=0.4, num_workers=WORKERS, use_prefetcher=False
    )
    rates = {}
    for name, each in (("ours", loader), ("timm", peer), ("timm_again", peer), ("ours_again", loader)):
        list(each)
        start = time.perf_counter()
        seen = sum(BATCH for _ in each)
        rates[name] = seen / (time.perf_counter() - start)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timm-script", type=Path, required=True)
    script = parser.parse_args().timm_script
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rates: dict[str, list[float]] = {"ours": [], "timm": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images"
        make_images(data)
        for i in range(PAIRS):
            for name in ("ours", "timm") if i % 2 else ("timm", "ours"):
                run = Path(folder) / f"{name}-{i}"
                rate = ours(data, run, environment) if name == "ours" else theirs(script, data, run, environment)
                rates[name].append(rate)
        alone = loading(data)
    ratios = [a / b for a, b in zip(rates["ours"], rates["timm"], strict=True)]
    measured: dict[str, object] = {
        "threads": 1,
        "batch": BATCH,
        "size": SIZE,
        "workers": WORKERS,
        "images_per_second": rates,
        "ratio": statistics.median(ratios),
        "ratios": sorted(ratios),
        "loading_alone_images_per_second": alone,
    }
    record("train_speed", measured)


if __name__ == "__main__":
    main()
